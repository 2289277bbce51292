"""The bars that ship with ploutos: AAPL FB GOOG IBM MSFT, daily, 2000-03-01 to 2013-03-01, public domain.

Provenance and licence lie beside the data, in `ploutos/market/data/README.md`.
"""

from importlib.resources import as_file, files

import pandas as pd

NAME = "sample: 5 US shares, daily, 2000-2013"
FILE = "us5_1d_2000_2013.parquet"


def read() -> pd.DataFrame:
    """Raw bars with adj_close, one row per symbol and session date."""
    with as_file(files("ploutos.market") / "data" / FILE) as path:
        return pd.read_parquet(path)
