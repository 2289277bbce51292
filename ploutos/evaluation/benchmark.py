"""What buy and hold could buy: a benchmark that held nothing, or less than the others could, must not pass for one."""

import numpy as np

from ploutos.envs.spec import EnvSpec
from ploutos.errors import DataError
from ploutos.evaluation.backtest import Backtests
from ploutos.evaluation.metrics import to_date
from ploutos.evaluation.summary import Purchase
from ploutos.market.bars import Bars
from ploutos.types import BoolArray


def require_purchase(backtests: Backtests, slug: str, bars: Bars, env: EnvSpec) -> None:
    """Refuse a run whose buy and hold bought nothing at all; where positions end with the session it holds nothing anyway.

    Raises:
        DataError: it did not; the message says why.
    """
    if env.flat_by_session_end or _bought(backtests, slug).any():
        return
    decided = int(backtests.positions[0])
    slot = backtests.equity[backtests.row(slug), 0] * env.gross_limit / bars.n_tradable[decided]
    lots = np.nan_to_num(np.abs(bars.close[decided])) * [spec.lot * spec.multiplier for spec in bars.instruments]
    dearest = int(lots.argmax())
    why = "its orders came to less than one lot under env.max_participation or env.margin_calls, or no symbol had a bar to fill them in"
    if lots[dearest] > slot:
        why = f"one lot of {bars.symbols[dearest]} is worth {lots[dearest]:,.0f} and a slot holds {slot:,.0f}; raise env.initial_cash"
    raise DataError(f"{slug} bought nothing on {bars.sessions[decided]}, so there is nothing to compare with: {why}")


def purchase_of(backtests: Backtests, slug: str, bars: Bars) -> Purchase:
    """Which symbols buy and hold bought, and why not the others."""
    bought, decided = _bought(backtests, slug), int(backtests.positions[0])
    late = bars.tradable.argmax(axis=0) > decided
    absent = ~(bars.tradable[decided] & bars.tradable[decided + 1])

    def symbols(which: BoolArray) -> tuple[str, ...]:
        return tuple(np.array(bars.symbols)[which].tolist())

    return Purchase(
        decided=to_date(bars.sessions[decided]),
        bought=symbols(bought),
        unlisted=symbols(late & ~bought),
        without_bar=symbols(absent & ~late & ~bought),
        below_lot=symbols(~absent & ~late & ~bought),
    )


def _bought(backtests: Backtests, slug: str) -> BoolArray:
    """Shape (n_symbols,): what an account that orders once was filled in."""
    return np.asarray(backtests.fill_units[backtests.row(slug), 1] != 0)
