"""Searches for settings inside training ranges, and audits of features and track records, one's own or anybody's."""
