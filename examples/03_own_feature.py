"""A feature of your own: the share of the last 20 bars that closed higher.

    python examples/03_own_feature.py FOLDER

It must know no later bar: computed on the first bars alone, it must say what it says on all of them.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import ploutos as pl


def share_of_gains(bars: pl.Bars) -> np.ndarray:
    """Shape (n_bars, n_symbols), 0..1; nan until 20 bars are known."""
    gains = pd.DataFrame(np.where(np.isnan(bars.close), np.nan, 0.0))
    gains += pd.DataFrame(bars.close).diff() > 0
    return gains.rolling(20).mean().to_numpy()


out = Path(*sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
bars = pl.load_bars()
values = share_of_gains(bars)
for n_bars in (500, 1500, 2500):
    np.testing.assert_array_equal(share_of_gains(bars.head(n_bars)), values[:n_bars])

few = pl.build_features(bars, pl.FeatureSpec(include=("log_return_1", "volatility_20", "rsi_14")))
features = few.with_column("share_of_gains", values)
fold = pl.plan_folds(bars, features)[0]
training = pl.TrainingSpec(total_timesteps=8_192, net_arch=(32,))
with_feature = pl.train_policy(bars, features, fold, training, seed=1, path=out / "policy.zip")
without = pl.train_policy(bars, few, fold, training, seed=1)
for name, policy, observed in (("with", with_feature, features), ("without", without, few)):
    result = pl.backtest_folds(bars, [fold], features=observed, policies=[[policy]])
    sharpe = pl.metrics_frame(bars, result).iloc[0][["sharpe", "sharpe_low", "sharpe_high"]]
    print("{} the feature: Sharpe {:.2f} [{:.2f}, {:.2f}]".format(name, *sharpe))
