"""What a policy reads: causal, scale-free features, and the scaler fitted on training rows only."""
