"""`python -m ploutos.cli` is the `ploutos` command."""

from ploutos.cli import start

start()
