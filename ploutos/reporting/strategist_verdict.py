"""What a strategist's search came to, in plain words."""

import math

from ploutos.research.strategist.loop import describe
from ploutos.research.strategist.verdict import Control, ControlRow, Doubt, DoubtKind, StrategistResult

CONTROLS = {Control.RANDOM: "random", Control.OPTUNA: "optuna", Control.EXCHANGED: "exchanged feedback"}
"""Names of the controls, for people."""
_CHANCE = 0.05


def in_words(result: StrategistResult) -> StrategistResult:
    """The result of a search that has just ended, with its `reasons` and `sentences`."""
    told = result.model_copy(update={"reasons": tuple(_reason(result, doubt) for doubt in result.doubts)})
    return told.model_copy(update={"sentences": _sentences(told)})


def _reason(result: StrategistResult, doubt: Doubt) -> str:
    """Why the find is not promoted."""
    lead, p = (math.nan if value is None else value for value in (result.lead_over_market, result.lead_over_market_p))
    match doubt.kind:
        case DoubtKind.NO_FIND:
            return "the model proposed nothing that has a score"
        case DoubtKind.LIMIT:
            return doubt.limit
        case DoubtKind.LUCK:
            return (
                f"deflated for all that was tried, its Sharpe ratio is above luck with {_percent(result.deflated)}, "
                f"{doubt.needed:.0%} is needed"
            )
        case DoubtKind.LUCK_IN_WINDOW:
            return (
                f"on the last window its Sharpe ratio is above luck with {_percent(result.deflated_window)}, {doubt.needed:.0%} is needed"
            )
        case DoubtKind.MARKET:
            return (
                "on the last window its lead over buying and holding at the same volatility, "
                f"{lead:.1%} a year, is within chance (p = {p:.2f})"
            )
        case DoubtKind.REVEALED:
            return "the prompts named assets and dates (llm.reveal): an ablation, never a result"
        case DoubtKind.REMEMBERED:
            return (
                f"{1 - (result.window_clean or 0.0):.0%} of the last window's sessions are not shown to be clean of what the model may "
                "remember (llm.stated_cutoff, ploutos llm probe)"
            )


def _sentences(result: StrategistResult) -> tuple[str, ...]:
    """The verdict, the finding first."""
    found = []
    if result.promoted and result.found:
        found.append(
            f"Found: {describe(result.best or {})}. On the last window, which nobody had seen, its Sharpe ratio is "
            f"{_number(result.found.sharpe)}, that of buying and holding {_number(result.buy_and_hold.sharpe)}; at the same "
            f"volatility it leads by {result.lead_over_market or 0:.1%} a year (p = {_number(result.lead_over_market_p, 3)})."
        )
    else:
        found.append(f"Nothing is promoted: {'; '.join(result.reasons)}.")
    for control in result.controls:
        found.append(_against(result, control))
    found.append(
        f"{result.n_trials} trials on these sessions count as {result.n_independent:.0f} independent ones; the last window was "
        f"opened for {result.n_looks} find{'s' * (result.n_looks != 1)}."
    )
    if result.is_mock:
        found.append("The strategist was a fixed rule, not a language model.")
    return tuple(found)


def _against(result: StrategistResult, control: ControlRow) -> str:
    scores = [row.walk_forward for row in result.iterations[1:] if row.parameters == result.best and row.walk_forward is not None]
    name, score = CONTROLS[control.name], _number(control.walk_forward)
    if control.name is Control.EXCHANGED or control.p is None:
        if control.lead_p is None or control.lead is None:
            return f"With {name} the same model ended with {score}; no last window was compared."
        beyond = "beyond chance" if control.lead_p <= _CHANCE else "within chance"
        return (
            f"With {name} the same model ended with {score}; on the last window its true find leads by "
            f"{control.lead:.1%} a year (p = {control.lead_p:.3f}): {beyond}."
        )
    beyond = "better than chance" if control.p <= _CHANCE else "no better than chance"
    return (
        f"The find scores {_number(max(scores, default=None))} walk-forward; {control.n_searches} {name} searches on the same budget score "
        f"{score} in the median (p = {control.p:.3f}, on the last window {_number(control.p_window, 3)}): the model searched {beyond}."
    )


def _number(value: float | None, digits: int = 2) -> str:
    return "nothing" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "no probability" if value is None else f"{value:.0%}"
