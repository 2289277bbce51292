"""What people call a strategy; the only place that knows."""

from collections.abc import Iterable

from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.summary import RunSummary
from ploutos.strategies.base import Role

_SUPERVISED: dict[str, str] = {
    "logistic": "logistic regression",
    "ridge": "ridge regression",
    "trees": "boosted trees",
    "lasso": "lasso regression",
    "lagged": "lasso regression with lags",
}


def display_name(slug: str, role: Role, is_mock: bool) -> str:
    """A strategy's name in tables, figures and sentences; a mock advisor is called one.

    >>> display_name("fused", Role.FUSED, is_mock=True), display_name("buy-and-hold", Role.BASELINE, is_mock=True)
    ('fused (mock advisor)', 'buy and hold')
    """
    plain = slug.replace("-", " ")
    match role:
        case Role.FUSED:
            return f"{plain} (mock advisor)" if is_mock else f"{plain} (LLM)"
        case Role.ADVISOR:
            return f"{plain} (mock)" if is_mock else f"{plain} (LLM)"
        case Role.VOTE | Role.MEMBER:
            return f"RL {plain}"
        case Role.REGRESSION:
            return _SUPERVISED[slug]
        case Role.ABLATION:
            return f"{plain.removesuffix(' ablated')} without advice"
        case _:
            return plain


def names_of(summary: RunSummary) -> dict[str, str]:
    """Display names of a run's strategies, by slug."""
    return _named(((slug, metrics.role) for slug, metrics in summary.strategies.items()), summary)


def names_of_accounts(backtests: Backtests, summary: RunSummary) -> dict[str, str]:
    """Display names of all accounts, placebos too, by slug."""
    return _named(zip(backtests.slugs, backtests.roles, strict=True), summary)


def _named(accounts: Iterable[tuple[str, Role]], summary: RunSummary) -> dict[str, str]:
    return {slug: display_name(slug, role, summary.advisor.is_mock) for slug, role in accounts}
