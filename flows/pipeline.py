"""The flows that take bars to a report, whole or one phase at a time.

A phase ends in a folder from which the next one starts: its manifest refers to everything that the phases before have made.
"""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from flows.attempt import begin_attempt
from flows.forms import Phase1Form, Phase2Form, Phase3Form, PipelineForm, RunForm, ValidateForm, WalkForwardForm
from flows.phases import fitted, phase1, phase2, phase3
from flows.stages import at_work
from ploutos.advisor.advisor import make_advisor
from ploutos.preflight import require_surroundings
from ploutos.remote_store import open_store
from ploutos.reporting.run_folder import write_phase
from ploutos.settings import Settings
from ploutos.walk_forward import FOLDS
from tasks.away import only_shown
from tasks.evaluation import report

_DEFAULT, _DEFAULT_WALK, _DEFAULT_FEATURES, _DEFAULT_PLAN = PipelineForm(), WalkForwardForm(), Phase1Form(), ValidateForm()


@flow(name="ploutos-pipeline", persist_result=False)
def pipeline(config: PipelineForm = _DEFAULT) -> Path:
    """Data and features, policies walk-forward, fusion with an advisor; ends in a folder with a report.

    Args:
        config: what to run; from Python, a `PipelineConfig` will do.

    Returns:
        The run's folder.
    """
    return _run(config)


@flow(name="ploutos-walk-forward", persist_result=False)
def walk_forward(config: WalkForwardForm = _DEFAULT_WALK) -> Path:
    """Policies walk-forward and a report, without an advisor: a mock replaces it and nothing is tuned to it."""
    return _run(config)


@flow(name="ploutos-phase-1", persist_result=False)
def phase1_features(config: Phase1Form = _DEFAULT_FEATURES) -> Path:
    """Bars, features and folds; ends in a folder that `phase2_train` starts from."""
    return _run(config)


@flow(name="ploutos-phase-2", persist_result=False)
def phase2_train(config: Phase2Form) -> Path:
    """Policies of every fold, on the features and folds of an earlier run; ends in a folder that `phase3_hybrid` starts from."""
    return _run(config)


@flow(name="ploutos-phase-3", persist_result=False)
def phase3_hybrid(config: Phase3Form) -> Path:
    """Advice, hybrid policies and evaluation, on the policies of an earlier run; ends in a folder with a report."""
    return _run(config)


@flow(name="ploutos-validate", persist_result=False)
def validate(config: ValidateForm = _DEFAULT_PLAN) -> dict[str, Any]:
    """Check a planned run and train nothing: its settings, its bars, its folds, its advisor.

    Returns:
        What the run would do; it is a table in the UI as well.
    """
    begin_attempt()
    settings, chosen = Settings(), config.resolve()
    advisor = make_advisor(chosen.llm, settings)
    with at_work(chosen, settings) as stages:
        refs = phase1(stages, chosen, with_texts=False)  # nobody is asked
        chosen = fitted(stages, refs, chosen)
    n_folds, training = len(stages.store.load(refs.folds, FOLDS)), chosen.training
    plan: dict[str, Any] = {
        "folds": n_folds,
        "policies": n_folds * training.members,
        "hybrid policies, with their ablated copies": 2 * n_folds * chosen.hybrid.members if chosen.with_hybrid else 0,
        "environment steps of a policy": training.planned_timesteps,
        "advisor": advisor.name,
        "device": chosen.hardware.device,
    }
    with only_shown("table of the plan"):
        create_table_artifact([{"what": name, "planned": value} for name, value in plan.items()], key="ploutos-plan")
    return plan


def _run(form: RunForm) -> Path:
    """The phases that a form asks for."""
    begin_attempt()
    settings, config = Settings(), form.resolve()
    require_surroundings(config, settings)
    refs = form.refs(open_store(settings))
    if form.last_phase == 3:
        make_advisor(config.llm, settings)  # a server or a model that is not there ends the run now, not after the training
    with at_work(config, settings) as stages:
        if refs is None:
            refs = phase1(stages, config)
        if form.last_phase > 1:
            config = fitted(stages, refs, config)
            if form.first_phase < 3:
                refs = phase2(stages, refs, config)
        if form.last_phase > 2:
            refs = phase3(stages, refs, config)
    if form.last_phase > 2:
        return report(stages.store, refs, config, settings.runs_root, stages.ended, stages.monitor.usage, stages.asked(config.llm))
    folder = write_phase(refs, config, settings.runs_root, stages.ended, form.last_phase)
    get_run_logger().info("the next phase starts from %s", folder)
    return folder
