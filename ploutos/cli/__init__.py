"""The `ploutos` command."""

import sys

from ploutos.cli.main import app
from ploutos.cli.shared import say_unexpected
from ploutos.interrupt import end_at_once_on_signals


def start() -> None:
    """What the terminal calls. The one place where an unexpected error becomes a sentence and a log file."""
    end_at_once_on_signals()
    if "--debug" in sys.argv:  # wherever it stands
        sys.argv = [sys.argv[0], "--debug", *(word for word in sys.argv[1:] if word != "--debug")]
    try:
        app()
    except Exception as error:  # noqa: BLE001
        sys.exit(say_unexpected(error, "--json" in sys.argv))
