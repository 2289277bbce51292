"""Walk-forward training: folds, PPO members, checkpoints, and the worker processes they run in."""
