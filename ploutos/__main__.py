"""`python -m ploutos` is the `ploutos` command."""

from ploutos.cli.main import app

app()
