"""Providers of advice."""
