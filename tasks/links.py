"""Links of artifacts: to a page that `ploutos serve` serves, which a browser follows, or else to the file."""

from pathlib import Path
from urllib.parse import quote

from ploutos.settings import SERVED, Settings


def link_to(file: Path) -> str:
    """Address of a page of a run or a night."""
    settings, file = Settings(), file.resolve()
    home = settings.home.resolve()
    if settings.reports is not None and any(file.is_relative_to(home / name) for name in SERVED):
        return f"{settings.reports.rstrip('/')}/{quote(file.relative_to(home).as_posix())}"
    return file.as_uri()
