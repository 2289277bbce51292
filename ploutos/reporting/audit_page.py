"""What an audit found, in sentences and on a page of its own."""

from ploutos.reporting.growth import PARTS, shown_parts, waterfall
from ploutos.reporting.page import figure_html, render_page, show
from ploutos.reporting.stress import needed_sentences, stress_rows
from ploutos.research.audit import FeatureAudit
from ploutos.research.track_record import DecisionsAudit, Luck, ReturnsAudit
from ploutos.wording import enumerate_names

CONFIDENCE = 0.95
"""Probability below which a record is called too short or too lucky."""
_LUCK = ["", "returns", "Sharpe per period", "PSR", "trials", "best by luck", "DSR", "returns needed"]
_ACCOUNT = ["account", "total return", "Sharpe", "max drawdown", "exposure", "costs"]


def feature_sentences(audit: FeatureAudit) -> list[str]:
    """Which columns read the future, or that none was seen to."""
    n = len(audit.columns)
    if not audit.leaks:
        many = "column" if n == 1 else "columns"
        return [f"None of {n} {many} of {audit.function} changed with the future, over {audit.n_futures} changed futures."]
    first = audit.leaks[0]
    named = enumerate_names([leak.column for leak in audit.leaks])
    verb = "reads" if len(audit.leaks) == 1 else "read"
    return [
        f"{named} {verb} the future: {len(audit.leaks)} of {n} columns of {audit.function}.",
        f"With the bars after it {first.change}, {first.column} of {first.symbol} at {first.bar} became {_value(first.after)}; it was "
        f"{_value(first.before)}. It reads at least {first.ahead} {'bar' if first.ahead == 1 else 'bars'} ahead.",
    ]


def render_features(audit: FeatureAudit) -> str:
    """The page."""
    rows = [
        [leak.column, leak.symbol, leak.bar, leak.change, _value(leak.before), _value(leak.after), str(leak.ahead), str(leak.n_seen)]
        for leak in audit.leaks
    ]
    headings = ["column", "symbol", "bar", "future", "value", "became", "bars ahead, at least", "futures that showed it"]
    seen = [[column, "reads the future" if column in {leak.column for leak in audit.leaks} else "unchanged"] for column in audit.columns]
    tables = [("Columns that read the future", headings, rows)] if rows else []
    tables.append(("All columns", ["column", "past under changed futures"], seen))
    return render_page(
        "audit.html.j2", title=f"Does {audit.function} read the future?", sentences=feature_sentences(audit), figures=[], tables=tables
    )


def luck_sentence(name: str, luck: Luck) -> str:
    """Whether a record is more than luck."""
    if luck.dsr is None or luck.psr is None:
        return f"The returns of {name} are all equal, so there is nothing to judge."
    if luck.dsr >= CONFIDENCE:
        return f"{name} is more than luck: its true Sharpe ratio beats the best of {luck.n_trials} trials with probability {luck.dsr:.1%}."
    if luck.psr >= CONFIDENCE:
        return (
            f"{name} may be the luck of the best of {luck.n_trials} trials: its true Sharpe ratio beats what that luck shows with a "
            f"probability of {luck.dsr:.1%} only."
        )
    more = "no record would be long enough" if luck.needed is None else f"{luck.needed:,.0f} returns are needed and {luck.n:,} are there"
    return f"The record of {name} shows no skill yet: its true Sharpe ratio is above 0 with probability {luck.psr:.1%}; {more}."


def returns_sentences(audit: ReturnsAudit) -> list[str]:
    """What a table of returns shows."""
    best = audit.columns[0]
    sentences = [luck_sentence(best, audit.luck[best])]
    if audit.spa is not None:
        other = audit.benchmark or "cash"
        sentences.append(f"That no column is better than {other} has a p-value of {audit.spa:.3f} (SPA, consistent).")
    if audit.pbo is not None:
        sentences.append(f"Choosing the best column would have disappointed in {audit.pbo:.0%} of the splits (PBO).")
    if audit.falls:
        fall = audit.falls[0]
        back = "and has not been made up" if fall.back is None else f"and was made up by {fall.back}"
        sentences.append(f"The deepest fall of {best}, {show(-fall.depth, 'percent')}, began at {fall.first} {back}.")
    return sentences


def render_returns(audit: ReturnsAudit) -> str:
    """The page."""
    falls = [[show(fall.depth, "percent"), fall.first, fall.deepest, fall.back or "not yet"] for fall in audit.falls]
    tables = [
        ("Skill or luck", _LUCK, [_luck_row(name, audit.luck[name]) for name in audit.columns]),
        (f"Deepest falls of {audit.columns[0]}", ["depth", "from", "lowest", "made up"], falls),
    ]
    return render_page(
        "audit.html.j2", title="Are these returns more than luck?", sentences=returns_sentences(audit), figures=[], tables=tables
    )


def decisions_sentences(audit: DecisionsAudit) -> list[str]:
    """What the ledger makes of the decisions."""
    own, matched, name = audit.own, audit.matched, "the audited account"
    capital = name[0].upper() + name[1:]
    sentences = [
        f"{capital} returned {show(own.total_return, 'percent')} net of costs; the market at its exposure of "
        f"{show(own.exposure, 'percent')} returned {show(matched.total_return, 'percent')}.",
        luck_sentence(capital, audit.luck),
        luck_sentence("Its lead over that market", audit.luck_over_matched),
        *needed_sentences(audit.robustness, capital, "that market"),
    ]
    if audit.n_ignored:
        sentences.append(f"{audit.n_ignored:,} rows fit no bar or symbol of the source and were left out.")
    return sentences


def render_decisions(audit: DecisionsAudit) -> str:
    """The page."""
    named = {"audited": audit.own, "the market at its exposure": audit.matched, "buy and hold": audit.hold}
    accounts = [
        [name, show(m.total_return, "percent"), show(m.sharpe, "ratio"), show(m.max_drawdown, "percent"), show(m.exposure, "percent"),
         show(m.costs, "money")]
        for name, m in named.items()
    ]  # fmt: skip
    growth = audit.attribution
    shown = shown_parts([growth.growth])
    symbols = [
        [name, *(show(getattr(each, part), "money") for part in shown), show(each.total, "money")]
        for name, each in growth.by_symbol.items()
    ]
    worlds = ["world", "decisions", "total return", "Sharpe", "max drawdown", "the market at its exposure there"]
    luck = [_luck_row("audited", audit.luck), _luck_row("its lead over the market at its exposure", audit.luck_over_matched)]
    return render_page(
        "audit.html.j2",
        title=f"What our ledger makes of these {audit.kind}",
        sentences=decisions_sentences(audit),
        figures=[figure_html(waterfall(growth.growth, shown), 380, "Waterfall: the parts of the growth.")],
        tables=[
            ("Beside the market", _ACCOUNT, accounts),
            ("Skill or luck", _LUCK, luck),
            ("In changed worlds", worlds, stress_rows(audit.robustness)),
            ("Where the growth came from", ["symbol", *(PARTS[part] for part in shown), "together"], symbols),
        ],
    )


def _luck_row(name: str, luck: Luck) -> list[str]:
    needed = "none is enough" if luck.needed is None else f"{luck.needed:,.0f}"
    ratios = [f"{value:.4f}" if value is not None else "-" for value in (luck.sharpe, luck.best_by_luck)]
    return [name, f"{luck.n:,}", ratios[0], show(luck.psr, "percent"), str(luck.n_trials), ratios[1], show(luck.dsr, "percent"), needed]


def _value(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"
