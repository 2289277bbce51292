"""numba uses what it keeps on disk while a function's own file is unchanged; what it compiled in from other files is not asked."""

import hashlib
import importlib
import inspect
from pathlib import Path

from numba.core.dispatcher import Dispatcher

import ploutos
from ploutos.training.fast import dense, fused

ROOT = Path(ploutos.__file__).parent
HOLDERS = (dense, fused)
WATCHED = {(holder.__name__, "ploutos.training.fast.elementwise") for holder in HOLDERS}
"""Pairs of a module and one whose functions its own compile in: the first holds a digest of the second."""
CONSTANTS = {"BUY": 1, "HOLD": 0, "SELL": 2, "N_ACTIONS": 3, "N_ACCOUNT_WIDE": 2, "OUTCOMES_KEPT": 10}
"""Of other modules, compiled in. Whoever changes one also changes each file that compiles it in."""


def compiled_in():
    """Every name of another module of ours that a compiled function reads: its module, the name, and what it stands for."""
    for file in ROOT.rglob("*.py"):
        text = file.read_text()
        if "njit" not in text and "compiled" not in text:
            continue
        name = ".".join(("ploutos", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        module = importlib.import_module(name)
        own = [each.py_func for each in vars(module).values() if isinstance(each, Dispatcher) and each.py_func.__module__ == name]
        lines = [line.split(" import ")[1] for line in text.splitlines() if " import " in line]
        imported = {word.strip(" (),") for line in lines for word in line.split(",")}
        for function in own:
            codes = [function.__code__, *filter(inspect.iscode, function.__code__.co_consts)]
            for word in {word for code in codes for word in code.co_names} & set(function.__globals__):
                value = function.__globals__[word]
                if (isinstance(value, Dispatcher) and value.py_func.__module__ != name) or (
                    isinstance(value, int | float | str | tuple) and word in imported
                ):
                    yield name, word, value


def test_a_change_of_what_is_compiled_in_is_noticed():
    found = list(compiled_in())
    functions = {(name, value.py_func.__module__) for name, _, value in found if isinstance(value, Dispatcher)}
    assert functions == WATCHED, "functions of another module are compiled in: keep them in one file, or hold a digest of the other"
    digest = hashlib.sha256((ROOT / "training" / "fast" / "elementwise.py").read_bytes()).hexdigest()[:16]
    for holder in HOLDERS:
        assert digest == holder.COMPILED_IN, f'elementwise.py changed: set COMPILED_IN of {holder.__name__} to "{digest}"'
    assert {word: value for _, word, value in found if not isinstance(value, Dispatcher)} == CONSTANTS
