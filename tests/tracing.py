"""Which modules of this project ran, and which a cache key knows."""

import sys
from pathlib import Path

import ploutos
from ploutos import provenance

ROOT = Path(ploutos.__file__).parent.parent
PACKAGES = tuple(f"{ROOT / name}/" for name in ("ploutos", "tasks", "flows"))


def traced(work):
    """Modules of this project whose functions ran in this thread."""
    seen = set()

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGES):
            seen.add(Path(frame.f_code.co_filename))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__") for path in seen}


def modules_of(modules):
    return set(provenance._closure(tuple(modules))[0])
