"""Jobs for worker processes that import nothing heavy before they are called."""

import os
import sys
import time
from pathlib import Path


def multiply_and_wait(folder):
    """A matrix product with numpy; then sign in, and wait in the folder until there is a file `gate`."""
    imported_before = "numpy" in sys.modules
    import numpy as np
    from threadpoolctl import threadpool_info

    product = float((np.ones((300, 300)) @ np.ones((300, 300))).sum())
    pools = [info["num_threads"] for info in threadpool_info()]
    Path(folder, str(os.getpid())).touch()
    while not Path(folder, "gate").exists():
        time.sleep(0.02)
    return imported_before, product, pools


def multiply_with_torch():
    """A matrix product with torch; its value, torch's threads, and the threads of the whole process."""
    import psutil
    import torch

    product = float((torch.ones(400, 400) @ torch.ones(400, 400)).sum())
    return product, torch.get_num_threads(), psutil.Process().num_threads()


def count(number):
    """Work that a signal may interrupt."""
    return sum(range(number))


def read_held_out(root, n, gate):
    """Record reads of the same bars, beginning when another process does; how many were there before each."""
    from datetime import date

    from ploutos.registry.trials import TrialKind, TrialRegistry, make_trial

    registry, span = TrialRegistry(root), (date(2020, 1, 2), date(2020, 12, 31))
    read = make_trial(TrialKind.HOLDOUT, ["settings", "vote"], "exchange", ("A",), span, "run")
    gate.wait(60)
    return [registry.record_read(read) for _ in range(n)]
