"""`python -m ploutos.cli` is the `ploutos` command."""

from ploutos.cli.main import app

app()
