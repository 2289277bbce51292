"""A language model tunes a rule, turn by turn, and code decides what that was worth."""

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_link_artifact

from flows.attempt import end_temporary_server_with_us
from ploutos.config import PipelineConfig
from ploutos.interrupt import end_at_once_again
from ploutos.remote_store import open_store
from ploutos.reporting.strategist_page import new_folder, write_strategist
from ploutos.research.strategist.spec import StrategistSpec
from ploutos.settings import Settings
from tasks.away import only_shown
from tasks.links import link_to
from tasks.market import load_bars
from tasks.prefect_log import shorten_log
from tasks.strategist import optimize_rule

DEFAULT, LIMITS = PipelineConfig(), StrategistSpec()


@flow(name="optimize-strategy", persist_result=False)
def optimize_strategy(config: PipelineConfig = DEFAULT, spec: StrategistSpec = LIMITS) -> Path:
    """Search for a rule's parameters; of the configuration, `data`, `env`, `llm`, `seed` and `out` are read.

    Returns:
        A folder with strategist.html and strategist.json.
    """
    shorten_log()
    end_at_once_again()
    end_temporary_server_with_us()
    settings = Settings()
    store, folder = open_store(settings), new_folder(settings.runs_root, config.out, spec)
    bars = load_bars(store, config.data, settings.datasets_root).result()
    result = optimize_rule(store, bars, config, spec, settings.registry_root)
    page = write_strategist(result, config, spec, folder)
    with only_shown("link to the page"):
        create_link_artifact(link_to(page), link_text="strategist.html", key="ploutos-strategist-page")
    return folder
