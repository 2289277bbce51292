"""Texts as features: how often reading them is said to help, where they say nothing and where they say something.

    python -m benchmarks.texts [--seeds 40]

Noise markets of 900 daily bars and three symbols; a text on every bar says in plain words which way the next bar goes, and is right as
often as told. The reader understands every word. Logistic regressions, two test years; horizon of a bar.
"""

import argparse
import json
import re

import numpy as np
import pandas as pd

from ploutos.advisor.config import LLMConfig
from ploutos.advisor.cutoff import UNKNOWN
from ploutos.advisor.texts import TextReader, Texts, scores_of, with_texts
from ploutos.envs.spec import EnvSpec
from ploutos.evaluation.spec import BootstrapSpec
from ploutos.evaluation.text_controls import text_controls
from ploutos.features.build import FeatureSpec, build_features
from ploutos.llm.backends.base import Messages, Reply, Schema
from ploutos.market.data_spec import DataSpec
from ploutos.market.loader import load
from ploutos.strategies.regression import fit_regression
from ploutos.strategies.spec import RegressionSpec
from ploutos.walk_forward import FoldSpec, plan_folds

_FOLDS, _MODELS = FoldSpec(train_years=1, validation_months=2, test_months=12), RegressionSpec(models=("logistic",))
_ENV, _RIGHT = EnvSpec(allow_short=True), (0.5, 0.53, 0.56, 0.6)


class Understands:
    """Says what the words say."""

    name, is_mock = "understands", False

    def digest(self) -> str:
        return "understands"

    def complete(self, messages: Messages, schema: Schema, seed: int) -> Reply:
        up = re.search("grew", messages[-1].content) is not None
        return Reply(json.dumps({"direction": "up" if up else "down", "horizon": "days", "surprise": 30, "confidence": 80}))


def found(seed: int, right: float) -> dict[str, int]:
    """Signs of the differences, and of the readings by themselves."""
    data = DataSpec.model_validate(
        {
            "source": "synthetic",
            "timeframe": "1D",
            "start": "2015-01-02",
            "end": "2018-07-31",
            "synthetic": {"scenario": "noise", "seed": seed},
        }
    )
    bars, random, rows = load(data), np.random.default_rng(seed), []
    for bar, s in np.argwhere(bars.tradable[:-1] & bars.tradable[1:]):
        rose = bool(bars.mark[bar + 1, s] > bars.open[bar + 1, s])
        told = rose if random.random() < right else not rose
        at = pd.Timestamp(bars.available_at[bar], tz="UTC") - pd.Timedelta(minutes=1)
        rows.append((bars.symbols[s], at, "news", f"orders {'grew' if told else 'fell'} in region {random.integers(30)}"))
    texts = Texts(pd.DataFrame(rows, columns=["symbol", "available_at", "source", "text"]))
    readings = TextReader(Understands(), LLMConfig(), None).read(texts, bars)
    features = build_features(bars, FeatureSpec(include=("log_return_1", "volatility_20", "rsi_14")))
    told_of = with_texts(features, scores_of(readings), bars, 1)
    folds = plan_folds(bars, told_of, _FOLDS)
    models = [[fit_regression(bars, told_of, fold, _ENV, _MODELS, "logistic")] for fold in folds]
    controls = text_controls(bars, told_of, readings, folds, models, _ENV, _MODELS, 1, UNKNOWN, BootstrapSpec(), seed, 100)
    signs = {f"{row.of} less {row.against}": int(row.sign) for row in controls.pairs}
    assert controls.skill is not None
    return signs | {"readings alone": int(controls.skill.readers[0].sign), "bag of words alone": int(controls.skill.readers[1].sign)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=40)
    seeds = parser.parse_args().seeds
    for right in _RIGHT:
        signs = pd.DataFrame([found(seed, right) for seed in range(seeds)])
        cells = (f"{name} {int((signs[name] > 0).sum())}/{int((signs[name] < 0).sum())}" for name in signs)
        print(f"right {right:.0%}, of {seeds} better/worse: " + "; ".join(cells), flush=True)


if __name__ == "__main__":
    main()
