"""The flow that contacts a vendor; no other one does."""

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.attempt import begin_attempt
from flows.forms import DatasetForm
from tasks.away import only_shown
from tasks.market import download_bars

_UPDATE = DatasetForm()


@flow(name="ploutos-build-dataset", persist_result=False)
def build_dataset(config: DatasetForm = _UPDATE) -> list[dict[str, Any]]:
    """Download a vendor's bars into the local dataset, or bring it up to date; run it again to continue after an interruption.

    Returns:
        A row per symbol; it is a table in the UI as well.
    """
    begin_attempt()
    rows = download_bars(config.data, config.start, config.end, config.allow_partial)
    with only_shown("table of the dataset"):
        create_table_artifact(rows, key="ploutos-dataset", description="Bars in the local dataset")
    return rows
