"""Flows compose tasks; entry points are named by module, as `flows.pipeline.pipeline`."""
