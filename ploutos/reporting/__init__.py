"""Sentences, tables and pages for people; nothing else makes any."""
