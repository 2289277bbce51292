"""The verdict's questions: right by independent references, honest about their size, fair to an account that is half invested."""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from arch.bootstrap import StationaryBootstrap
from markets import mock_advisor
from statsmodels.stats.multitest import multipletests

from ploutos.advisor.advisor import advise
from ploutos.config import make_config
from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError
from ploutos.evaluation.experiment import in_sample, out_of_sample
from ploutos.evaluation.fusion_selection import lead_of
from ploutos.evaluation.measurement import summarise
from ploutos.evaluation.metrics import periods_of, session_returns
from ploutos.evaluation.significance import (
    MEASURED,
    alpha,
    beta,
    estimate,
    holm,
    matched_volatility,
    mean,
    mean_block_length,
    mean_interval,
    measured_coverage,
    n_cosines,
    sharpe,
    sharpe_difference,
    standard_error,
)
from ploutos.evaluation.skill import against_benchmark, benchmark_tests, subject_of
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.summary import SKILL, Measure, Question, SubjectReason
from ploutos.features.llm_features import market_features
from ploutos.fusion.calibration import Candidate, fit_calibration
from ploutos.fusion.decisions import VectorizedDecisionFusion
from ploutos.fusion.spec import FusionSpec, RiskSpec
from ploutos.reporting.report import render_markdown
from ploutos.reporting.verdict import conclusion, headline, verdict
from ploutos.strategies.base import Role

SPEC = BootstrapSpec(replications=199)
YEAR = 252


def series(n, seed, persistence=0.3):
    """An account and its market with dependence over time and between them."""
    random = np.random.default_rng(seed)
    noise = random.standard_t(6, (2, n + 100))
    for t in range(1, n + 100):
        noise[:, t] += persistence * noise[:, t - 1]
    market = 0.0004 + 0.01 * noise[0, 100:]
    return 0.0002 + 0.6 * market + 0.005 * noise[1, 100:], market


# --- statistics and their errors


@pytest.mark.parametrize("statistic", [mean, sharpe, sharpe_difference, alpha, beta, matched_volatility])
def test_influences_are_what_leaving_a_session_out_changes(statistic):
    """The jackknife knows nothing of derivatives."""
    both = series(600, 1)
    given = both[:1] if statistic in (mean, sharpe) else both
    value, influence = statistic(*given)
    without = np.array([statistic(*(np.delete(each, t) for each in given))[0] for t in range(600)])
    jackknife = 599 * (value - without)
    np.testing.assert_allclose(influence - influence.mean(), jackknife - jackknife.mean(), rtol=0.03, atol=0.01 * jackknife.std())


def test_alpha_and_beta_are_those_of_a_regression_and_their_errors_agree_with_newey_and_west():
    own, market = series(20_000, 2)
    fit = sm.OLS(own, sm.add_constant(market)).fit(cov_type="HAC", cov_kwds={"maxlags": 60})
    found = [statistic(own, market) for statistic in (alpha, beta)]
    assert [float(value) for value, _ in found] == pytest.approx(list(fit.params), rel=1e-9)
    assert [float(standard_error(influence)) for _, influence in found] == pytest.approx(list(fit.bse), rel=0.1)


def test_the_error_is_the_root_mean_square_of_cosine_sums():
    own, market = series(300, 3)
    scores = sm.OLS(own, sm.add_constant(market)).fit()
    design = np.column_stack([np.ones(300), market])
    influence = (design * scores.resid[:, None]) @ np.linalg.inv(design.T @ design / 300)
    sums = [
        np.sqrt(2 / 300) * sum(np.cos(np.pi * j * (t + 0.5) / 300) * influence[t] for t in range(300)) for j in range(1, n_cosines(300) + 1)
    ]
    assert n_cosines(300) == 17  # 0.4 x 300 ^ (2/3)
    by_hand = np.sqrt(np.mean(np.square(sums), axis=0) / 300)
    assert [float(standard_error(each(own, market)[1])) for each in (alpha, beta)] == pytest.approx(by_hand.tolist(), rel=1e-9)


def test_an_interval_is_that_of_resamples_drawn_and_studentised_one_by_one():
    returns = series(80, 4)[0]
    found = estimate(mean, [returns], SPEC, 7)
    value, error = returns.mean(), float(standard_error(returns - returns.mean()))
    assert (found.value, found.error) == pytest.approx((value, error))
    bootstrap = StationaryBootstrap(mean_block_length(returns - value), returns, seed=np.random.default_rng(5))
    pivots = [
        abs(drawn[0][0].mean() - value) / float(standard_error(drawn[0][0] - drawn[0][0].mean())) for drawn in bootstrap.bootstrap(4000)
    ]
    width = np.quantile(pivots, 0.95) * error
    many = estimate(mean, [returns], BootstrapSpec(replications=4000), 7)
    assert (many.high - many.low) / 2 == pytest.approx(width, rel=0.08)
    assert many.p == pytest.approx(np.mean(np.array(pivots) >= abs(value) / error), abs=0.02)


def test_p_agrees_with_its_interval_and_a_change_of_unit_changes_no_p():
    for seed in range(20):
        own, market = series(120, seed)
        found = estimate(alpha, [own, market], SPEC, seed)
        assert (found.p <= 0.05) == (found.low > 0 or found.high < 0)
        assert estimate(alpha, [100 * own, 100 * market], SPEC, seed).p == found.p


def test_what_never_varied_and_what_is_too_short_has_no_interval():
    assert np.isnan(estimate(mean, [np.full(100, 0.01)], SPEC, 1).low)
    assert np.isnan(estimate(mean, [np.array([0.1, -0.1, 0.2])], SPEC, 1).low)
    own = series(100, 1)[0]
    assert np.isnan(estimate(alpha, [own, own], SPEC, 1).p)
    assert estimate(alpha, [own, own], SPEC, 1).value == pytest.approx(0, abs=1e-12)


def test_holm_is_holm():
    random = np.random.default_rng(1)
    for n in (1, 2, 5, 12):
        p = random.random(n) ** 3
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist())
    with_nothing = holm([0.01, float("nan"), 0.04])
    assert with_nothing[0] == pytest.approx(0.02)
    assert np.isnan(with_nothing[1])
    assert holm([]) == []


def test_a_short_interval_of_a_dependent_null_keeps_its_size_where_the_percentile_one_does_not():
    """Case (d): 63 sessions, persistence 0.2, nothing there."""
    spec, random, missed = BootstrapSpec(replications=199), np.random.default_rng(0), np.zeros(2)
    for seed in range(400):
        noise = random.normal(size=113)
        for t in range(1, 113):
            noise[t] += 0.2 * noise[t - 1]
        returns = noise[50:]
        low, high = mean_interval(returns, 1, spec, 0)
        missed[0] += not low <= 0 <= high
        bootstrap = StationaryBootstrap(mean_block_length(returns), returns, seed=np.random.default_rng(seed))
        low, high = np.quantile(bootstrap.apply(np.mean, 199), [0.025, 0.975])
        missed[1] += not low <= 0 <= high
    ours, percentile = missed / 400
    assert ours < 0.075  # nominal 0.05, error of the measurement 0.011
    assert percentile > 0.075
    assert ours < percentile - 0.02


# --- the right question: case (a)


def half_invested(seed, skill, market_sharpe, years=8):
    """An account that is in the market on half of the days, by true skill up to a yearly Sharpe ratio, or by a coin; and the market."""
    random, n = np.random.default_rng(seed), YEAR * years
    volatility, inside = 0.16 / YEAR**0.5, random.random(YEAR * years) < 0.5
    level = market_sharpe * 0.16 / YEAR
    own = level / 2 if skill is None else skill * 0.16 * 0.5**0.5 / YEAR
    market = np.where(inside, 2 * own, 2 * (level - own)) + random.normal(0, volatility, n)
    return inside * market, market


def answers(skill, market_sharpe, worlds):
    """Share of worlds where each measure is found better, and where either measure of skill is."""
    signs = []
    for seed in range(worlds):
        own, market = half_invested(seed, skill, market_sharpe)
        signs.append({row.measure: row.sign for row in benchmark_tests(own, market, 0.5, YEAR, SPEC, seed)})
    return {m: np.mean([row[m] > 0 for row in signs]) for m in Measure}, np.mean([any(row[m] > 0 for m in SKILL) for row in signs])


@pytest.mark.parametrize(("market_sharpe", "least"), [(0.7, 0.75), (1.0, 0.45)])
def test_true_skill_that_is_half_invested_is_found_though_it_seldom_earns_more_than_a_market_it_half_holds(market_sharpe, least):
    found, skill = answers(1.5, market_sharpe, 40)
    assert skill >= least
    assert found[Measure.EXCESS] <= 0.35
    assert skill > found[Measure.EXCESS] + 0.4


@pytest.mark.parametrize("market_sharpe", [-1.0, 0.7])
def test_a_coin_that_is_half_invested_shows_no_skill_in_a_rise_or_a_fall(market_sharpe):
    """In a fall it truly earns more than the market, which must not pass for skill."""
    found, skill = answers(None, market_sharpe, 40)
    assert skill <= 3 / 40
    if market_sharpe < 0:
        assert found[Measure.EXCESS] > 0.1


# --- whom it is about: case (b)


@pytest.mark.parametrize(
    ("asked", "is_mock", "any_clean", "slug", "reason"),
    [
        ("auto", True, True, "vote", SubjectReason.MOCK),
        ("auto", False, False, "vote", SubjectReason.NOT_CLEAN),
        ("auto", False, True, "fused", SubjectReason.ADVISED),
        ("fused", True, True, "fused", SubjectReason.ASKED),
        ("regression:trees", False, True, "trees", SubjectReason.ASKED),
    ],
)
def test_the_subject_follows_a_rule_that_reads_no_result(asked, is_mock, any_clean, slug, reason):
    found = subject_of(asked, ("fused", "vote", "trees"), is_mock, any_clean)
    assert (found.slug, found.reason) == (slug, reason)


def test_a_subject_that_the_run_lacks_is_refused_before_it_starts():
    with pytest.raises(
        ConfigError, match=r"evaluation\.subject is hybrid, which this run does not have; choose one of auto, vote, fused, reg"
    ):
        make_config({"evaluation": {"subject": "hybrid"}, "hybrid": {"enabled": False}})
    with pytest.raises(ConfigError, match="regression:ridge, which this run does not have"):
        make_config({"evaluation": {"subject": "regression:ridge"}})
    assert make_config({"evaluation": {"subject": "regression:ridge"}, "regression": {"models": ["ridge"]}}).evaluation.subject
    for wrong in ("best", "logistic", "regression:forest"):
        with pytest.raises(ConfigError, match=f"evaluation.subject is {wrong}, which this run does not have"):
            make_config({"evaluation": {"subject": wrong}})
    with pytest.raises(ConfigError, match="the run has no account hybrid"):
        subject_of("hybrid", ("fused", "vote"), is_mock=True, any_clean=True)


@pytest.fixture(scope="module")
def play(panel, panel_features, panel_policies, panel_fold):
    """Accounts and summary of a run with the mock."""
    folds, policies, env = [panel_fold], [panel_policies], EnvSpec()
    signals = advise(panel, market_features(panel), 505, 688, mock_advisor())
    inside = in_sample(panel, panel_features, folds, policies, env)

    def run(advice=signals, fusion=None, subject="auto"):
        result = out_of_sample(panel, panel_features, folds, policies, advice, env, fusion or FusionSpec(), 1)
        return result, summarise(result, panel, folds, inside, advice, SPEC, 1, reduced=False, subject=subject)

    return signals, run


def test_with_a_mock_the_headline_is_about_the_vote_and_says_why(play):
    _, run = play
    _, summary = run()
    assert render_markdown(summary).startswith(f"## {headline(summary)}\n\nRL vote, out of sample")
    assert any(sentence.startswith("The verdict is about RL vote: the advisor is a mock") for sentence in verdict(summary))
    _, asked = run(subject="fused")
    assert "The verdict is about fused (mock advisor): evaluation.subject names it." in verdict(asked)


def test_every_number_against_the_benchmark_is_recomputed(play, panel):
    _, run = play
    result, summary = run()
    periods, found = periods_of(panel, result), summary.against_benchmark
    own, market = (session_returns(result.equity[result.row(slug)], periods) for slug in ("vote", "buy-and-hold"))
    exposure = [result.weights[result.row(slug), 1:].sum(axis=1).mean() for slug in ("vote", "buy-and-hold")]
    share, year = exposure[0] / exposure[1], periods.per_year
    fit = sm.OLS(own, sm.add_constant(market)).fit()
    values = {row.measure: row.value for row in found.tests}
    assert found.relative_exposure == pytest.approx(share)
    assert values[Measure.EXCESS] == pytest.approx((own - market).mean() * year)
    assert values[Measure.ALPHA] == pytest.approx(fit.params[0] * year)
    assert values[Measure.EXPOSURE] == pytest.approx((own - share * market).mean() * year)
    assert values[Measure.VOLATILITY] == pytest.approx((own - own.std() / market.std() * market).mean() * year)
    ratios = [each.mean() / each.std(ddof=1) * year**0.5 for each in (own, market)]
    assert values[Measure.SHARPE] == pytest.approx(ratios[0] - ratios[1])
    vote = summary.strategies["vote"]
    assert (vote.alpha, vote.beta) == pytest.approx((fit.params[0] * year, fit.params[1]))
    assert [row.p_adjusted for row in found.tests] == pytest.approx(
        multipletests([row.p for row in found.tests], method="holm")[1].tolist()
    )


def test_an_account_that_hears_the_advisor_is_judged_on_the_sessions_that_count(play, panel):
    _, run = play
    result, _ = run()
    periods = periods_of(panel, result)
    counts = np.arange(len(periods.ends) - 1) >= 100
    own, market = (session_returns(result.equity[result.row(slug)], periods)[100:] for slug in ("fused", "buy-and-hold"))
    found = against_benchmark(result, "fused", "buy-and-hold", periods, counts, SPEC, 1, ruined=False)
    assert found.n_sessions == len(own)
    assert found.test(Measure.EXCESS).value == pytest.approx((own - market).mean() * periods.per_year)
    vote = against_benchmark(result, "vote", "buy-and-hold", periods, counts, SPEC, 1, ruined=False)
    assert vote.n_sessions == len(counts)


def test_a_test_that_is_too_short_for_its_intervals_says_so(play):
    _, run = play
    summary = run()[1]

    def said(coverage):
        found = summary.against_benchmark.model_copy(update={"coverage": coverage})
        return " ".join(sentence for sentence in verdict(summary.model_copy(update={"against_benchmark": found})) if "short" in sentence)

    assert said(None).startswith("The test is short: 184 sessions, fewer than any length")
    assert said(0.91) == (
        "The test is short: at 184 sessions intervals that should hold the truth in 95 of 100 cases were measured to hold it in 91."
    )
    assert said(0.94) == ""
    assert np.isnan(measured_coverage(min(MEASURED) - 1))
    assert measured_coverage(10_000) == MEASURED[max(MEASURED)]


# --- one thing changes: case (c)


def test_the_veto_has_a_pair_of_its_own_and_is_not_blamed_on_advice_that_says_nothing(play):
    """An advisor that never says anything, under a veto that forbids nearly everything."""
    signals, run = play
    silent = replace(signals, frame=signals.frame.assign(action="hold", confidence=0.0))
    strict = FusionSpec(risk=RiskSpec(max_consecutive_losses=1, min_win_rate=1.0, cooldown_bars=10_000))
    result, summary = run(silent, strict)
    np.testing.assert_array_equal(result.equity[result.row("fused")], result.equity[result.row("fused-ablated")])
    assert not np.array_equal(result.equity[result.row("fused")], result.equity[result.row("vote")])
    advice, veto = summary.comparison(Question.ADVICE), summary.comparison(Question.VETO)
    assert (advice.difference, advice.low, advice.sign) == (0, None, 0)
    assert veto.difference != 0
    assert conclusion(summary).startswith("No benefit was shown")
    assert result.roles[result.row("fused-ablated")] is Role.ABLATION


def test_comparisons_are_corrected_for_their_number_and_one_that_never_differed_is_not_counted(play):
    signals, run = play
    _, summary = run(replace(signals, frame=signals.frame.assign(action="hold", confidence=0.0)))
    rows = [row for row in summary.comparisons if row.p is not None]
    assert summary.n_corrected == len(rows) < len(summary.comparisons)
    assert [row.p_adjusted for row in rows] == pytest.approx(multipletests([row.p for row in rows], method="holm")[1].tolist())


# --- fusion


def test_a_raw_confidence_never_outvotes_a_chance():
    """An advisor that says 0.9 and was hardly ever heard, against a policy that is right in 4 of 10."""
    random = np.random.default_rng(1)
    policy = fit_calibration(random.uniform(0.5, 0.9, 2000), random.random(2000) < 0.4)
    advisor = fit_calibration(np.full(3, 0.9), np.array([True, True, False]))
    rl, llm = np.array([BUY, BUY, SELL]), np.array([SELL, HOLD, BUY])
    sure = policy.apply(rl, np.array([0.6, 0.7, 0.8])), advisor.apply(llm, np.array([0.9, 0.95, 0.99]))
    assert sure[0] == pytest.approx([0.4] * 3, abs=0.05)
    assert sure[1] == pytest.approx([27 / 53, 0.5, 27 / 53])
    assert (
        VectorizedDecisionFusion(FusionSpec(confidence_threshold=0.7)).fuse_batch(rl, sure[0], llm, sure[1], np.zeros(3)).tolist()
        == rl.tolist()
    )
    blank = advisor.apply(np.array([HOLD]), np.array([0.0]))
    assert blank.tolist() == [0]  # no advice stays none


def test_an_advisor_that_was_right_is_heard_and_one_that_was_wrong_is_not():
    """Alike in what they say; what sets them apart is what came of it."""
    fuse = VectorizedDecisionFusion(FusionSpec(confidence_threshold=0.7)).fuse_batch
    said, right = np.full(200, 0.8), np.arange(200) % 10 < 9
    acts = []
    for outcomes in (right, ~right):
        sure = fit_calibration(said, outcomes).apply(np.array([SELL]), np.array([0.8]))
        acts.append(int(fuse(np.array([BUY]), np.array([0.5]), np.array([SELL]), sure, np.zeros(1))[0]))
    assert acts == [SELL, BUY]


def table(n):
    return tuple(Candidate(llm_weight=i / 10, confidence_threshold=0.7, growth=0.0) for i in range(n))


def lead(grown):
    return lead_of(
        [each.model_copy(update={"growth": float(row.mean())}) for each, row in zip(table(len(grown)), grown, strict=True)], grown
    )


def test_a_candidate_is_chosen_only_where_its_lead_exceeds_its_error():
    random = np.random.default_rng(2)
    base, noise = random.normal(0, 0.01, 200), random.normal(0, 0.002, 200)
    noise -= noise.mean()
    error = float(standard_error(noise))
    for lift, told in ((0.9 * error, False), (1.1 * error, True)):
        found = lead(np.stack([base, base + noise + lift]))
        assert found.tells_apart is told
        assert (found.difference, found.error) == (pytest.approx(lift), pytest.approx(error))
        assert found.low < found.difference < found.high
    worse = lead(np.stack([base, base - 0.001]))
    assert worse.best.llm_weight == 0
    assert not worse.tells_apart
