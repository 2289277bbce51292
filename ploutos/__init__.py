"""ploutos: market bars to an honestly evaluated trading agent.

The library half: functions and small classes over arrays, usable from a notebook. It never imports Prefect; the
packages `tasks`, `flows` and `deployments` put it under an orchestrator.

What a notebook needs is here under one name, as in `ploutos.load_bars`. The names stand in `__init__.pyi`, beside the module that each
comes from; a module is imported when one of its names is first used, so `import ploutos` loads neither numpy nor torch.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
