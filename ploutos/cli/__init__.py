"""The `ploutos` command."""

from ploutos.cli.main import app as app
