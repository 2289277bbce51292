"""ploutos: market bars to an honestly evaluated trading agent.

The library half: functions and small classes over arrays, usable from a notebook. It never imports Prefect; the
packages `tasks`, `flows` and `deployments` put it under an orchestrator.
"""

__version__ = "0.1.0"
