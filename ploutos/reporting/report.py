"""The page a researcher reads: one self-contained HTML file. Percent and currency signs appear here and nowhere else.

Numbers in words and tables are the run summary's; figures are drawn of the accounts under it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.history import DEEPEST
from ploutos.evaluation.summary import AccountHistory, Measure, RunSummary, StrategyMetrics
from ploutos.fusion.calibration import FEWEST, Calibration, Uncalibrated
from ploutos.market.bars import Bars
from ploutos.market.quality_report import QualitySummary
from ploutos.reporting import figures
from ploutos.reporting.figures import Material
from ploutos.reporting.gate_table import doubts, gate_rows, gate_sentences, trial_rows
from ploutos.reporting.growth import growth_part
from ploutos.reporting.names import names_of
from ploutos.reporting.page import figure_html, render_page, show, typeset
from ploutos.reporting.quality_page import days, symbol_rows
from ploutos.reporting.recombined import recombined_part
from ploutos.reporting.stress import stress_part
from ploutos.reporting.verdict import MEASURES, conclusion, headline, verdict, vote_sentence
from ploutos.strategies.base import Role

_COLUMNS = (
    ("total_return", "total return", "percent"),
    ("sharpe", "Sharpe", "ratio"),
    ("max_drawdown", "max drawdown", "percent"),
    ("excess_return", "excess / y over buy and hold", "percent"),
    ("costs", "costs", "money"),
    ("turnover", "turnover / y", "times"),
    ("exposure", "exposure", "percent"),
    ("n_fills", "fills", "count"),
    ("cagr", "CAGR", "percent"),
    ("ann_vol", "volatility", "percent"),
    ("sortino", "Sortino", "ratio"),
    ("calmar", "Calmar", "ratio"),
    ("alpha", "alpha / y", "percent"),
    ("beta", "beta", "ratio"),
)
_CAPTURE = ("oracle_capture", "of the oracle's growth", "percent")
_CARDS = ("total_return", "sharpe", "max_drawdown", "excess_return", "costs")
_TAIL = (
    ("value_at_risk", "value at risk, 95%", "percent"), ("expected_shortfall", "expected shortfall, 95%", "percent"),
    ("ann_vol", "volatility", "percent"),
)  # fmt: skip
_INTERVALS = {"sharpe": ("sharpe_low", "sharpe_high"), "excess_return": ("excess_low", "excess_high")}
_INTERVALS |= {name: (f"{name}_low", f"{name}_high") for name in ("alpha", "beta")}
_DESCRIPTIONS = {name: str(field.description) for name, field in StrategyMetrics.model_fields.items()}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
Table = tuple[list[str], list[list[str]]]
"""Headings and rows, as text."""


def _cell(metrics: StrategyMetrics, name: str, kind: str) -> str:
    text = show(getattr(metrics, name), kind)
    if name in _INTERVALS and getattr(metrics, name) is not None:
        low, high = (getattr(metrics, end) for end in _INTERVALS[name])
        if low is not None:
            text += f" [{show(low, kind)}, {show(high, kind)}]"
    return f"{text}, ruined {metrics.ruined}" if name == "total_return" and metrics.ruined else text


def _stacked(text: str) -> str:
    """A cell whose interval stands below its value."""
    value, bracket, interval = typeset(text).partition(" [")
    return Markup("{}<small>[{}</small>").format(value, interval) if bracket else text


def _columns(summary: RunSummary) -> tuple[tuple[str, str, str], ...]:
    """Columns of the table: what an account took of the oracle's growth only where there is an oracle."""
    return (*_COLUMNS, _CAPTURE) if summary.of(Role.ORACLE) else _COLUMNS


def comparison(summary: RunSummary) -> list[dict[str, str]]:
    """The table against the baselines as text, one dictionary per strategy."""
    names = names_of(summary)
    return [
        {"strategy": names[slug]} | {label: _cell(metrics, key, kind) for key, label, kind in _columns(summary)}
        for slug, metrics in summary.strategies.items()
    ]


def fold_rows(summary: RunSummary) -> list[dict[str, Any]]:
    """Sharpe ratio by fold and strategy, one dictionary per fold."""
    names = names_of(summary)
    return [
        {"fold": fold.fold, "test": f"{fold.first} to {fold.last}"} | {names[slug]: sharpe for slug, sharpe in fold.sharpe.items()}
        for fold in summary.folds
    ]


# --- maps of heat: a name, and cells of a text and its share of the scale


_Heat = tuple[list[str], list[tuple[str, list[tuple[str, float | None]]]]]


def _shade(value: float | None, kind: str, scale: float) -> tuple[str, float | None]:
    return show(value, kind), None if value is None else max(-1.0, min(1.0, value / scale))


def fold_heat(summary: RunSummary) -> _Heat:
    """Sharpe ratios of every test range: the benchmark, the subject, then who decides, the members last."""
    names = names_of(summary)
    policies = (Role.FUSED, Role.VOTE, Role.HYBRID, Role.ABLATION, Role.REGRESSION, Role.ORACLE, Role.STRATEGY, Role.MEMBER)
    slugs = dict.fromkeys([summary.benchmark, summary.subject.slug, *(slug for role in policies for slug in summary.of(role))])
    rows = [(names[slug], [_shade(fold.sharpe[slug], "ratio", 2.0) for fold in summary.folds]) for slug in slugs]
    return ["", *(f"fold {fold.fold}, {fold.first}" for fold in summary.folds)], rows


def month_heat(history: AccountHistory) -> _Heat:
    """Returns by year and month, and of the whole year."""
    scale = max([0.01, *(abs(value) for value in history.months.values())])
    rows = []
    for year, whole in history.years.items():
        months = [history.months.get(f"{year}-{month:02}") for month in range(1, 13)]
        cells = [("", None) if value is None else _shade(value, "percent", scale) for value in months]
        rows.append((year, [*cells, (show(whole, "percent"), None)]))
    return ["", *_MONTHS, "year"], rows


# --- tables


def drawdown_rows(history: AccountHistory) -> list[list[str]]:
    """The deepest drawdowns as text."""
    return [
        [show(each.depth, "percent"), str(each.peak), str(each.trough), "not yet" if each.recovered is None else str(each.recovered),
         f"{each.n_sessions:,}"]
        for each in history.drawdowns
    ]  # fmt: skip


def tail_table(summary: RunSummary) -> Table:
    """The worst sessions of the subject and the benchmark."""
    names = names_of(summary)
    slugs = dict.fromkeys([summary.subject.slug, summary.benchmark])
    rows = [[names[slug], *(show(getattr(summary.strategies[slug], key), kind) for key, _, kind in _TAIL)] for slug in slugs]
    return ["account", *(label for _, label, _ in _TAIL)], rows


def _log_odds(fitted: Calibration) -> str:
    """What calibration makes of a confidence's log odds, or why it is not used."""
    match fitted.uncalibrated:
        case None:
            return f"{fitted.slope:.2f} x {fitted.intercept:+.2f}"
        case Uncalibrated.TOO_FEW:
            return f"not used: {fitted.n} decision{'' if fitted.n == 1 else 's'}, fewer than {FEWEST}"
        case Uncalibrated.ALL_RIGHT | Uncalibrated.NONE_RIGHT as why:
            return f"not used: {'all' if why is Uncalibrated.ALL_RIGHT else 'none'} of {fitted.n} decisions were right"


def choice_rows(summary: RunSummary) -> list[list[str]]:
    """What fusion took from each fold's validation range, as text."""
    rows = []
    for choice in summary.fusion:
        chosen, lead = choice.chosen, choice.lead
        sides = [cell for fitted in (choice.calibration, choice.advisor) for cell in (f"{fitted.n_right} of {fitted.n}", _log_odds(fitted))]
        earned = [f"{1e4 * candidate.growth:.1f}" for candidate in (chosen, choice.table[0])]
        interval = "" if lead.low is None or lead.high is None else f" [{1e4 * lead.low:.1f}, {1e4 * lead.high:.1f}]"
        weights = [f"{chosen.llm_weight:g}", f"{chosen.confidence_threshold:g}"]
        rows.append([str(choice.fold), *sides, *weights, *earned, f"{1e4 * lead.difference:.1f}{interval}"])
    return rows


def measure_rows(summary: RunSummary) -> list[list[str]]:
    """What the verdict about the subject stands on, as text."""
    rows = []
    for row in summary.against_benchmark.tests:
        kind = "ratio" if row.measure is Measure.SHARPE else "percent"
        interval = "-" if row.low is None else f"{show(row.low, kind)} to {show(row.high, kind)}"
        ps = (show(row.p, "p"), show(row.p_adjusted, "p"))
        rows.append([MEASURES[row.measure], show(row.value, kind), interval, show(row.error, kind), *ps])
    return rows


def _gates(summary: RunSummary) -> dict[str, Any] | None:
    """The section on promotion; None where what was tried was not counted."""
    if summary.gates is None:
        return None
    found = {"sentences": gate_sentences(summary), "rows": gate_rows(summary.gates), "doubts": doubts(summary.gates)}
    return found | {"trials": trial_rows(summary.gates)}


def coverage_table(quality: QualitySummary, daily: bool) -> Table:
    """What there is of each symbol."""
    rows = symbol_rows(quality, daily)
    return list(rows[0]) if rows else [], [list(row.values()) for row in rows]


# --- the page


@dataclass(frozen=True)
class RunFacts:
    """What a page says about a run beside its numbers.

    Attributes:
        folds: from `ploutos.walk_forward.fold_table`.
        provenance: name and value of everything that the numbers stand on.
        command: what repeats the run.
        texts: what reading texts was worth; empty where there were none.
    """

    folds: list[dict[str, str]]
    provenance: list[tuple[str, str]]
    command: str = ""
    texts: tuple[str, ...] = ()


def render_report(backtests: Backtests, summary: RunSummary, bars: Bars, quality: QualitySummary, facts: RunFacts) -> str:
    """The page; placebos are left to the advisor's own.

    Args:
        bars: that the accounts traded.
        quality: of the bars' inspection.
    """
    names, own = names_of(summary), summary.strategies[summary.subject.slug]
    m = Material(backtests.only(list(summary.strategies)), summary, bars)
    histories = {names[each.slug]: each for each in summary.histories}
    return render_page(
        "report.html.j2",
        m=summary,
        name=names[summary.subject.slug],
        benchmark=names[summary.benchmark],
        headline=headline(summary),
        verdict=verdict(summary),
        conclusion=conclusion(summary),
        vote=vote_sentence(summary),
        measures=measure_rows(summary),
        warnings=[(warning.check, days(warning.sentence, m.daily)) for warning in quality.warnings],
        coverage=coverage_table(quality, m.daily),
        cards=[(label, _stacked(_cell(own, key, kind))) for key, label, kind in _COLUMNS if key in _CARDS],
        table_headings=list(comparison(summary)[0]),
        table_rows=[[_stacked(cell) for cell in row.values()] for row in comparison(summary)],
        titles={label: _DESCRIPTIONS[key] for key, label, _ in _columns(summary)},
        marked=list(summary.strategies).index(summary.subject.slug),
        deepest=DEEPEST,
        drawdowns={name: drawdown_rows(each) for name, each in histories.items()},
        months={name: month_heat(each) for name, each in histories.items()},
        tails=tail_table(summary),
        fold_heat=fold_heat(summary),
        charts=_charts(m),
        trades=_trades(m),
        window=0 if m.rolling is None else m.rolling.window,
        growth=growth_part(summary),
        stress=stress_part(summary),
        recombined=recombined_part(summary),
        choices=choice_rows(summary),
        gates=_gates(summary),
        facts=facts,
        fold_plan=[[row[name].replace(" .. ", " to ") for name in ("fold", "train", "validation", "test")] for row in facts.folds],
        command=Markup.escape(facts.command),
    )


def _charts(m: Material) -> dict[str, Markup]:
    """Every figure of the page by name; one that has nothing to show is empty."""
    name, other = m.names[m.summary.subject.slug], m.names[m.summary.benchmark]
    span, learning = f"from {m.summary.first} to {m.summary.last}", figures.learning(m.summary)
    charts = {
        "equity": figure_html(figures.equity(m), 480, f"Lines of account values {span} on a log scale; {name} is bold."),
        "underwater": figure_html(figures.underwater(m), 320, f"Lines of drawdowns {span}; {name} is bold."),
        "returns": figure_html(figures.returns_histogram(m), 340, f"Histogram of session returns of {name} beside {other}."),
        "exposure": figure_html(figures.exposure(m), 300, f"Lines of the share of equity that {name} and {other} held {span}."),
        "weights": figure_html(figures.weights(m), 130 + 22 * min(len(m.bars.symbols), 40), f"What {name} held of every symbol {span}."),
        "in_sample": figure_html(figures.in_sample(m.summary), 420, "Dots: Sharpe ratio of every policy in and out of its training range."),
        "costs": figure_html(
            figures.costs(m.backtests, m.names), 100 + 20 * len(m.names), "Bars: what every account paid, by kind of cost."
        ),
        "learning": Markup(), "rolling_sharpe": Markup(), "rolling_beta": Markup(),
    }  # fmt: skip
    if learning is not None:
        charts["learning"] = figure_html(learning, 420, "Lines: growth per bar of every policy while it learnt, and on held-out bars.")
    if m.rolling is not None:
        charts["rolling_sharpe"] = figure_html(
            figures.rolling_sharpe(m, m.rolling), 300, f"Lines: rolling Sharpe ratio of {name} and {other}."
        )
        charts["rolling_beta"] = figure_html(figures.rolling_beta(m, m.rolling), 240, f"Line: rolling beta of {name} to {other}.")
    return charts


def _trades(m: Material) -> list[tuple[str, str, Markup]]:
    """Symbol, how many fills are drawn, and the figure."""
    found = []
    for symbol in figures.drawn_symbols(m):
        figure, shown = figures.trades(m, symbol)
        alt = f"Closes of {symbol} with what {m.names[m.summary.subject.slug]} bought and sold."
        found.append((symbol, shown, figure_html(figure, 300, alt)))
    return found


SHORT_COLUMNS = ("strategy", "total return", "Sharpe", "max drawdown", "costs", "excess / y over buy and hold")
"""Of the table against the baselines, for a terminal or a chat."""


def markdown_table(headings: list[str] | tuple[str, ...], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a table."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def render_markdown(summary: RunSummary, texts: Sequence[str] = ()) -> str:
    """The run on a card: the answer, what stands behind it, the key table and the gates."""
    name = names_of(summary)[summary.subject.slug]
    lines = [f"## {headline(summary)}", "", f"{name}, out of sample {summary.first} to {summary.last}, net of costs.", ""]
    lines += [f"- {sentence}" for sentence in [*verdict(summary), *texts, *gate_sentences(summary)]]
    lines += ["", *markdown_table(SHORT_COLUMNS, ([row[column] for column in SHORT_COLUMNS] for row in comparison(summary)))]
    if summary.gates is not None:
        lines += ["", *markdown_table(("gate", "value", "bar", "margin", "result"), gate_rows(summary.gates))]
    return "\n".join(lines) + "\n"
