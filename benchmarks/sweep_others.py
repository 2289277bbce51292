"""The same sweep by vectorbt and backtesting.py, run by `benchmarks.sweep` with an interpreter that has them.

It imports nothing of ploutos: the two packages, the first of them under the AGPL, live in an environment of their own. Each line of input
is a turn: `backtesting N` or `vectorbt N`, N sets; each answer says processor seconds and how many trades were closed per set.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

FEE = 5e-4


def ema(close: pd.Series, window: int) -> np.ndarray:
    return close.ewm(span=window, adjust=False).mean().to_numpy()


def run_backtesting(frame: pd.DataFrame, sets: list[dict[str, float]]) -> float:
    from backtesting import Backtest, Strategy

    class Cross(Strategy):
        fast, slow, stop = 12, 26, 0.02

        def init(self):
            close = pd.Series(self.data.Close)
            self.above = self.I(lambda: np.sign(ema(close, self.fast) - ema(close, self.slow)))

        def next(self):
            side, before, price = self.above[-1], self.above[-2], self.data.Close[-1]
            if side > 0 and before <= 0:
                self.buy(size=0.99, sl=price * (1 - self.stop))
            elif side < 0 and before >= 0:
                self.sell(size=0.99, sl=price * (1 + self.stop))

    test = Backtest(frame, Cross, cash=1e8, commission=FEE, exclusive_orders=True, finalize_trades=True)
    return float(np.mean([test.run(fast=s["fast"], slow=s["slow"], stop=s["stop_loss"])["# Trades"] for s in sets]))


def run_vectorbt(frame: pd.DataFrame, sets: list[dict[str, float]]) -> float:
    import vectorbt as vbt

    close, open_ = frame["Close"], frame["Open"]
    means = {window: ema(close, window) for window in {s[name] for s in sets for name in ("fast", "slow")}}
    side = np.column_stack([np.sign(means[s["fast"]] - means[s["slow"]]) for s in sets])
    turned = np.vstack([np.zeros((1, len(sets))), side[:-1]])  # an order fills at the next open
    before = np.vstack([np.zeros((1, len(sets))), turned[:-1]])
    portfolio = vbt.Portfolio.from_signals(
        close, (turned > 0) & (before <= 0), short_entries=(turned < 0) & (before >= 0), open=open_, high=frame["High"], low=frame["Low"],
        price=open_, sl_stop=np.array([s["stop_loss"] for s in sets]), fees=1e-4, slippage=4e-4, freq="1h", init_cash=1e5,
    )  # fmt: skip
    portfolio.total_return(), portfolio.sharpe_ratio(), portfolio.max_drawdown()
    return float(portfolio.trades.count().mean())


def main() -> None:
    with np.load(sys.argv[1]) as bars:
        index = pd.DatetimeIndex(bars["timestamps"])
        frame = pd.DataFrame({name: bars[name.lower()] for name in ("Open", "High", "Low", "Close")}, index=index).assign(Volume=1.0)
    sets = json.loads(Path(sys.argv[2]).read_text())
    runs = {"backtesting": run_backtesting, "vectorbt": run_vectorbt}
    print("ready", flush=True)
    for line in sys.stdin:
        name, n = line.split()
        started = time.process_time()
        trades = runs[name](frame, sets[: int(n)])
        print(json.dumps({"seconds": time.process_time() - started, "trades": trades}), flush=True)


if __name__ == "__main__":
    main()
