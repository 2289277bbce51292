"""Phase 3: the advisor's features and its signals."""

from pathlib import Path

import numpy as np
from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from ploutos.features.llm_features import market_features
from ploutos.llm.advisor import advise, make_advisor
from ploutos.llm.config import LLMConfig
from ploutos.llm.mirror import ask_mirrored
from ploutos.llm.signals import read_signals, write_signals
from ploutos.market.bars import read_bars
from ploutos.settings import Settings
from ploutos.store import Ref, Store
from ploutos.training.folds import read_folds, tested_decisions
from tasks.stage import run_stage


@task(name="llm-features", cache_policy=NO_CACHE)
def llm_features_of(store: Store, bars: Ref) -> State[Ref]:
    """The 28 market features of every bar and symbol."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, market_features(read_bars(store.path(bars))))

    return run_stage(store, "llm-features", ["ploutos.features.llm_features"], {}, [bars.sha256], ".npy", write)


@task(name="advise", cache_policy=NO_CACHE)
def signals_of(store: Store, bars: Ref, llm_features: Ref, folds: Ref, config: LLMConfig, settings: Settings) -> State[Ref]:
    """Ask the advisor once per symbol and decision time of the test ranges."""
    advisor = make_advisor(config, settings)

    def write(path: Path) -> None:
        plan = read_folds(store.path(folds))
        market = np.load(store.path(llm_features), allow_pickle=False)
        first, last = plan[0].test.start - 1, plan[-1].test.stop - 2
        write_signals(advise(read_bars(store.path(bars)), market, first, last, advisor), path)

    upstream = [bars.sha256, llm_features.sha256, folds.sha256]
    stands_on = config.deciding() | {"digest": advisor.digest}
    state = run_stage(store, "signals", ["ploutos.llm.advisor"], stands_on, upstream, ".parquet", write)
    signals = read_signals(store.path(state.result()))
    get_run_logger().info(
        "advisor: %s; %d pieces of advice, %d abstentions, %d calls", signals.model, len(signals.frame), signals.n_abstained, advisor.calls
    )
    return state


@task(name="advise-mirrored", cache_policy=NO_CACHE)
def mirrored_of(store: Store, bars: Ref, signals: Ref, folds: Ref, config: LLMConfig, settings: Settings) -> State[Ref]:
    """Ask every question of the test ranges again, on the mirrored market."""
    advisor = make_advisor(config, settings)
    first, last = tested_decisions(read_folds(store.path(folds)))

    def write(path: Path) -> None:
        asked = read_signals(store.path(signals)).within(first, last)
        get_run_logger().info("advisor: %d questions asked again about the mirrored market", len(asked.frame))
        write_signals(ask_mirrored(asked, read_bars(store.path(bars)), advisor), path)

    stands_on = config.deciding() | {"digest": advisor.digest, "tested": [first, last]}
    return run_stage(store, "mirrored", ["ploutos.llm.mirror"], stands_on, [bars.sha256, signals.sha256], ".parquet", write)
