"""From policies and signals to the numbers of a report: which strategies run, over which bars, and what they showed."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ploutos.advisor.cutoff import UNKNOWN, CutoffEvidence, tag_dates
from ploutos.advisor.schedule import CADENCE
from ploutos.advisor.signals import Signals
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.backtest import Backtests, Segment, run_backtests
from ploutos.evaluation.benchmark import purchase_in_words, require_purchase
from ploutos.evaluation.comparisons import (
    HYBRID_ABLATED,
    MIRRORED,
    Pair,
    compare,
    conclusion,
    consistency,
    difference_in_words,
    is_placebo,
    pairs,
    placebo_advice,
)
from ploutos.evaluation.contamination import counting_spans, spans_of
from ploutos.evaluation.metrics import Periods, measure, periods_of, ruin_date, session_closes, session_returns, sharpe_ratio
from ploutos.evaluation.significance import mean_interval, sharpe_interval
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.features.build import FeatureSet
from ploutos.fusion.calibration import FusionChoice
from ploutos.fusion.spec import FusionSpec
from ploutos.market.bars import Bars
from ploutos.market.sources import sample
from ploutos.strategies.advised import AdvisorStrategy, FusedStrategy
from ploutos.strategies.base import account_names
from ploutos.strategies.baselines import all_baselines
from ploutos.strategies.ensemble import VOTE, EnsembleStrategy, member_name, votes_and_members
from ploutos.training.checkpoint import Policy
from ploutos.types import FloatArray
from ploutos.walk_forward import Fold, Range, tested_decisions

BENCHMARK = "buy and hold"


def advisor_name(signals: Signals) -> str:
    """Name of the advisor's own strategy; a mock is called one."""
    return "advisor (mock)" if signals.is_mock else "advisor (LLM)"


def fused_name(signals: Signals) -> str:
    """Name of the fused strategy; a mock is called one."""
    return "fused (mock advisor)" if signals.is_mock else "fused (LLM)"


def out_of_sample(
    bars: Bars,
    features: FeatureSet,
    folds: Sequence[Fold],
    policies: Sequence[Sequence[Policy]],
    signals: Signals,
    env: EnvSpec,
    fusion: FusionSpec,
    seed: int,
    *,
    choices: tuple[FusionChoice, ...] = (),
    mirrored: Signals | None = None,
    placebo_draws: int = 0,
) -> Backtests:
    """Every strategy over all test ranges, the placebos last.

    Args:
        policies: one sequence of members per fold, alike in number.
        choices: fusion's parameters of each fold; none to take what is configured.
        mirrored: what the advisor said about the mirrored market, if it was asked.
        placebo_draws: of each kind of placebo.

    Raises:
        DataError: buy and hold could buy nothing, so there is nothing to compare with.
    """
    placebos = placebo_advice(signals.within(*tested_decisions(folds)), placebo_draws, seed)
    tables = [each.align_to_bars(bars) for each in (signals, *placebos.values())]
    advised_actions, confidences = np.stack([acts for acts, _ in tables]), np.stack([sure for _, sure in tables])
    alone = {advisor_name(signals): signals} | ({MIRRORED: mirrored} if mirrored is not None else {})
    members, baselines = votes_and_members(len(policies[0])), all_baselines(bars, folds[0].test.start - 1, env, seed)
    fused = FusedStrategy((fused_name(signals), *placebos), advised_actions, confidences, bars, env, (fusion,), choices)
    advised = AdvisorStrategy(tuple(alone), np.stack([each.align_to_bars(bars)[0] for each in alone.values()]), bars, env)
    segments = [Segment(fold.test, members_of) for fold, members_of in zip(folds, policies, strict=True)]
    result = run_backtests(bars, features, segments, [fused, EnsembleStrategy(members, bars=bars, env=env), advised, *baselines], env)
    require_purchase(result, BENCHMARK, bars, env)
    contenders = [fused_name(signals), VOTE, advisor_name(signals), *account_names(baselines), *list(members)[1:]]
    return result.only([*contenders, *(name for name in result.names if is_placebo(name))])


def hybrid_out_of_sample(
    bars: Bars, features: FeatureSet, folds: Sequence[Fold], policies: Sequence[Sequence[Policy]], env: EnvSpec, name: str
) -> Backtests:
    """The vote of the hybrid policies over all test ranges; they observe other features, so they run by themselves.

    Args:
        features: from `ploutos.fusion.hybrid.hybrid_features`.
        policies: one sequence of members per fold.
    """
    segments = [Segment(fold.test, members) for fold, members in zip(folds, policies, strict=True)]
    return run_backtests(bars, features, segments, [EnsembleStrategy({name: slice(None)}, bars=bars, env=env)], env)


def in_sample(
    bars: Bars, features: FeatureSet, folds: Sequence[Fold], policies: Sequence[Sequence[Policy]], env: EnvSpec
) -> list[dict[str, list[float]]]:
    """Sharpe ratio of every member over its own training and validation ranges, one account each.

    Returns:
        Per fold: `train` and `validation`, one number per member; nan where an account never moved.
    """
    rows = []
    for fold, members in zip(folds, policies, strict=True):
        strategy = EnsembleStrategy({member_name(m): slice(m, m + 1) for m in range(len(members))}, bars=bars, env=env)
        policies_of, row = tuple(members), {}
        for name, part in (("train", fold.train), ("validation", fold.validation)):
            result = run_backtests(bars, features, [Segment(part, policies_of)], [strategy], env, keep=())
            periods = periods_of(bars, result)
            row[name] = [_until(result.equity[m], periods, int(result.last[m]))[0] for m in range(len(members))]
        rows.append(row)
    return rows


def _until(equity: FloatArray, periods: Periods, last: int) -> tuple[float, float]:
    """Sharpe ratio and total return of a path up to its last close that counts; nan for an account that had ended before it."""
    if last <= 0:
        return math.nan, math.nan
    returns = session_returns(equity, periods.until(last))
    return sharpe_ratio(returns, periods.per_year), float(equity[last] / equity[0] - 1)


def _closes(backtests: Backtests, test: Range) -> slice:
    """One fold's closes within the stitched path: the close before its first bar, then its bars."""
    first = int(backtests.positions[0])
    return slice(test.start - 1 - first, test.stop - first)


def _fold_rows(
    backtests: Backtests, bars: Bars, folds: Sequence[Fold], inside: list[dict[str, list[float]]], per_year: float
) -> list[dict[str, Any]]:
    members = [name for name in backtests.names if name.startswith("RL member ")]
    rows = []
    for fold, sharpes in zip(folds, inside, strict=True):
        closes = _closes(backtests, fold.test)
        periods = Periods(session_closes(bars.sessions[backtests.positions[closes]]), per_year)
        first, last = (str(bars.timestamps[i].astype("datetime64[D]")) for i in (fold.test.start, fold.test.stop - 1))
        ends = np.minimum(backtests.last, closes.stop - 1) - closes.start
        measured = [_until(path, periods, int(end)) for path, end in zip(backtests.equity[:, closes], ends, strict=True)]
        of, grown = (dict(zip(backtests.names, numbers, strict=True)) for numbers in zip(*measured, strict=True))
        rows.append(
            {
                "fold": fold.index,
                "test": [first, last],
                "sharpe": of,
                "total_return": grown,
                "members": [
                    {"member": m, "train": sharpes["train"][m], "validation": sharpes["validation"][m], "test": of[name]}
                    for m, name in enumerate(members)
                ],
            }
        )
    return rows


def summarise(
    backtests: Backtests,
    bars: Bars,
    folds: Sequence[Fold],
    inside: list[dict[str, list[float]]],
    signals: Signals,
    bootstrap: BootstrapSpec,
    seed: int,
    reduced: bool,
    *,
    choices: Sequence[FusionChoice] = (),
    known: CutoffEvidence = UNKNOWN,
    mirrored: Signals | None = None,
) -> dict[str, Any]:
    """All numbers of the report as one JSON-able value; a metric without a value is None.

    Args:
        choices: what was chosen for fusion on each fold's validation range.
        reduced: the policies saw fewer steps than production asks for.
        known: how far the advisor's memory reaches.
        mirrored: what the advisor said about the mirrored market, if it was asked.
    """
    periods = periods_of(bars, backtests)
    contenders = backtests.only([name for name in backtests.names if not is_placebo(name)])
    ruined = {name: date for name in backtests.names if (date := ruin_date(bars, backtests, name))}
    strategies = {
        name: measure(contenders, row, periods)
        | _with_intervals(contenders, row, periods, BENCHMARK not in ruined and name not in ruined, bootstrap, seed)
        | {"ruined": ruined.get(name)}
        for row, name in enumerate(contenders.names)
    }
    dates = bars.sessions[backtests.positions[periods.ends[1:]]]
    tags = tag_dates(dates, known, signals.is_mock, signals.reveal)
    equity = dict(zip(contenders.names, contenders.equity, strict=True))
    played = pairs(backtests.names, fused_name(signals), VOTE, advisor_name(signals), BENCHMARK)
    comparisons = [_unless_ruined(compare(backtests, periods, pair, bootstrap, seed), pair, ruined) for pair in played]
    gone = [comparisons[0]["sentence"]] if ruined.keys() & {played[0].of, *played[0].against} else []
    tested = signals.within(*tested_decisions(folds))
    turned = None if mirrored is None else consistency(tested, mirrored, bootstrap, seed)
    summary = {
        "first": str(backtests.timestamps[1].astype("datetime64[D]")),
        "last": str(backtests.timestamps[-1].astype("datetime64[D]")),
        "n_bars": len(backtests.timestamps) - 1,
        "n_sessions": len(periods.ends) - 1,
        "sessions_per_year": periods.per_year,
        "symbols": list(bars.symbols),
        "source": bars.source,
        "confidence": bootstrap.confidence,
        "advisor": _advisor(signals, known, turned, " ".join([*gone, conclusion(comparisons, signals.is_mock)])),
        "comparisons": comparisons,
        "reduced": reduced,
        "final": fused_name(signals),
        "strategies": strategies,
        "benchmark": purchase_in_words(backtests, BENCHMARK, bars),
        "spans": _up_to_ruin(spans_of(dates, tags, equity, periods, strategies, bootstrap, seed), ruined, len(dates)),
        "folds": _fold_rows(contenders, bars, folds, inside, periods.per_year),
        "fusion": [choice.model_dump(mode="json") for choice in choices],
    }
    summary["verdict"] = verdict(summary)
    return _without_nan(summary)


def _with_intervals(
    backtests: Backtests, row: int, periods: Periods, compared: bool, bootstrap: BootstrapSpec, seed: int
) -> dict[str, float]:
    """The Sharpe ratio's interval, and the excess over buy and hold with its own; no excess where nothing may be compared."""
    own = session_returns(backtests.equity[row], periods.until(int(backtests.last[row])))
    low, high = sharpe_interval(own, periods.per_year, bootstrap, seed)
    excess = excess_low = excess_high = math.nan
    if compared:
        difference = own - session_returns(backtests.equity[backtests.row(BENCHMARK)], periods)
        excess = float(difference.mean() * periods.per_year)
        excess_low, excess_high = mean_interval(difference, periods.per_year, bootstrap, seed)
    return {"sharpe_low": low, "sharpe_high": high, "excess_return": excess, "excess_low": excess_low, "excess_high": excess_high}


def _unless_ruined(row: dict[str, Any], pair: Pair, ruined: dict[str, str]) -> dict[str, Any]:
    """A comparison, emptied where an account of the pair was ruined: what came after has no returns."""
    gone = [name for name in (pair.of, *pair.against) if name in ruined]
    if not gone:
        return row
    sentence = f"{gone[0]} was ruined on {ruined[gone[0]]}, so {pair.of} and {pair.label} are not compared."
    return row | {"difference": math.nan, "low": math.nan, "high": math.nan, "sign": 0, "beaten": None, "sentence": sentence}


def _up_to_ruin(spans: list[dict[str, Any]], ruined: dict[str, str], n_sessions: int) -> list[dict[str, Any]]:
    """Take a ruined account's numbers out of spans that reach beyond its end and are not the whole test, which ends with it."""
    for span in spans:
        for name in span["strategies"]:
            if name in ruined and span["last"] > ruined[name] and span["n_sessions"] < n_sessions:
                span["strategies"][name] = dict.fromkeys(span["strategies"][name], math.nan)
    return spans


def _advisor(signals: Signals, known: CutoffEvidence, turned: dict[str, Any] | None, concluded: str) -> dict[str, Any]:
    """Who advised, what it was asked and said, and what is known of it.

    Args:
        turned: what became of its decisions on the mirrored market, if it was asked.
        concluded: whether it helped.
    """
    return {
        "model": signals.model,
        "digest": signals.digest,
        "is_mock": signals.is_mock,
        "n_advice": len(signals.frame),
        "n_abstained": signals.n_abstained,
        "tokens": int(signals.frame["tokens"].sum()),
        "reveal": signals.reveal,
        "certificate": None if signals.is_mock else known.certificate(),
        "prompt_tokens": int(signals.frame["prompt_tokens"].sum()),
        "cadence_bars": signals.cadence_bars,
        "triggered": int((signals.frame["asked_for"] != CADENCE).sum()),
        "asked": [str(time.date()) for time in signals.frame["as_of"].iloc[[0, -1]]] if len(signals.frame) else None,
        "mirrored": turned,
        "conclusion": concluded,
    }


def verdict(summary: dict[str, Any]) -> list[str]:
    """What the numbers allow to be said, in plain words."""
    name = summary["final"]
    ruined = {who: row for who, row in summary["strategies"].items() if row.get("ruined") and who in (name, BENCHMARK)}
    sentences = [_ruin_in_words(who, row) for who, row in ruined.items()]
    if summary["reduced"]:
        sentences.append(
            "This was a shortened run. A demo proves nothing: its policies saw a small share of the steps that production "
            "asks for, and no number here is evidence of skill."
        )
    if not ruined:
        sentences.append(_excess_in_words(summary))
    sentences += [text for text in [summary.get("benchmark")] if text]
    sentences += [row["sentence"] for row in summary["comparisons"] if row["against"] == HYBRID_ABLATED]
    if summary["advisor"]["is_mock"]:
        sentences.append("The advisor was a mock: a fixed trend rule, not a language model. Nothing here says anything about an LLM.")
    sentences += _about_answers(summary["advisor"])
    sentences += _about_memory(summary)
    if summary["source"] == sample.NAME:
        sentences.append(sample.CAVEAT)
    if summary["source"].startswith("synthetic"):
        sentences.append("The bars are simulated. Nothing here says anything about a real market.")
    sentences += [f"{stand_in}: its own hours, dividends and costs, and no roll." for stand_in in summary["source"].split("; ")[1:]]
    return sentences


def _ruin_in_words(name: str, metrics: dict[str, Any]) -> str:
    lost = f"it lost {-100 * metrics['total_return']:.1f} % of its equity"
    if name == BENCHMARK:
        return f"{name} was ruined on {metrics['ruined']}: {lost}; nothing is compared with it."
    return f"{name} was ruined on {metrics['ruined']}: {lost}; nothing after that day counts."


def _excess_in_words(summary: dict[str, Any]) -> str:
    final = summary["strategies"][summary["final"]]
    low, high = final["excess_low"], final["excess_high"]
    excess = difference_in_words(summary["final"], BENCHMARK, low, high)
    if low > 0:
        of_what = f"{summary['confidence'] * 100:g} % interval of this one history"
        excess = f"{excess.removesuffix('.')} ({of_what}; how many variants were tried before is not counted here)."
    return excess


def _about_answers(advisor: dict[str, Any]) -> list[str]:
    """What a reader must know of an advisor's answers."""
    sentences = []
    if advisor["n_abstained"]:
        sentences.append(
            f"The advisor abstained on {advisor['n_abstained']} of {advisor['n_advice']} questions, which counts as hold; "
            "signals.parquet keeps each reason."
        )
    if advisor["reveal"]:
        sentences.append(
            "The prompts named the asset and the date. This is an ablation: a model may remember what came next, so no number "
            "that rests on its advice is a result."
        )
    return sentences


def _about_memory(summary: dict[str, Any]) -> list[str]:
    """What a reader must know of what the advisor may remember."""
    sentences = []
    if not counting_spans(summary):
        tags = " and ".join(f"{span['n_sessions']} {span['tag']}" for span in summary["spans"])
        sentences.append(
            f"Nothing here can count for the advisor: its sessions are {tags}, none is clean. A session is clean when it lies past the "
            "cutoff that the model's maker states (llm.stated_cutoff), past a margin, and past all that a probe found recalled."
        )
    certificate = summary["advisor"].get("certificate") or {}
    for kind, hits in (certificate.get("reidentification") or {}).items():
        if hits["low"] > hits["chance"]:
            sentences.append(
                f"The prompts are less blind than they look: a probe found the {kind} recognised in {hits['rate']:.1%} of them "
                f"({hits['low']:.1%} to {hits['high']:.1%}; guessing gives {hits['chance']:.1%})."
            )
    return sentences


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
