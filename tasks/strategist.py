"""The strategist: one task, a line of log per turn, and one table that grows with them."""

from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from ploutos.config import PipelineConfig
from ploutos.market.bars import BARS
from ploutos.registry.recording import market_of
from ploutos.registry.trials import TrialRegistry
from ploutos.reporting.strategist_page import turn_of
from ploutos.reporting.strategist_verdict import in_words
from ploutos.research.strategist.loop import Iteration, one_line
from ploutos.research.strategist.optimizer import Optimizer, create_optimizer_from_engine
from ploutos.research.strategist.spec import StrategistSpec
from ploutos.research.strategist.verdict import StrategistResult
from ploutos.store import Ref, Store
from tasks.advice import slot_of
from tasks.away import only_shown
from tasks.slots import slot


@task(name="optimize-rule", cache_policy=NO_CACHE)
def optimize_rule(store: Store, bars: Ref, config: PipelineConfig, spec: StrategistSpec, registry_root: Path) -> StrategistResult:
    """Search and judge; what was asked before comes from the cassette."""
    rows: list[dict[str, str]] = []

    def show(iteration: Iteration) -> None:
        get_run_logger().info("turn %d: %s", iteration.number, one_line(iteration))
        rows.append(turn_of(iteration))
        with only_shown("table of this turn"):
            create_table_artifact(rows, key="ploutos-strategist", description=f"{spec.strategy}, turn by turn")

    pair = create_optimizer_from_engine(
        config.llm, spec.strategy, store.load(bars, BARS), spec=spec, env=config.env, on_iteration=show
    )  # fmt: skip
    with slot(slot_of(config.llm)):
        result = in_words(Optimizer(*pair, TrialRegistry(registry_root), market_of(config.data), config.seed).run())
    for sentence in result.sentences:
        get_run_logger().info("%s", sentence)
    return result
