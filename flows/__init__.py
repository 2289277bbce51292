"""Flows compose tasks; entry points are named by module, as `flows.pipeline.pipeline`.

A script that calls one without a server has Prefect start its own, which sends no telemetry unless it is told to.
"""

import os

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
