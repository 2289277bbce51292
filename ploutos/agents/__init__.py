"""The autonomous strategist by the name that the first seed document gives it.

The document imports it `from agents`. A distribution that claims the top-level name `agents` would break OpenAI's Agents SDK, which
installs under it, so ploutos does not. Two lines make the document's own lines work, `agents.llm_client` included:

    import sys, ploutos.agents
    sys.modules["agents"] = ploutos.agents
"""

from ploutos.reporting.strategist_verdict import in_words
from ploutos.research.strategist.executor import BacktestExecutor as BacktestExecutor
from ploutos.research.strategist.loop import AutonomousStrategist as AutonomousStrategist
from ploutos.research.strategist.optimizer import Optimizer as _Optimizer
from ploutos.research.strategist.optimizer import create_optimizer_from_engine as create_optimizer_from_engine
from ploutos.research.strategist.spec import StrategistSpec as StrategistSpec
from ploutos.research.strategist.verdict import StrategistResult as StrategistResult


class Optimizer(_Optimizer):
    """`ploutos.research.strategist.optimizer.Optimizer`, whose result says in words what it came to."""

    def run(self) -> StrategistResult:
        return in_words(super().run())
