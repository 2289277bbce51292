"""Prefect's command, with its log as ours: `python -m deployments.worker worker start` is the worker of `ploutos serve`."""

from prefect.cli import app

from tasks.prefect_log import shorten_log

if __name__ == "__main__":
    shorten_log()
    app()
