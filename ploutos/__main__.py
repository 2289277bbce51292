"""`python -m ploutos` is the `ploutos` command."""

from ploutos.cli import start

start()
