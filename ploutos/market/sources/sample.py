"""The bars that ship with ploutos: AAPL FB GOOG IBM MSFT, daily, 2000-03-01 to 2013-03-01, public domain.

Provenance and licence lie beside the data, in `ploutos/market/data/README.md`.
"""

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path

import pandas as pd

NAME = "sample: 5 US shares, daily, 2000-2013"
FILE = "us5_1d_2000_2013.parquet"


def open_file() -> AbstractContextManager[Path]:
    """The shipped parquet as a file, for the length of a block."""
    return as_file(files("ploutos.market") / "data" / FILE)


def read() -> pd.DataFrame:
    """Raw bars with adj_close, one row per symbol and session date."""
    with open_file() as path:
        return pd.read_parquet(path)
