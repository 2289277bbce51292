"""An advisor of your own: whatever answers a prompt can advise.

    python examples/04_own_advisor.py FOLDER

This one buys near the low of the last 20 bars. It is a rule, not a language model, and says so; a model of your own is asked in the same
way. The prompt names no asset, no date and no price.
"""

import json
import sys
from pathlib import Path

import ploutos as pl
from ploutos.advisor.prompts import parse
from ploutos.llm.backends.base import Messages, Schema


class BuyTheDip:
    """Buy in the lower fifth of the last 20 bars' range, sell in the upper fifth."""

    name = "buy the dip (a rule)"
    is_mock = True

    def digest(self) -> str:
        """Content digest of a model; a rule has none."""
        return ""

    def complete(self, messages: Messages, schema: Schema, seed: int) -> pl.Reply:
        """An answer in the form that the schema asks for."""
        height = parse(messages).get("price_vs_support", 0.5)
        action = "buy" if height < 0.2 else "sell" if height > 0.8 else "hold"
        return pl.Reply(json.dumps({"action": action, "confidence": 60, "reason": f"{height:.2f} of the way up"}))


out = Path(*sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
bars = pl.load_bars()
fold = pl.plan_folds(bars, pl.build_features(bars))[0]
advisor = pl.Advisor(BuyTheDip(), pl.LLMConfig(provider="mock", cadence_bars=5))
signals = pl.advise(bars, pl.market_features(bars), fold.test.start - 1, fold.test.stop - 2, advisor)
signals.frame.to_parquet(out / "signals.parquet")

result = pl.backtest_folds(bars, [fold], [pl.AdvisorStrategy.of(signals, bars)])
print(signals.frame["action"].value_counts().to_string())
print(pl.metrics_frame(bars, result)[["total_return", "sharpe", "max_drawdown", "n_fills"]].round(2).to_string())
