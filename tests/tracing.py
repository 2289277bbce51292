"""Which modules and functions of this project ran, and which a cache key knows."""

import sys
from functools import cache
from pathlib import Path
from types import FunctionType

import ploutos
from ploutos import provenance

ROOT = Path(ploutos.__file__).parent.parent
PACKAGES = tuple(f"{ROOT / name}/" for name in ("ploutos", "tasks", "flows"))


@cache
def module_in(file):
    return Path(file).relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


def traced(work, inner=None):
    """Modules of this project whose functions ran in this thread, and the functions that ran while `inner` did, by their full names."""
    modules, functions, depth = set(), set(), 0

    def note(frame, event, _):
        nonlocal depth
        code = frame.f_code
        if inner is not None and code is inner.__code__:
            depth += {"call": 1, "return": -1}.get(event, 0)
        if event == "call" and code.co_filename.startswith(PACKAGES):
            modules.add(module := module_in(code.co_filename))
            if depth:
                functions.add(f"{module}.{code.co_qualname}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return modules, functions


def modules_of(modules):
    return set(provenance._closure(tuple(modules))[0])


def followed(function, package):
    """Full names of the functions of a package that `provenance.logic_of` follows from one of them."""
    found, pending = set(), [function]
    while pending:
        each = pending.pop()
        name = f"{each.__module__}.{each.__qualname__}" if isinstance(each, FunctionType) else ""
        if name.startswith(f"{package}.") and name not in found:
            found.add(name)
            pending += provenance._reached(each)
    return found
