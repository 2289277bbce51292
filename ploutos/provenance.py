"""What a result stands on: the source it was computed by, the versions below it, the commit above it.

`source_digest` follows the imports of a module through `ploutos` and hashes every file it reaches, so a cache key
forgets nothing and knows nothing else: editing `ploutos/features` changes the digest of feature building, editing
`ploutos/llm` does not. It hashes syntax trees, so comments, docstrings and layout do not count. Imports made inside a
function count as well. `logic_of` does the same for a function that stands outside the library, in a task.
"""

import ast
import hashlib
import inspect
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from ploutos.specs import Spec

ROOT = Path(__file__).parent
_PARSING, _TRIES = threading.Lock(), 20


def _module_file(module: str) -> Path | None:
    """File of a `ploutos` module; None when the name is not a module (an attribute, say)."""
    parts = module.split(".")[1:]
    folder = ROOT.joinpath(*parts)
    if (folder / "__init__.py").is_file():
        return folder / "__init__.py"
    file = ROOT.joinpath(*parts).with_suffix(".py") if parts else ROOT / "__init__.py"
    return file if file.is_file() else None


def _imports(tree: ast.AST) -> set[str]:
    """Absolute dotted names that a syntax tree imports; `from a import b` gives both `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _tree(source: str) -> ast.Module:
    """A syntax tree. CPython 3.11 fails now and then where two threads build one at once, and some of the threads are Prefect's."""
    for _ in range(_TRIES):
        with _PARSING, suppress(SystemError):
            return ast.parse(source)
    return ast.parse(source)


@lru_cache(maxsize=1024)
def _parsed(source: str) -> tuple[str, frozenset[str]]:
    """Digest of a module's syntax tree, and what it imports."""
    tree = _tree(source)
    return hashlib.sha256(_without_docstrings(tree).encode()).hexdigest(), frozenset(_imports(tree))


def _without_docstrings(tree: ast.AST) -> str:
    """A syntax tree as text, without strings that stand alone: those of modules, classes, functions and fields."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [
                each
                for each in body
                if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) and isinstance(each.value.value, str))
            ]
            body[:] = kept or [ast.Pass()]
    return ast.dump(tree)


def _closure(modules: tuple[str, ...]) -> tuple[dict[str, str], set[str]]:
    """Every `ploutos` module reached from `modules` with its tree's digest, and third-party top-level names."""
    digests: dict[str, str] = {}
    third_party: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        file = _module_file(module)
        if file is None or module in digests:
            continue
        digests[module], imports = _parsed(file.read_text(encoding="utf-8"))
        for name in imports:
            top = name.split(".")[0]
            if top == "ploutos":
                pending.append(name)
            elif top not in sys.stdlib_module_names:
                third_party.add(top)
    return digests, third_party


@lru_cache(maxsize=1)
def _distributions() -> dict[str, list[str]]:
    return {top: list(names) for top, names in packages_distributions().items()}


def library_versions(top_level: set[str]) -> dict[str, str]:
    """Distribution name to version for third-party top-level module names."""
    versions: dict[str, str] = {}
    for top in sorted(top_level):
        for name in _distributions().get(top, []):
            try:
                versions[name] = version(name)
            except PackageNotFoundError:  # a half-removed distribution: its name is all that is known
                versions[name] = "unknown"
    return versions


def source_digest(*modules: str) -> str:
    """Hex sha256 of the source of `modules`, of all they import within ploutos, and of the versions below.

    Raises:
        ModuleNotFoundError: a name is not a module of ploutos.
    """
    for module in modules:
        if _module_file(module) is None:
            raise ModuleNotFoundError(f"{module} is not a module of ploutos")
    digests, third_party = _closure(modules)
    parts = [f"{name}={digest}" for name, digest in sorted(digests.items())]
    parts += [f"{name}=={found}" for name, found in sorted(library_versions(third_party).items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def logic_of(function: Callable[..., object], packages: tuple[str, ...]) -> tuple[str, set[str]]:
    """What a function outside the library does by itself, and what of the library it calls.

    Args:
        packages: names such as `tasks`, whose functions are followed.

    Returns:
        Hex sha256 of the source, without docstrings, of the function and of every function of `packages` that it names, and of the
        plain values there that these name; and the modules of ploutos whose functions and classes they name.
    """
    found: dict[str, str] = {}
    modules: set[str] = set()
    pending: list[Any] = [function]
    while pending:
        each = pending.pop()
        package = str(getattr(each, "__module__", None)).split(".")[0]
        if package == "ploutos":
            modules.add(each.__module__)
        elif isinstance(each, FunctionType) and package in packages and (name := f"{each.__module__}.{each.__qualname__}") not in found:
            found[name] = _without_docstrings(_tree(textwrap.dedent(inspect.getsource(each))))
            found |= {f"{each.__module__}.{constant}": repr(value) for constant, value in _named(each) if _is_plain(value)}
            pending += _reached(each)
    return hashlib.sha256("\n".join(f"{name}={text}" for name, text in sorted(found.items())).encode()).hexdigest(), modules


def _named(function: FunctionType) -> list[tuple[str, Any]]:
    """The globals that a function's code names, and what it names of modules of ours among them."""
    codes, names = [function.__code__], set[str]()
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [const for const in code.co_consts if isinstance(const, CodeType)]
    found = [(name, function.__globals__[name]) for name in sorted(names) if name in function.__globals__]
    modules = [module for _, module in found if isinstance(module, ModuleType) and module.__name__.startswith("ploutos")]
    return found + [(name, getattr(module, name)) for module in modules for name in sorted(names) if hasattr(module, name)]


def _is_plain(value: Any) -> bool:
    """Whether a value is numbers and texts alone, however nested, so that its `repr` says all there is to it."""
    if is_dataclass(value) and not isinstance(value, type):
        return all(_is_plain(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes)


def _reached(function: FunctionType) -> Iterator[Callable[..., object]]:
    """What a function's code names: globals, with the functions that a frozen value among them holds, and what it closes over."""
    for _, each in _named(function):
        held = vars(each).values() if is_dataclass(each) and not isinstance(each, type) else ()
        yield from (found for found in (each, *held) if callable(found))
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        if callable(content):
            yield content
        elif not isinstance(content, Spec):  # settings count by their values, which a key holds
            yield type(content)


def git_commit() -> str:
    """Commit of the checkout that ploutos runs from, with `+` when it has changes; "unknown" outside git."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+" if dirty else "")
