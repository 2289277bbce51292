"""The feature artifact: bars in, one long parquet out, known when its bars are known.

Each symbol's features are computed on its own bars, without the gaps that other symbols' bars leave in the panel, and
put back on the common clock. Nothing here is fitted, so the whole history is computed once and every fold's test range
has its warm-up in the bars before it.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ploutos.errors import DataError
from ploutos.features import indicators
from ploutos.features.spec import FeatureSpec as FeatureSpec
from ploutos.market.bars import FIELDS, Bars, require_available_at, span_in_words
from ploutos.store import Kind
from ploutos.types import BoolArray, Float32Array, FloatArray, TimeArray


@dataclass(frozen=True, repr=False)
class FeatureSet:
    """Features on the bars' clock.

    Attributes:
        values: shape (n_bars, n_symbols, n_features), float32, nan where a symbol has no bar or its window is not full.
        names: n_features names.
        timestamps, available_at: shape (n_bars,), those of the bars.
        symbols: n_symbols names.
        n_required: how many features, the first ones, a symbol needs to be usable; None means all. Another one that is not
            known yet reads as its training mean.
    """

    values: Float32Array
    names: tuple[str, ...]
    timestamps: TimeArray
    available_at: TimeArray
    symbols: tuple[str, ...]
    n_required: int | None = None

    def __repr__(self) -> str:
        n_bars, n_symbols, n_features = self.values.shape
        return f"FeatureSet({n_features} features of {n_symbols} symbols, {n_bars:,} bars, {span_in_words(self.timestamps)})"

    @cached_property
    def ready(self) -> BoolArray:
        """Shape (n_bars, n_symbols): every required feature is a number."""
        return np.asarray(np.isfinite(self.values[:, :, : self.n_required]).all(axis=2))

    @property
    def warmup_bars(self) -> int:
        """Bars before the first one at which any symbol is ready."""
        ready = np.asarray(self.ready.any(axis=1))
        return int(ready.argmax()) if ready.any() else len(ready)

    def with_column(self, name: str, values: FloatArray) -> "FeatureSet":
        """These features and one of your own, which a symbol needs to be usable like the others.

        Args:
            values: shape (n_bars, n_symbols); row *t* may use bars up to and including *t*, and is nan where it is not known yet.

        Raises:
            DataError: the name is taken, or the values have another shape.
        """
        if name in self.names:
            raise DataError(f"feature {name} already exists; choose another name")
        if values.shape != self.values.shape[:2]:
            raise DataError(f"{name} has shape {values.shape}; expected {self.values.shape[:2]}: bars by symbols")
        at = self.n_required if self.n_required is not None else len(self.names)
        widened = np.insert(self.values, at, values, axis=2)
        required = None if self.n_required is None else at + 1
        return replace(self, values=widened, names=(*self.names[:at], name, *self.names[at:]), n_required=required)


def build_features(bars: Bars, spec: FeatureSpec | None = None, macro: pd.DataFrame | None = None) -> FeatureSet:
    """Compute the chosen features of every symbol.

    Args:
        spec: which features; all where it is left out.
        macro: columns on the bars' clock, from `ploutos.features.macro_features.macro_columns`; they follow the features
            of each symbol, where it has a bar.

    Returns:
        Features whose row *t* uses bars up to and including *t*, and macro values published by then.
    """
    names = (spec or FeatureSpec()).names()
    columns = [indicators.NAMES.index(name) for name in names]
    values = np.full((bars.n_bars, bars.n_symbols, len(names)), np.nan, dtype=np.float32)
    for s in range(bars.n_symbols):
        present = bars.tradable[:, s]
        if not present.any():
            continue
        arrays = [np.ascontiguousarray(getattr(bars, field)[present, s]) for field in FIELDS]
        values[present, s] = indicators.compute(*arrays)[:, columns]
    if macro is not None:
        values, names = _beside(values, bars.tradable, macro), names + tuple(macro.columns[1:])
    return FeatureSet(values, names, bars.timestamps, bars.available_at, bars.symbols)


def _beside(values: Float32Array, tradable: BoolArray, macro: pd.DataFrame) -> Float32Array:
    """Features of each symbol, then the macro columns, which are the same for all."""
    shared = macro[macro.columns[1:]].to_numpy(dtype=np.float32)
    each = np.where(tradable[:, :, None], shared[:, None, :], np.float32(np.nan))
    return np.concatenate([values, each], axis=2)


def write_features(features: FeatureSet, path: Path) -> None:
    """Write a long parquet: timestamp, available_at, symbol, then one column per feature; all of them are required when it is read."""
    n_bars, n_symbols, n_features = features.values.shape
    frame = pd.DataFrame(features.values.reshape(-1, n_features), columns=list(features.names))
    frame.insert(0, "symbol", np.tile(np.array(features.symbols), n_bars))
    for name, stamps in (("available_at", features.available_at), ("timestamp", features.timestamps)):
        frame.insert(0, name, pd.DatetimeIndex(np.repeat(stamps, n_symbols)).tz_localize("UTC"))
    frame.to_parquet(path, index=False)


def read_features(path: Path) -> FeatureSet:
    """Read what `write_features` wrote.

    Raises:
        DataError: the table does not say when its rows were known, or is not a full panel.
    """
    frame = pd.read_parquet(path)
    require_available_at(frame, path)
    symbols = tuple(dict.fromkeys(frame["symbol"]))
    names = tuple(str(name) for name in frame.columns[3:])
    n_symbols = len(symbols)
    if len(frame) % n_symbols or not (frame["symbol"].to_numpy() == np.tile(symbols, len(frame) // n_symbols)).all():
        raise DataError(f"{path.name} is not a complete panel of {n_symbols} symbols")
    stamps = {
        name: frame[name].dt.tz_localize(None).to_numpy().astype("datetime64[us]")[::n_symbols] for name in ("timestamp", "available_at")
    }
    values = frame[list(names)].to_numpy(dtype=np.float32).reshape(-1, n_symbols, len(names))
    return FeatureSet(values, names, stamps["timestamp"], stamps["available_at"], symbols)


FEATURES = Kind("features", ".parquet", write_features, read_features)
