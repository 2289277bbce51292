"""Signals: the advice of a whole range as one table, made once and read by every stage that comes after."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.market.bars import Bars
from ploutos.store import digest_of
from ploutos.types import FloatArray, IntArray

ACTIONS = {"hold": HOLD, "buy": BUY, "sell": SELL}


@dataclass(frozen=True)
class Signals:
    """Advice of a whole range, on the bars' clock.

    Attributes:
        frame: one row per piece of advice, in the order of time: as_of (UTC), bar, symbol, asked_for (cadence or a
            trigger), action, confidence (0..1), abstained, reason, prompt_tokens, tokens, prompt_sha256.
        model: who advised.
        is_mock: whether that was no language model.
        cadence_bars: how long each piece stands, unless another follows before.
        digest: content digest of the model, empty where there is none.
        reveal: the prompts named the asset and the date.
        template: version of the prompt.
    """

    frame: pd.DataFrame
    model: str
    is_mock: bool
    cadence_bars: int
    digest: str = ""
    reveal: bool = False
    template: str = ""

    @property
    def n_abstained(self) -> int:
        """Questions without a usable answer."""
        return int(self.frame["abstained"].sum())

    def within(self, first_bar: int, last_bar: int) -> "Signals":
        """The advice for the decisions after the bars of a range, both ends included, with what still stands at the first."""
        bars = self.frame["bar"]
        asked = (bars >= first_bar - first_bar % self.cadence_bars) & (bars <= last_bar)
        return replace(self, frame=self.frame[asked].reset_index(drop=True))

    def align_to_bars(self, bars: Bars) -> tuple[IntArray, FloatArray]:
        """The advice that stands at each bar.

        Returns:
            Actions and confidences, shape (n_bars, n_symbols); HOLD at confidence 0 where none stands.
        """
        actions = np.full((bars.n_bars, bars.n_symbols), HOLD, dtype=np.int64)
        confidences = np.zeros((bars.n_bars, bars.n_symbols))
        for stands, column, action, confidence in self._standing(bars, "action", "confidence"):
            actions[stands, column] = ACTIONS[action]
            confidences[stands, column] = confidence
        return actions, confidences

    def freshness(self, bars: Bars) -> FloatArray:
        """How new the advice is that stands at each bar.

        Returns:
            Shape (n_bars, n_symbols): 1 where it was given, less by 1 / cadence_bars a bar; 0 where none stands, or an
            abstention does.
        """
        fresh = np.zeros((bars.n_bars, bars.n_symbols))
        for stands, column, abstained in self._standing(bars, "abstained"):
            n_bars = len(fresh[stands])
            fresh[stands, column] = 0.0 if abstained else 1.0 - np.arange(n_bars) / self.cadence_bars
        return fresh

    def digest_before(self, stop: int) -> str:
        """Hex sha256 of the advice given before bar `stop`, and of how long it stands; what comes later does not change it."""
        given = self.frame[self.frame["bar"] < stop]
        columns = [given[name].tolist() for name in ("bar", "symbol", "action", "confidence", "abstained")]
        return digest_of([self.cadence_bars, columns])

    def _standing(self, bars: Bars, *names: str) -> Iterator[tuple[Any, ...]]:
        """For each piece of advice the bars it stands at, its symbol's column, and some of its columns in the table."""
        column = {symbol: s for s, symbol in enumerate(bars.symbols)}
        for bar, symbol, *values in zip(*(self.frame[name].tolist() for name in ("bar", "symbol", *names)), strict=True):
            yield slice(bar, bar + self.cadence_bars), column[symbol], *values


def write_signals(signals: Signals, path: Path) -> None:
    """Write signals as parquet; who advised is kept with the table."""
    frame = signals.frame.copy()
    frame.attrs = {name: getattr(signals, name) for name in ("model", "is_mock", "cadence_bars", "digest", "reveal", "template")}
    frame.to_parquet(path, index=False)


def read_signals(path: Path) -> Signals:
    """Read what `write_signals` wrote."""
    frame = pd.read_parquet(path)
    return Signals(frame, **{str(name): value for name, value in frame.attrs.items()})
