"""A stage's key covers every function of this project that runs inside it: those of the library, of the task, and of the worker."""

import ast
import gc

import numpy as np
from markets import TINY
from tracing import modules_of, traced

from ploutos import provenance, walk_forward
from ploutos.config import PipelineConfig
from ploutos.envs.spec import EnvSpec
from ploutos.features.build import write_features
from ploutos.market.bars import write_bars
from ploutos.nightly.night import NightRecord
from ploutos.provenance import logic_of
from ploutos.run_refs import RunRefs
from ploutos.store import Ref
from ploutos.training.jobs import MemberJob, run_job
from ploutos.training.spec import CheckpointSpec, TrainingPaths
from tasks import nightly


def test_the_workers_entry_is_in_the_key(tmp_path, panel, panel_features, panel_fold):
    write_bars(panel, tmp_path / "bars.parquet")
    write_features(panel_features, tmp_path / "features.parquet")
    job = MemberJob(
        bars=tmp_path / "bars.parquet", features=tmp_path / "features.parquet", fold=panel_fold, env=EnvSpec(episode_bars=60),
        training=TINY, checkpoint=CheckpointSpec(enabled=False), seed=1, teacher=None, paths=TrainingPaths(tmp_path / "work"),
        target=tmp_path / "policy.zip",
    )  # fmt: skip
    assert traced(lambda: run_job(job))[0] <= modules_of(["ploutos.training.jobs"])


def scaled(values):
    """Twice."""
    return values * 2


def test_a_tasks_own_logic_counts_and_its_words_do_not(monkeypatch):
    def write(path):
        """One thing."""
        np.save(path, scaled(np.ones(3)))

    before = logic_of(write, (__name__,))[0]
    assert before == logic_of(write, (__name__,))[0]

    def other(values):
        return values * 3

    monkeypatch.setitem(globals(), "scaled", other)
    assert logic_of(write, (__name__,))[0] != before


DRAWS, LIMITS, MADE_ONCE = 200, {"most": (1, 2.5)}, object()


def test_constants_of_a_task_count_where_they_are_numbers_and_texts(monkeypatch):
    def drawn():
        return DRAWS, LIMITS, MADE_ONCE, walk_forward.plan_folds

    before, modules = logic_of(drawn, (__name__,))
    assert modules == {"ploutos.walk_forward"}  # named through its module
    for name, value in (("DRAWS", 201), ("LIMITS", {"most": (1, 3.5)})):
        with monkeypatch.context() as changed:
            changed.setitem(globals(), name, value)
            assert logic_of(drawn, (__name__,))[0] != before, name
    monkeypatch.setitem(globals(), "MADE_ONCE", object())  # its address says nothing
    assert logic_of(drawn, (__name__,))[0] == before


def test_what_changed_is_found_anew_when_anything_it_reads_is_other(monkeypatch):
    keys = []
    monkeypatch.setattr(nightly, "run_stage", lambda store, name, kind, settings, upstream, compute: keys.append(upstream))

    def record(bars, seed):
        refs = RunRefs(*(Ref(kind="k", path="p", sha256=sha * 64, bytes=1) for sha in (bars, "1", "2", "3")), ())
        return NightRecord(
            session="2013-03-01", role="champion", decider="d", subject="vote", run="r", code="c", stale=False, signals=None,
            config=PipelineConfig(seed=seed).model_dump(mode="json"), refs=refs, decision=refs.quality,
        )  # fmt: skip

    for before, today in ((record("4", 1), record("5", 1)), (record("4", 1), record("6", 1)), (record("4", 1), record("5", 2))):
        nightly.changes_of.fn(None, before, today)
    assert len(set(map(tuple, keys))) == 3


def test_docstrings_and_comments_cost_nothing():
    plain = provenance._parsed("def f(x):\n    return x * 2\n")[0]
    assert provenance._parsed('"""Words."""\n\n\ndef f(x):\n    """More."""\n    return x * 2  # twice\n')[0] == plain
    assert provenance._parsed("def f(x):\n    return x * 3\n")[0] != plain


def test_a_digest_outlives_a_collection_of_garbage_that_parses():
    """CPython 3.11 loses count of how deep it is; a run ended on it before it had begun."""
    source, left = "x = " + "[" * 30 + "1" + "]" * 30, [3]

    def collected(phase, info):
        if left[0] and phase == "start":
            left[0] -= 1
            (lambda: ast.parse("y = 1"))()

    provenance._parsed.cache_clear()
    before, threshold = provenance._parsed(source), gc.get_threshold()
    provenance._parsed.cache_clear()
    gc.callbacks.append(collected)
    gc.set_threshold(5)
    try:
        assert provenance._parsed(source) == before
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(collected)
    assert left == [0]
