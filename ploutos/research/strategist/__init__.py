"""A language model that tunes a rule: it proposes, code backtests, refits, counts, and decides."""
