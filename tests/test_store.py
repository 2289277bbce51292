"""The store computes once, believes no file unseen, and survives whatever ends a process."""

import ast
import errno
import importlib
import inspect
import os
import pickle
import pkgutil
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import deployments
import flows
import ploutos
import tasks
from ploutos import errors, provenance
from ploutos.errors import StoreError
from ploutos.provenance import logic_of, source_digest
from ploutos.seeding import generator, seed_integer
from ploutos.store import Kind, Store, digest_of

ROOT = Path(__file__).parents[1]
TEXT = Kind("text", ".txt", lambda text, path: path.write_text(text), Path.read_text)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def counted(content="content"):
    calls = []

    def write(path):
        calls.append(path)
        path.write_text(content)

    return write, calls


def files_in(store):
    return [path for path in store.root.rglob("*") if path.is_file() and "locks" not in path.parts]


def test_a_key_is_computed_once(store):
    write, calls = counted()
    first, hit = store.cached("stage", "k", TEXT, write)
    assert not hit
    assert store.cached("stage", "k", TEXT, write) == (first, True)
    assert len(calls) == 1
    assert store.path(first).read_text() == "content"


def test_an_artifact_is_read_by_its_kind_and_by_no_other(store):
    ref, _ = store.cached("stage", "k", TEXT, lambda path: TEXT.write("content", path))
    assert store.load(ref, TEXT) == "content"
    with pytest.raises(StoreError, match="is of kind text; expected bars"):
        store.load(ref, Kind("bars", ".txt", TEXT.write, TEXT.read))


@pytest.mark.parametrize("damage", ["delete", "truncate", "overwrite", "key"])
def test_a_lost_or_damaged_artifact_is_computed_again(store, damage):
    write, calls = counted()
    ref, _ = store.cached("stage", "k", TEXT, write)
    file = store.path(ref)
    if damage == "delete":
        file.unlink()
    elif damage == "truncate":
        file.write_text("con")
    elif damage == "overwrite":
        file.write_text("CONTENT")  # the same size
    else:
        (store.root / "keys" / "stage" / "k.json").write_text('{"ref": {"kind"')
    if damage != "key":
        with pytest.raises(StoreError, match="is missing or damaged"):
            store.path(ref)
    assert store.cached("stage", "k", TEXT, write) == (ref, False)
    assert len(calls) == 2
    assert store.path(ref).read_text() == "content"


@pytest.mark.parametrize(
    ("error", "raised", "sentence"),
    [
        (OSError(errno.ENOSPC, "full"), StoreError, "no space left in .* run again"),
        (ValueError("ours"), ValueError, "ours"),
    ],
)
def test_a_failed_write_leaves_nothing_behind(store, error, raised, sentence):
    def write(path):
        path.write_text("half")
        raise error

    with pytest.raises(raised, match=sentence):
        store.cached("stage", "k", TEXT, write)
    assert files_in(store) == []


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write in .*; choose another"):
        Store(tmp_path / "file" / "store").cached("stage", "k", TEXT, lambda path: None)


def test_threads_that_ask_at_once_compute_once(store):
    calls = []

    def write(path):
        calls.append(1)
        time.sleep(0.1)
        path.write_text("x")

    threads = [threading.Thread(target=store.cached, args=("stage", "k", TEXT, write)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


_WRITER = """
import sys, time
from pathlib import Path
from ploutos.store import Kind, Store
TEXT = Kind("text", ".txt", lambda text, path: path.write_text(text), Path.read_text)
def write(path):
    with Path(sys.argv[2]).open("a") as log:
        log.write("x")
    path.write_text("half")
    time.sleep(float(sys.argv[3]))
    path.write_text("whole")
Store(Path(sys.argv[1])).cached("stage", "k", TEXT, write)
"""


def start_writer(store, log, seconds):
    return subprocess.Popen([sys.executable, "-c", _WRITER, str(store.root), str(log), str(seconds)])


def test_processes_that_ask_at_once_compute_once(store, tmp_path):
    log = tmp_path / "log"
    writers = [start_writer(store, log, 0.3) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert log.read_text() == "x"


def test_a_process_killed_in_the_middle_of_a_write_leaves_no_lock_and_no_artifact(store, tmp_path):
    log = tmp_path / "log"
    writer = start_writer(store, log, 60)
    while not log.exists() or not log.read_text():
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert store.lookup("stage", "k") is None
    write, calls = counted("whole")
    ref, hit = store.cached("stage", "k", TEXT, write)
    assert (hit, len(calls), store.path(ref).read_text()) == (False, 1, "whole")


def test_a_digest_knows_content_and_not_the_order_of_keys():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_of({"a": float("nan")})


def digests(folder):
    rooms = ("ploutos.features.build", "ploutos.advisor.advisor", "ploutos.training.ppo")
    code = f"from ploutos.provenance import logic_of, source_digest; print(*map(source_digest, {rooms}))"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return dict(zip(("features", "llm", "training"), ended.stdout.split(), strict=True))


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_editing_a_room_changes_the_digest_of_what_stands_on_it_and_of_nothing_else(tmp_path):
    shutil.copytree(ROOT / "ploutos", tmp_path / "ploutos", ignore=shutil.ignore_patterns("__pycache__"))
    base = digests(tmp_path)
    edit(tmp_path / "ploutos/features/indicators.py", "import numpy as np", "import numpy as np  # a comment")
    assert digests(tmp_path) == base
    edit(tmp_path / "ploutos/advisor/mock.py", "_LEAST_AGREEMENT = 2", "_LEAST_AGREEMENT = 3")
    advisor = digests(tmp_path)
    assert [name for name in base if advisor[name] != base[name]] == ["llm"]
    edit(tmp_path / "ploutos/features/indicators.py", "talib.RSI(close, 5) / 50", "talib.RSI(close, 6) / 50")
    features = digests(tmp_path)
    assert features["features"] != base["features"]
    assert features["training"] != base["training"]


def test_tasks_that_ask_for_a_digest_at_once_never_build_two_syntax_trees_at_once(monkeypatch):
    """CPython 3.11 ends such a meeting in `AST constructor recursion depth mismatch`."""
    building, met, parse = threading.Semaphore(1), [], ast.parse

    def watched(source, *more, **named):
        alone = building.acquire(blocking=False)
        met.append(not alone)
        time.sleep(0.001)
        if alone:
            building.release()
        return parse(source, *more, **named)

    provenance._parsed.cache_clear()
    monkeypatch.setattr(ast, "parse", watched)
    modules = [found.name for found in pkgutil.walk_packages(ploutos.__path__, "ploutos.") if not found.name.endswith("__main__")]
    tasks = [threading.Thread(target=source_digest, args=(module,)) for module in modules]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    provenance._parsed.cache_clear()
    assert len(met) > 10
    assert not any(met)


def test_a_digest_is_taken_while_a_thread_that_is_not_ours_builds_a_syntax_tree(monkeypatch):
    """The same meeting with a thread of Prefect's once failed a run."""
    parse, met = ast.parse, []

    def meets_once(source, *more, **named):
        met.append(source)
        if len(met) % 2:
            raise SystemError("AST constructor recursion depth mismatch (before=48, after=76)")
        return parse(source, *more, **named)

    expected = source_digest("ploutos.errors"), logic_of(digests, (__name__,))
    provenance._parsed.cache_clear()
    monkeypatch.setattr(ast, "parse", meets_once)
    assert (source_digest("ploutos.errors"), logic_of(digests, (__name__,))) == expected
    assert len(met) > 3


def test_a_digest_of_a_module_that_is_none_is_an_error():
    with pytest.raises(ModuleNotFoundError, match="nothing is not a module of ploutos"):
        source_digest("ploutos.nothing")


def test_seeds_belong_to_a_purpose_and_its_indices():
    asked = [("train", 0, 0), ("train", 0, 1), ("train", 1, 0), ("bootstrap", 0, 0)]
    assert len({seed_integer(42, *key) for key in asked}) == len(asked)
    assert seed_integer(42, "train", 0, 0) == seed_integer(42, "train", 0, 0) != seed_integer(43, "train", 0, 0)
    assert generator(1, "a").random() != generator(1, "b").random()


def test_the_library_never_imports_prefect():
    names = [module.name for module in pkgutil.walk_packages(ploutos.__path__, "ploutos.") if not module.name.endswith("__main__")]
    code = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nassert 'prefect' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    assert len(names) > 40


def kinds_of(error):
    return {error}.union(*map(kinds_of, error.__subclasses__()))


def test_every_error_of_ours_travels_between_processes_with_what_it_carries():
    packages = (ploutos, flows, tasks, deployments)
    for package in packages:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    names = {package.__name__ for package in packages}
    kinds = [kind for kind in kinds_of(Exception) if kind.__module__.split(".")[0] in names]
    for kind in kinds:
        own = list(inspect.signature(kind.__init__).parameters)[2:] if inspect.isfunction(kind.__init__) else []
        error = kind("found this; expected that", *[7.5] * len(own))
        error.add_note("in fold 3")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (kind, "found this; expected that", vars(error))
        assert [getattr(again, name) for name in own] == [7.5] * len(own)
        assert again.__notes__ == ["in fold 3"]
    assert {errors.RateLimited, errors.LLMBusy} <= set(kinds)
    assert len(kinds) > 20
