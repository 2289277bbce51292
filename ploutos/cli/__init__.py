"""The `ploutos` command."""

from ploutos.cli.interrupt import end_at_once_on_signals
from ploutos.cli.main import app


def start() -> None:
    """What the terminal calls."""
    end_at_once_on_signals()
    app()
