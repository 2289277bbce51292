"""Providers of answers."""
