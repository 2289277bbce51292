"""Bars: where they come from, when they are known, and whether they can be trusted."""
