"""What buy and hold could buy: a benchmark that held nothing, or less than the others could, must not pass for one."""

import numpy as np

from ploutos.envs.spec import EnvSpec
from ploutos.errors import DataError
from ploutos.evaluation.backtest import Backtests
from ploutos.market.bars import Bars
from ploutos.types import BoolArray
from ploutos.wording import enumerate_names


def require_purchase(backtests: Backtests, name: str, bars: Bars, env: EnvSpec) -> None:
    """Refuse a run whose buy and hold bought nothing at all; where positions end with the session it holds nothing anyway.

    Raises:
        DataError: it did not; the message says why.
    """
    if env.flat_by_session_end or _bought(backtests, name).any():
        return
    decided = int(backtests.positions[0])
    slot = backtests.equity[backtests.row(name), 0] * env.gross_limit / bars.tradable[decided].sum()
    lots = np.nan_to_num(np.abs(bars.close[decided])) * [spec.lot * spec.multiplier for spec in bars.instruments]
    dearest = int(lots.argmax())
    why = "its orders came to less than one lot under env.max_participation or env.margin_calls, or no symbol had a bar to fill them in"
    if lots[dearest] > slot:
        why = f"one lot of {bars.symbols[dearest]} is worth {lots[dearest]:,.0f} and a slot holds {slot:,.0f}; raise env.initial_cash"
    raise DataError(f"{name} bought nothing on {bars.sessions[decided]}, so there is nothing to compare with: {why}")


def purchase_in_words(backtests: Backtests, name: str, bars: Bars) -> str:
    """Which symbols buy and hold could not buy, and why; empty where it bought them all."""
    bought, decided = _bought(backtests, name), int(backtests.positions[0])
    if bought.all():
        return ""
    late = bars.tradable.argmax(axis=0) > decided
    absent = ~(bars.tradable[decided] & bars.tradable[decided + 1])
    whys = (
        (late & ~bought, "listed later and {} never bought"),
        (absent & ~late & ~bought, "had no bar that day and {} never bought"),
        (~absent & ~late & ~bought, "came to less than one lot and {} never bought"),
    )
    named = [(np.array(bars.symbols)[which].tolist(), why) for which, why in whys if which.any()]
    missed = [f"{enumerate_names(names)} {why.format('was' if len(names) == 1 else 'were')}" for names, why in named]
    could = "it could buy" if whys[2][0].any() else "traded"
    return f"{name} held the {bought.sum()} of {bars.n_symbols} symbols that {could} on {bars.sessions[decided]}; {'; '.join(missed)}."


def _bought(backtests: Backtests, name: str) -> BoolArray:
    """Shape (n_symbols,): what an account that orders once was filled in."""
    return np.asarray(backtests.fill_units[backtests.row(name), 1] != 0)
