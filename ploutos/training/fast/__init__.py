"""Our rollout and update, behind stable-baselines3's interface."""
