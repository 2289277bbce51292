"""One thin Prefect task per library function: a cache key, a log line, an artifact. No logic lives here."""
