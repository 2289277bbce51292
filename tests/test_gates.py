"""Gates on a run of which the answers are known: each opens and shuts where it should, and doubts are raised by what causes them."""

from dataclasses import replace
from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest

from ploutos.evaluation import gates as module
from ploutos.evaluation.candidates import CANDIDATES, Candidates, Incumbent
from ploutos.evaluation.gates import judge
from ploutos.evaluation.overfitting import (
    deflated_track_record,
    minimum_track_record,
    overfitting,
    probabilistic_sharpe,
    sharpe_moments,
    superiority,
)
from ploutos.evaluation.spec import GateSpec
from ploutos.evaluation.summary import ChampionReason, Check, GateName, GateReason, Outcome
from ploutos.reporting.gate_table import doubts, gate_rows, gate_sentences
from ploutos.strategies.base import Role

N = 1000
DAYS = np.arange(N).astype("datetime64[D]")


def noise(seed, n=N, k=1, mean=0.0):
    drawn = np.random.default_rng(seed).standard_normal((n, k)) * 0.005
    return (drawn - drawn.mean(axis=0) + mean).squeeze()


YEAR = {"first": date(2020, 1, 2), "last": date(2020, 12, 31)}
GOOD = noise(0, mean=0.0010)
HOLDING = noise(99, mean=0.0002)


class Accounts(SimpleNamespace):
    """The part of a backtest that gates read, made from session returns."""

    def row(self, slug):
        return self.slugs.index(slug)


def accounts(**paths):
    slugs = tuple(name.replace("_", "-") for name in paths)
    equity = np.column_stack([np.ones(len(paths)), np.cumprod(1 + np.array(list(paths.values())), axis=1)]) * 1e5
    nothing = np.zeros_like(equity)
    return Accounts(
        slugs=slugs, equity=equity, pnl=equity - 1e5, commission=nothing, slippage=nothing, impact=nothing, borrow=nothing,
        written_off=nothing, positions=np.arange(N + 1), last=np.full(len(slugs), N),
    )  # fmt: skip


BARS = SimpleNamespace(
    sessions=np.r_[np.datetime64(-1, "D"), DAYS], sessions_per_year=252.0, symbols=("A", "B"), n_symbols=2,
    tradable=np.ones((N + 1, 2), dtype=bool),
)  # fmt: skip
FOLDS = [SimpleNamespace(train=SimpleNamespace(start=0, stop=200), test=SimpleNamespace(start=200, stop=N + 1))]


def metrics(path, role, fills=10, ruined=None):
    vol = path.std(ddof=1) * np.sqrt(252)
    sharpe = None if vol == 0 else path.mean() * 252 / vol
    total = np.prod(1 + path) - 1
    return SimpleNamespace(role=role, ann_vol=vol, sharpe=sharpe, total_return=total, n_fills=fills, ruined=ruined)


def summary(path=GOOD, members=(1.0, 1.2, 0.8), role=Role.VOTE, folds=(0.2, 0.1, -0.1, 0.1), **more):
    strategies = {"vote": metrics(path, role), "buy-and-hold": metrics(HOLDING, Role.BASELINE)}
    strategies |= {f"m{i}": SimpleNamespace(sharpe=sharpe, role=Role.MEMBER) for i, sharpe in enumerate(members)}
    shown = [
        SimpleNamespace(**YEAR, total_return={"vote": each}, members=[SimpleNamespace(train=1.5, test=1.0)]) for each in folds
    ]  # fmt: skip
    facts = {
        "subject": SimpleNamespace(slug="vote"), "benchmark": "buy-and-hold", "strategies": strategies, "folds": shown,
        "supervised": (), "reduced": False,
        "advisor": SimpleNamespace(is_mock=True), "spans": (),
        "of": lambda wanted: [slug for slug, each in strategies.items() if each.role is wanted],
    }  # fmt: skip
    return SimpleNamespace(**facts | more)


def candidates(*paths, searched=0):
    returns = np.column_stack(paths)
    return Candidates(tuple(map(str, range(len(paths)))), DAYS, returns, searched, {"candidate": len(paths)})


def judged(path=GOOD, tried=None, spec=None, bars=BARS, booked=None, **more):
    tried = candidates(path, noise(1), noise(2), noise(3)) if tried is None else tried
    given = {key: more.pop(key) for key in ("double_cost", "monte_carlo_losses") if key in more}
    booked = booked or accounts(vote=path, buy_and_hold=HOLDING)
    return judge(summary(path, **more), booked, bars, FOLDS, tried, spec or GateSpec(), 7, **given)


def gate(gates, name):
    return next(row for row in gates.rows if row.name is name)


def check(gates, name):
    return next(row for row in gates.evidence if row.name is name)


def test_a_real_edge_is_promoted_with_its_margins():
    gates = judged()
    assert gates.outcome is Outcome.PROMOTE
    assert not gates.suspect
    psr = gate(gates, GateName.PSR)
    assert psr.value == pytest.approx(probabilistic_sharpe(sharpe_moments(GOOD)))
    assert psr.margin == pytest.approx(psr.value - 0.95)
    assert gate(gates, GateName.SHARPE).value == pytest.approx(GOOD.mean() / GOOD.std(ddof=1) * np.sqrt(252))
    assert gate(gates, GateName.POSITIVE_FOLDS).value == 0.75
    assert gate(gates, GateName.SEED_IQM).value == pytest.approx(1.0)
    assert gates.more_sessions is None
    assert gates.trials.n_trials == gates.trials.n_independent == 4


def test_risk_is_judged_at_the_stated_volatility_and_not_at_that_of_the_account():
    gates, louder = judged(), judged(GOOD * 3)
    scaled = np.cumprod(1 + GOOD * 0.06 / (GOOD.std(ddof=1) * np.sqrt(252)))
    equity = np.r_[1, scaled]
    deepest = (1 - equity / np.maximum.accumulate(equity)).max()
    for each in (gates, louder):
        assert gate(each, GateName.DRAWDOWN).value == pytest.approx(deepest, rel=1e-6)
    assert gate(judged(spec=GateSpec(at_volatility=0.12)), GateName.DRAWDOWN).value > 1.8 * deepest


def test_noise_is_rejected():
    gates = judged(noise(5))
    assert gates.outcome is Outcome.REJECT
    assert gate(gates, GateName.PSR).reason is GateReason.MISSED
    assert gate(gates, GateName.SHARPE).margin < 0
    assert gates.more_sessions is None


def test_trying_more_shuts_the_gate_that_trying_little_left_open():
    path = noise(0, mean=0.0005)
    few = judged(path, candidates(path, noise(1)))
    many = judged(path, candidates(path, *noise(2, k=60).T))
    searched = judged(path, candidates(path, noise(1), searched=59))
    same = judged(path, candidates(path, *(path + noise(seed) * 0.01 for seed in range(60))))
    values = [gate(each, GateName.DSR).value for each in (few, many, searched, same)]
    assert values[0] > 0.9 > values[1]
    assert values[2] == pytest.approx(values[1], abs=1e-6)  # a trial that left no path counts in full
    assert values[3] > 0.9  # sixty copies of one path are one trial
    assert same.trials.n_independent == 1


def test_too_short_a_record_asks_for_more_sessions_that_would_be_enough():
    path = noise(0, mean=0.0003)
    gates = judged(path, spec=GateSpec(psr=0.99, spa=0.9, pbo=0.9, pbo_high=1.0))
    assert gates.outcome is Outcome.INSUFFICIENT
    moments = sharpe_moments(path)
    needed = max(
        minimum_track_record(moments, 0, 0.99),
        deflated_track_record(moments, gates.trials.n_independent, gates.trials.deviation, 0.9),
    )
    assert gates.more_sessions == int(np.ceil(needed)) - N
    longer = np.tile(path, 4)[: N + gates.more_sessions]
    assert probabilistic_sharpe(sharpe_moments(longer)) >= 0.985
    assert f"{gates.more_sessions:,} more sessions" in gate_sentences(shown(gates))[0]


def shown(gates):
    vote = SimpleNamespace(role=Role.VOTE)
    return SimpleNamespace(gates=gates, strategies={"vote": vote}, advisor=SimpleNamespace(is_mock=True))


def test_a_superior_stranger_does_not_promote_the_subject():
    """The test over everything tried may succeed by another's merit."""
    weak, strong = noise(0, mean=0.0004), noise(8, mean=0.0022)
    gates = judged(weak, candidates(weak, strong))
    found = gate(gates, GateName.SPA)
    assert found.value <= 0.10
    assert found.reason is GateReason.ANOTHER
    assert gates.outcome is not Outcome.PROMOTE


def test_an_account_half_invested_is_compared_at_equal_volatility():
    """Half of a good account earns less than holding in a bull market and is no worse."""
    bull = noise(99, mean=0.0010) * 2
    quiet = GOOD / 10
    booked = accounts(vote=quiet, buy_and_hold=bull * 0.2)
    full = judged(GOOD, candidates(GOOD, noise(1)), booked=accounts(vote=GOOD, buy_and_hold=HOLDING))
    half = judged(quiet, candidates(quiet, noise(1)), booked=accounts(vote=quiet, buy_and_hold=HOLDING))
    assert gate(half, GateName.SPA).value == pytest.approx(gate(full, GateName.SPA).value, abs=0.02)
    assert gate(judged(quiet, booked=booked), GateName.SPA).value is not None


def test_what_was_not_measured_is_said_and_a_required_gate_without_a_value_promotes_nothing():
    gates = judged()
    assert gate(gates, GateName.DOUBLE_COST).reason is GateReason.NOT_MEASURED
    alone = judged(tried=candidates(GOOD))
    assert gate(alone, GateName.PBO).reason is GateReason.NOT_MEASURED
    assert not gate(alone, GateName.PBO).required  # nothing was chosen, so nothing was overfitted by choosing
    assert alone.outcome is Outcome.PROMOTE
    seeds = judged(tried=candidates(GOOD, *(GOOD + 1e-4 * np.random.default_rng(k).normal(size=N) for k in range(4))))
    assert not gate(seeds, GateName.PBO).required  # five seeds of one decider are one trial
    assert judged(double_cost=-0.01).outcome is Outcome.REJECT
    assert judged(double_cost=0.01, monte_carlo_losses=0.1).outcome is Outcome.PROMOTE
    assert judged(monte_carlo_losses=0.3).outcome is Outcome.REJECT
    still = judged(np.zeros(N), members=(None, None))
    assert still.outcome is Outcome.REJECT
    assert gate(still, GateName.SHARPE).reason is GateReason.NOT_MEASURED


def test_seeds_that_are_all_good_are_one_choice_and_noise_that_was_searched_is_not():
    """The best seed in one half is no better than the others in the next, however good all are: that is no overfitting."""
    seeds = [GOOD + noise(k) / 5 for k in range(20, 25)]
    good = judged(seeds[0], candidates(*seeds, noise(1)), booked=accounts(vote=seeds[0], buy_and_hold=HOLDING))
    assert overfitting(np.column_stack(seeds), 7).pbo > 0.35
    assert gate(good, GateName.PBO).value < 0.1
    assert good.outcome is Outcome.PROMOTE
    silent = judged(seeds[0], candidates(*seeds, np.zeros(N)), booked=accounts(vote=seeds[0], buy_and_hold=HOLDING))
    assert silent.outcome is Outcome.PROMOTE  # an advisor that never spoke is no choice either
    assert not gate(silent, GateName.PBO).required
    searched = [noise(k) for k in range(8)]
    lucky = max(searched, key=lambda path: path.mean() / path.std())
    found = judged(lucky, candidates(*searched))
    assert gate(found, GateName.PBO).reason is GateReason.MISSED


def unbooked():
    found = accounts(vote=GOOD, buy_and_hold=HOLDING)
    found.pnl = found.pnl.copy()
    found.pnl[0, 500] += 20.0
    return found


def late_symbol():
    tradable = BARS.tradable.copy()
    tradable[:300, 1] = False
    return SimpleNamespace(**vars(BARS) | {"tradable": tradable})


def without_fills(slug):
    found = summary()
    found.strategies[slug].n_fills = 0
    return {"strategies": found.strategies}


CAUSES = {
    Check.RECONCILES: {"booked": unbooked()},
    Check.BENCHMARK_TRADED: without_fills("buy-and-hold"),
    Check.RETURN_WITHOUT_FILLS: without_fills("vote"),
    Check.EXTREME_RETURN: {"folds": (2.5, 0.1, 0.1)},
    Check.SEEDS: {"members": (1.0,)},
    Check.DISPERSION: {"members": (1.0, 1.0, 1.0)},
    Check.SHORTENED: {"reduced": True},
    Check.CLEAN_SESSIONS: {"role": Role.FUSED, "advisor": SimpleNamespace(is_mock=False)},
    Check.SUPERVISED_BETTER: {"supervised": (SimpleNamespace(sign=-1), SimpleNamespace(sign=0))},
    Check.UNTRAINED_SYMBOLS: {"bars": late_symbol()},
}


@pytest.fixture(scope="module")
def luck():
    """What resampling says of the good path, once: no cause of doubt changes it."""
    paths = np.column_stack([GOOD, noise(1), noise(2), noise(3)])
    return overfitting(paths, 7), superiority(paths, HOLDING, 7)


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_of_doubt_makes_a_promotable_result_suspect_and_nothing_else_does(cause, luck, monkeypatch):
    monkeypatch.setattr(module, "overfitting", lambda *_: luck[0])
    monkeypatch.setattr(module, "superiority", lambda *_: luck[1])
    gates = judged(**CAUSES[cause])
    assert [row.name for row in gates.evidence if row.suspect] == [cause]
    assert gates.suspect
    assert gates.outcome is Outcome.INSUFFICIENT
    assert len(doubts(gates)) == 1
    assert "no number here can promote it" in gate_sentences(shown(gates))[0]


def test_far_better_in_training_than_in_test_is_suspect():
    fold = SimpleNamespace(
        **YEAR, total_return={"vote": 0.1}, members=[SimpleNamespace(train=4.0, test=1.0), SimpleNamespace(train=None, test=1)]
    )
    gates = judged()
    found = judge(
        SimpleNamespace(**vars(summary()) | {"folds": [fold] * 3}), accounts(vote=GOOD, buy_and_hold=HOLDING), BARS, FOLDS,
        candidates(GOOD, noise(1), noise(2)), GateSpec(), 7,
    )  # fmt: skip
    assert check(found, Check.IN_OVER_OUT).found == 3.0
    assert check(found, Check.IN_OVER_OUT).suspect
    assert not check(gates, Check.IN_OVER_OUT).suspect
    still = SimpleNamespace(**YEAR, total_return={"vote": 0.1}, members=[SimpleNamespace(train=None, test=None)])
    unknown = judge(
        SimpleNamespace(**vars(summary()) | {"folds": [still]}), accounts(vote=GOOD, buy_and_hold=HOLDING), BARS, FOLDS,
        candidates(GOOD, noise(1), noise(2)), GateSpec(), 7,
    )  # fmt: skip
    assert check(unknown, Check.IN_OVER_OUT).suspect
    assert doubts(unknown) == ["this could not be checked: in-over-out"]


def test_a_moved_bar_changes_the_outcome_and_the_table_shows_it():
    strict = judged(spec=GateSpec(sharpe=50.0))
    assert strict.outcome is Outcome.REJECT
    rows = {row[0]: row for row in gate_rows(strict)}
    assert rows["yearly Sharpe ratio"][2:] == ["≥ 50.000", f"{gate(strict, GateName.SHARPE).margin:+.3f}", "missed"]
    assert len(rows) == len(strict.rows) == len(GateName) - 1  # there is no champion
    assert {row.name for row in strict.evidence} == set(Check)


def held_against(returns, *paths, slug="vote", **more):
    champion = Incumbent("abc", "run-1", slug, returns, **{"same_settings": False} | more)
    equity = accounts(vote=paths[0]).equity[0]
    seen = equity[1:] / equity[:-1] - 1  # to the last bit what gates read of the subject
    return judged(paths[0], replace(candidates(seen, *paths[1:]), champion=champion))


def test_a_subject_is_held_against_the_champion_over_everything_that_was_tried():
    weak, partly = noise(3), np.where(np.arange(N) < 400, np.nan, noise(3))
    better = held_against(weak, GOOD, noise(1), weak)
    assert (better.outcome, gate(better, GateName.SPA_CHAMPION).reason) == (Outcome.PROMOTE, GateReason.PASSED)
    assert (better.champion.n_sessions, better.champion.n_compared, better.champion.n_better) == (N, 3, 1)
    assert "1 of the 3 paths that were tried is better by more than chance" in gate_sentences(summary_of(better))[1]
    half = held_against(partly, GOOD, noise(1))
    own, theirs = GOOD[400:], partly[400:]
    expected = superiority(np.column_stack([own, noise(1)[400:]]) * theirs.std() / [own.std(), noise(1)[400:].std()], theirs, 7, 0.1)
    assert gate(half, GateName.SPA_CHAMPION).value == pytest.approx(expected.p)
    assert half.champion.n_sessions == 600
    assert half.champion.sharpe == pytest.approx(own.mean() / own.std(ddof=1) * np.sqrt(252))


def test_nobody_takes_a_champions_place_by_being_as_good_or_by_leverage():
    twice = held_against(GOOD, GOOD * 2, noise(1))
    assert gate(twice, GateName.SPA_CHAMPION).reason is GateReason.MISSED
    assert gate(twice, GateName.SPA).reason is GateReason.PASSED
    assert twice.outcome is Outcome.INSUFFICIENT  # more sessions may show it
    assert "It misses 1 of" in gate_sentences(summary_of(twice))[0]
    identical = held_against(GOOD, GOOD)
    assert gate(identical, GateName.SPA_CHAMPION).value == 1.0
    best_of_others = held_against(noise(3), noise(4, mean=0.0001), GOOD)
    assert gate(best_of_others, GateName.SPA_CHAMPION).reason is GateReason.ANOTHER


@pytest.mark.parametrize(
    ("returns", "more", "reason", "word"),
    [
        (np.full(N, np.nan), {"unknown": "other-history"}, ChampionReason.OTHER_HISTORY, "another history"),
        (np.full(N, np.nan), {"unknown": "run-gone"}, ChampionReason.RUN_GONE, "missing or damaged"),
        (np.where(np.arange(N) < 62, noise(3), np.nan), {}, ChampionReason.TOO_SHORT, "62 sessions, too few"),
    ],
)
def test_a_champion_that_cannot_be_compared_promotes_nothing_and_says_why(returns, more, reason, word):
    gates = held_against(returns, GOOD, noise(1), **more)
    assert (gates.champion.reason, gates.outcome) == (reason, Outcome.INSUFFICIENT)
    assert gate(gates, GateName.SPA_CHAMPION).reason is GateReason.NOT_MEASURED
    said = gate_sentences(summary_of(gates))
    assert word in said[1]
    assert "A gate could not be measured." in said[0]


def test_the_champions_own_settings_are_not_held_against_themselves():
    own = held_against(GOOD, GOOD, noise(1), same_settings=True)
    assert (own.champion.reason, own.outcome) == (ChampionReason.SAME_DECIDER, Outcome.PROMOTE)
    assert "nothing to compare" in gate_sentences(summary_of(own))[1]
    other = held_against(GOOD, GOOD, noise(1), same_settings=True, slug="fused")
    assert other.champion.reason is ChampionReason.COMPARED


def summary_of(gates):
    return SimpleNamespace(gates=gates, **vars(summary()))


def test_candidates_survive_their_file(tmp_path):
    champion = Incumbent("abc", "run-1", "vote", np.where(np.arange(N) < 9, np.nan, GOOD), True)
    tried = replace(candidates(GOOD, noise(1)), counts={"search": 3, "candidate": 2}, champion=champion)
    CANDIDATES.write(tried, tmp_path / "a.npz")
    CANDIDATES.write(CANDIDATES.read(tmp_path / "a.npz"), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = CANDIDATES.read(tmp_path / "b.npz")
    np.testing.assert_array_equal(again.returns, tried.returns)
    np.testing.assert_array_equal(again.champion.returns, champion.returns)
    assert replace(again.champion, returns=0) == replace(champion, returns=0)
    assert (again.keys, again.counts) == (tried.keys, dict(sorted(tried.counts.items())))
