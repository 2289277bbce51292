"""Signals: the advice of a whole range as one table, made once and read by every stage that comes after."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ploutos.envs.actions import BUY, HOLD, SELL
from ploutos.market.bars import Bars
from ploutos.store import Kind, digest_of
from ploutos.types import FloatArray, IntArray

ACTIONS = {"hold": HOLD, "buy": BUY, "sell": SELL}


@dataclass(frozen=True)
class Signals:
    """Advice of a whole range, on the bars' clock.

    Attributes:
        frame: one row per piece of advice, in the order of time: as_of (UTC), bar, symbol, asked_for (cadence or a
            trigger), action, confidence (0..1), abstained, reason, prompt_tokens, tokens, prompt_sha256.
        model: who advised.
        is_mock: whether that was not a language model.
        cadence_bars: how long each piece stands, unless another follows before.
        digest: content digest of the model, empty where there is none.
        reveal: the prompts hid less than everything.
        template: version of the prompt.
        mask: what they hid, as in `ploutos.advisor.config.Mask`.
    """

    frame: pd.DataFrame
    model: str
    is_mock: bool
    cadence_bars: int
    digest: str = ""
    reveal: bool = False
    template: str = ""
    mask: str = "all"

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
        rows, _ = self._standing(bars)
        return np.append(_looked_up(self.frame["action"], ACTIONS), HOLD)[rows], np.append(self.frame["confidence"], 0.0)[rows]

    def freshness(self, bars: Bars) -> FloatArray:
        """How new the advice is that stands at each bar.

        Returns:
            Shape (n_bars, n_symbols): 1 where it was given, less by 1 / cadence_bars a bar; 0 where none stands, or an
            abstention does.
        """
        rows, age = self._standing(bars)
        return np.where(np.append(self.frame["abstained"], True)[rows], 0.0, 1.0 - age / self.cadence_bars)

    def digest_before(self, stop: int) -> str:
        """Hex sha256 of the advice given before bar `stop`, and of how long it stands; what comes later does not change it."""
        given = self.frame[self.frame["bar"] < stop]
        columns = [given[name].tolist() for name in ("bar", "symbol", "action", "confidence", "abstained")]
        return digest_of([self.cadence_bars, columns])

    def _standing(self, bars: Bars) -> tuple[IntArray, IntArray]:
        """Which row of the table stands at each bar, -1 for none, and for how many bars it has stood; shape (n_bars, n_symbols)."""
        column = {symbol: s for s, symbol in enumerate(bars.symbols)}
        columns = _looked_up(self.frame["symbol"], column)
        given = np.append(self.frame["bar"].to_numpy(dtype=np.int64), -self.cadence_bars)  # row -1, so long ago that it never stands
        known = np.flatnonzero(given[:-1] < bars.n_bars)
        rows = np.full((bars.n_bars, bars.n_symbols), -1)
        rows[given[known], columns[known]] = known
        rows = np.maximum.accumulate(rows)
        age = np.arange(bars.n_bars)[:, None] - given[rows]
        return np.where(age < self.cadence_bars, rows, -1), age


def _looked_up(names: pd.Series, numbers: Mapping[str, int]) -> IntArray:
    """The number of every name, shape (n,)."""
    codes, different = pd.factorize(names, use_na_sentinel=False)  # no name has no number
    return np.array([numbers[name] for name in different], dtype=np.int64)[codes]


def write_signals(signals: Signals, path: Path) -> None:
    """Write signals as parquet; who advised is kept with the table."""
    frame = signals.frame.copy()
    frame.attrs = {name: getattr(signals, name) for name in ("model", "is_mock", "cadence_bars", "digest", "reveal", "template", "mask")}
    frame.to_parquet(path, index=False)


def read_signals(path: Path) -> Signals:
    """Read what `write_signals` wrote."""
    frame = pd.read_parquet(path)
    return Signals(frame, **{str(name): value for name, value in frame.attrs.items()})


SIGNALS = Kind("signals", ".parquet", write_signals, read_signals)
