"""The autonomous strategist by the name that the first seed document gives it.

The document imports it `from agents`. A distribution that claims the top-level name `agents` would break OpenAI's Agents SDK, which
installs under it, so ploutos does not. Two lines make the document's own lines work, `agents.llm_client` included:

    import sys, ploutos.agents
    sys.modules["agents"] = ploutos.agents
"""

from ploutos.research.strategist.executor import BacktestExecutor as BacktestExecutor
from ploutos.research.strategist.loop import AutonomousStrategist as AutonomousStrategist
from ploutos.research.strategist.optimizer import Optimizer as Optimizer
from ploutos.research.strategist.optimizer import create_optimizer_from_engine as create_optimizer_from_engine
from ploutos.research.strategist.spec import StrategistSpec as StrategistSpec
