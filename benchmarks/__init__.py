"""Speed and memory, compared as ratios within one run."""
