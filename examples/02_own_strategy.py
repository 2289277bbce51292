"""A strategy of your own: checked against the contract, then backtested beside the baselines.

    python examples/02_own_strategy.py FOLDER

The strategy buys what closed above its 100-bar mean. A second one, which looks one bar ahead, is refused.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import ploutos as pl


def trend(bars: pl.Bars, ahead: int = 0) -> tuple[pl.Strategy, None]:
    """An equal share of every symbol above its 100-bar mean; row *t* uses closes up to *t* + `ahead`."""
    close = pd.DataFrame(bars.close)
    above = (close > close.rolling(100).mean()).shift(-ahead, fill_value=False)
    weights = np.where(above & bars.tradable, 1 / bars.n_symbols, 0.0)
    return pl.PrecomputedTargets("trend", weights), None


def peeking(bars: pl.Bars) -> tuple[pl.Strategy, None]:
    """The same with tomorrow's close."""
    return trend(bars, ahead=1)


out = Path(*sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
bars = pl.load_bars()
folds = pl.plan_folds(bars, pl.build_features(bars))
pl.check_strategy(trend, bars, folds[0].test)
try:
    pl.check_strategy(peeking, bars, folds[0].test)
except pl.PloutosError as error:
    print(f"refused: {error}\n")

result = pl.backtest_folds(bars, folds, [trend(bars)[0]])
metrics = pl.metrics_frame(bars, result)
print(metrics[["total_return", "sharpe", "sharpe_low", "sharpe_high"]].round(2).to_string())
pl.plot_equity(result).write_html(out / "trend.html")
