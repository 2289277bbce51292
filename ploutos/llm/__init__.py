"""The advisor: typed briefs in, validated advice out, signals kept as an artifact."""
