"""Policy and advice, fused; risk decides last."""
