"""Searches for settings, inside training ranges."""
