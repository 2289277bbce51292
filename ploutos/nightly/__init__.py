"""What a night ends in: a decision for the session to come, the log that holds it before the open, and what changed since the last one."""
