"""Fusion's parameters: calibrated and chosen on validation ranges, and blind to every bar after them."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import QUALITY, mock_advisor
from scipy.special import expit, logit

from ploutos.advisor.advisor import advise
from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.envs.spec import EnvSpec
from ploutos.errors import DataError
from ploutos.evaluation.backtest import Segment, concat, run_backtests
from ploutos.evaluation.experiment import hybrid_out_of_sample, in_sample, out_of_sample
from ploutos.evaluation.fusion_selection import calibrate, choose_fusion, lead_of
from ploutos.evaluation.measurement import summarise
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.features.build import FeatureSpec, build_features
from ploutos.features.llm_features import market_features
from ploutos.fusion.calibration import Calibration, Candidate, Uncalibrated, candidates, fit_calibration, read_choices, write_choices
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import FIELDS
from ploutos.reporting.report import RunFacts, render_report
from ploutos.reporting.verdict import verdict
from ploutos.strategies.advised import FUSED, FusedStrategy
from ploutos.strategies.base import PrecomputedTargets, StrategyId
from ploutos.strategies.baselines import all_baselines, flat
from ploutos.strategies.ensemble import HYBRID, HYBRID_ABLATED, VOTE, EnsembleStrategy, member_id
from ploutos.walk_forward import Range, fold_table


def drawn(n, slope, intercept, seed=0):
    """Confidences, and directions that are right as often as the line says."""
    random = np.random.default_rng(seed)
    confidences = random.uniform(0.35, 0.95, n)
    return confidences, random.random(n) < expit(slope * logit(confidences) + intercept)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.4, -0.3), (2.0, 0.5)])
def test_calibration_finds_the_line_that_drew_its_data(slope, intercept):
    found = fit_calibration(*drawn(20_000, slope, intercept))
    assert (found.slope, found.intercept) == (pytest.approx(slope, abs=0.1), pytest.approx(intercept, abs=0.06))


def test_calibration_is_the_most_likely_line_and_calibrated_confidence_is_how_often_it_is_right():
    confidences, right = drawn(3000, 0.5, -0.2, seed=1)
    found = fit_calibration(confidences, right)
    chances = found.apply(np.full(3000, BUY), confidences)
    assert chances.mean() == pytest.approx(right.mean(), abs=1e-3)

    def loss(slope, intercept):
        p = expit(slope * logit(confidences) + intercept)
        return -np.where(right, np.log(p), np.log(1 - p)).mean()

    for step in (0.05, -0.05):
        assert loss(found.slope, found.intercept) < min(
            loss(found.slope + step, found.intercept), loss(found.slope, found.intercept + step)
        )


def test_confidence_that_misleads_is_not_turned_around():
    found = fit_calibration(*drawn(5000, -1.5, 0.3))
    assert found.slope == 0
    assert np.ptp(found.apply(np.full(3, SELL), np.array([0.4, 0.6, 0.9]))) == 0


@pytest.mark.parametrize(
    ("n", "n_right", "why"),
    [(0, 0, Uncalibrated.TOO_FEW), (49, 20, Uncalibrated.TOO_FEW), (80, 80, Uncalibrated.ALL_RIGHT), (80, 0, Uncalibrated.NONE_RIGHT)],
)
def test_with_too_few_decisions_or_one_kind_of_outcome_every_confidence_counts_as_the_share_that_was_right(n, n_right, why):
    found = fit_calibration(np.full(n, 0.6), np.arange(n) < n_right)
    assert found.uncalibrated is why
    assert (found.n, found.n_right) == (n, n_right)
    np.testing.assert_allclose(found.apply(np.array([BUY, SELL]), np.array([0.61, 0.99])), (n_right + 25) / (n + 50))


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0, 50), st.floats(-50, 50))
def test_calibrated_confidences_stay_chances_keep_their_order_and_hold_is_a_coin(confidences, slope, intercept):
    given_ = np.sort(confidences)
    chances = Calibration(slope=slope, intercept=intercept).apply(np.full(len(given_), BUY), given_)
    assert ((chances >= 0) & (chances <= 1)).all()
    assert (np.diff(chances) >= 0).all()
    held = Calibration(slope=slope, intercept=intercept).apply(np.full(len(given_), HOLD), given_)
    np.testing.assert_array_equal(held, np.where(given_ > 0, 0.5, 0.0))


def test_a_direction_is_right_by_the_next_open_and_the_horizons_close(panel):
    """Decisions known right or wrong, sorted out by hand; an outcome beyond the range is never read."""
    decisions = [(bar, np.array([BUY, SELL, HOLD]), np.array([0.9, 0.8, 0.7])) for bar in range(400, 500)]
    found = calibrate(panel, decisions, horizon=5, stop=480)
    n = n_right = 0
    for s, sign in ((0, 1), (1, -1)):
        bar = 400
        while bar + 5 < 480:
            if not panel.tradable[bar + 1, s]:
                bar += 1  # nothing could be filled: the next decision counts
                continue
            n, n_right = n + 1, n_right + (sign * (panel.mark[bar + 5, s] - panel.open[bar + 1, s]) > 0)
            bar += 5  # outcomes never overlap
    assert (found.n, found.n_right) == (n, n_right)
    assert 28 <= n <= 30


def test_what_is_configured_comes_first_and_then_what_is_nearest():
    grid = candidates(FusionSpec(llm_weight=0.32, confidence_threshold=0.7))
    pairs = [(spec.llm_weight, spec.confidence_threshold) for spec in grid]
    assert pairs[:2] == [(0.32, 0.7), (0.3, 0.7)]
    assert len(pairs) == len(set(pairs)) == 17
    assert len(candidates(FusionSpec())) == 16


@pytest.fixture(scope="module")
def folds(panel_fold):
    validation, test = Range(start=520, stop=600), Range(start=606, stop=690)
    return [
        panel_fold.model_copy(update={"test": Range(start=506, stop=606)}),
        panel_fold.model_copy(update={"index": 1, "validation": validation, "test": test}),
    ]


@pytest.fixture(scope="module")
def signals(panel):
    return advise(panel, market_features(panel), 405, 688, mock_advisor())


@pytest.fixture(scope="module")
def choices(panel, panel_features, panel_policies, folds, signals):
    return choose_fusion(panel, panel_features, folds, [panel_policies] * 2, signals, EnvSpec(), FusionSpec())


def test_every_candidate_of_the_table_is_what_its_accounts_earned_on_all_validation_ranges_so_far(
    panel, panel_features, panel_policies, folds, signals, choices
):
    advised_actions = signals.align_to_bars(panel)

    def grown(choice, fold, candidate):
        spec = FusionSpec(llm_weight=candidate.llm_weight, confidence_threshold=candidate.confidence_threshold)
        alone = choice.model_copy(update={"chosen": candidate})
        strategy = FusedStrategy((FUSED,), advised_actions[0][None], advised_actions[1][None], panel, EnvSpec(), (spec,), (alone,))
        result = run_backtests(panel, panel_features, [Segment(fold.validation, tuple(panel_policies))], [strategy], EnvSpec())
        return np.log(result.equity[0, -1] / 100_000)

    n_bars = [fold.validation.n_bars for fold in folds]
    for fold, choice in zip(folds, choices, strict=True):
        assert choice.fold == fold.index
        assert choice.calibration.n > 0
        assert choice.lead.best.growth == max(candidate.growth for candidate in choice.table)
        assert choice.chosen == (choice.lead.best if choice.lead.tells_apart else choice.table[0])
        assert choice.advisor.n > 0
        for candidate in (choice.table[0], choice.table[-1]):
            so_far = [grown(each, folds[each.fold], candidate) for each in choices[: choice.fold + 1]]
            assert candidate.growth == pytest.approx(sum(so_far) / sum(n_bars[: choice.fold + 1]), abs=1e-12)


def test_bars_of_two_validation_ranges_are_pooled_once(panel, panel_features, panel_policies, folds, signals, choices):
    twice = [folds[0], folds[0].model_copy(update={"index": 1})]
    again = choose_fusion(panel, panel_features, twice, [panel_policies] * 2, signals, EnvSpec(), FusionSpec())
    assert again[0] == choices[0]
    assert again[1] == choices[0].model_copy(update={"fold": 1})


def test_a_lead_that_one_range_cannot_tell_from_luck_is_told_by_many():
    """A candidate that is truly better by a little: chosen where enough is pooled, and not after one range."""
    random = np.random.default_rng(4)
    specs = candidates(FusionSpec())[:2]
    noise = random.normal(0, 0.01, (1, 4000))
    grown = np.vstack([noise, noise + random.normal(0.0002, 0.002, (1, 4000))])

    def chosen(n):
        table = [
            Candidate(llm_weight=spec.llm_weight, confidence_threshold=spec.confidence_threshold, growth=float(each[:n].mean()))
            for spec, each in zip(specs, grown, strict=True)
        ]
        return lead_of(table, grown[:, :n]).tells_apart

    assert chosen(4000)
    assert not chosen(40)


def test_among_equals_what_is_configured_is_chosen(panel, panel_features, panel_policies, folds, signals):
    """Without advice there is nothing to weigh, so weights tie."""
    nobody = replace(signals, frame=signals.frame.iloc[:0])
    spec = FusionSpec(llm_weight=0.42)
    [choice] = choose_fusion(panel, panel_features, folds[:1], [panel_policies], nobody, EnvSpec(), spec)
    assert len({candidate.growth for candidate in choice.table}) == 1
    assert choice.chosen == choice.table[0] == choice.lead.best
    assert choice.table[0].llm_weight == 0.42
    assert (choice.lead.difference, choice.lead.error) == (0, None)


@pytest.mark.parametrize("last", [506, 699])
def test_no_bar_from_the_first_test_bar_on_changes_a_choice(panel, panel_policies, panel_fold, choices, last):
    """One bar, or all there are: nobody reads them, though features, advice and choice are all made again."""
    random, at = np.random.default_rng(last), slice(506, last + 1)
    changed = {field: getattr(panel, field).copy() for field in FIELDS}
    for values in changed.values():
        values[at] *= random.uniform(0.2, 5, values[at].shape)
    bars = replace(panel, **changed)
    features, advice = build_features(bars, FeatureSpec()), advise(bars, market_features(bars), 405, 520, mock_advisor())
    assert choose_fusion(bars, features, [panel_fold], [panel_policies], advice, EnvSpec(), FusionSpec()) == choices[:1]


def test_a_bar_of_the_validation_range_does_change_the_choice(panel, panel_features, panel_policies, panel_fold, signals, choices):
    opens = panel.open.copy()
    opens[450:] *= 1.05
    [choice] = choose_fusion(replace(panel, open=opens), panel_features, [panel_fold], [panel_policies], signals, EnvSpec(), FusionSpec())
    assert choice.table != choices[0].table


def test_each_segment_is_fused_by_its_own_choice(panel, panel_features, panel_policies, folds, signals, choices):
    """Two choices as unlike as can be: the advisor alone, then the policies alone."""
    sure = {"calibration": Calibration(), "advisor": Calibration()}  # chances as they are
    advisor, policy = (
        choice.model_copy(update={**sure, "chosen": choice.chosen.model_copy(update={"llm_weight": weight, "confidence_threshold": 1.0})})
        for choice, weight in zip(choices, (1.0, 0.0), strict=True)
    )
    advised_actions, confidences = signals.align_to_bars(panel)
    strategies = [
        FusedStrategy((StrategyId(slug),), advised_actions[None], confidences[None], panel, EnvSpec(), (FusionSpec(),), picked)
        for slug, picked in (("both", (advisor, policy)), ("advisor", (advisor, advisor)), ("policy", (policy, policy)))
    ]
    segments = [Segment(fold.test, tuple(panel_policies)) for fold in folds]
    result = run_backtests(panel, panel_features, segments, strategies, EnvSpec())
    first = folds[0].test.n_bars
    np.testing.assert_array_equal(result.equity[0, : first + 1], result.equity[1, : first + 1])
    assert not np.array_equal(result.equity[1, : first + 1], result.equity[2, : first + 1])
    held = result.weights != 0
    assert not np.array_equal(held[0, first + 30 :], held[1, first + 30 :])


def test_choices_survive_their_file_and_reach_summary_and_page(panel, panel_features, panel_policies, folds, signals, choices, tmp_path):
    write_choices(choices, tmp_path / "choices.json")
    assert read_choices(tmp_path / "choices.json") == choices
    policies, env = [panel_policies] * 2, EnvSpec()
    result = out_of_sample(panel, panel_features, folds, policies, signals, env, FusionSpec(), 1, choices=choices)
    result = concat(result, hybrid_out_of_sample(panel, panel_features, folds, policies, env, HYBRID))
    result = concat(result, hybrid_out_of_sample(panel, panel_features, folds, policies, env, HYBRID_ABLATED))
    inside = in_sample(panel, panel_features, folds, policies, env)
    summary = summarise(result, panel, folds, inside, signals, BootstrapSpec(replications=50), 1, True)
    summary = summary.model_copy(update={"fusion": choices})
    assert any("hybrid never differed from hybrid without advice" in sentence for sentence in verdict(summary))
    page = render_report(result, summary, panel, QUALITY, RunFacts(fold_table(tuple(folds), panel.timestamps), []))
    assert "Fusion, chosen on validation" in page
    assert f"{choices[0].calibration.n_right} of {choices[0].calibration.n}" in page
    np.testing.assert_array_equal(result.equity[result.row("hybrid")], result.equity[result.row("vote")])


def test_backtests_that_are_joined_are_as_if_they_had_run_together(panel, panel_features, panel_policies):
    env, segments = EnvSpec(), [Segment(Range(start=506, stop=600), tuple(panel_policies))]
    votes = [EnsembleStrategy({VOTE: slice(None), member_id(0): slice(0, 1)}, bars=panel, env=env)]
    baselines = list(all_baselines(panel, 505, env, 1))
    together = run_backtests(panel, panel_features, segments, [*votes, *baselines], env)
    apart = concat(*(run_backtests(panel, panel_features, segments, some, env) for some in (votes, baselines)))
    for field in fields(together):
        np.testing.assert_array_equal(getattr(apart, field.name), getattr(together, field.name))
    other = run_backtests(panel, None, [Segment(Range(start=507, stop=600))], [PrecomputedTargets("flat", flat(panel))], env)
    with pytest.raises(DataError, match="over other bars or symbols"):
        concat(together, other)
