"""From bars to a policy that was tested beside the baselines.

    python examples/01_first_policy.py FOLDER

The policy sees a small share of the steps that production asks for, and one fold of one seed: the figures run the machine and prove no
skill.
"""

import sys
from pathlib import Path

import ploutos as pl

out = Path(*sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)

bars = pl.load_bars()  # the sample; pl.load_bars("bars.csv") reads yours
features = pl.build_features(bars)
fold = pl.plan_folds(bars, features)[0]
training = pl.TrainingSpec(total_timesteps=20_000, net_arch=(64, 64))
policy = pl.train_policy(bars, features, fold, training, seed=1)
result = pl.backtest_folds(bars, [fold], features=features, policies=[[policy]])
metrics = pl.metrics_frame(bars, result)
print(metrics[["total_return", "sharpe", "sharpe_low", "sharpe_high"]].round(2).to_string())
figure = pl.plot_equity(result)
figure.write_html(out / "equity.html")
