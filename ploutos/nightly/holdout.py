"""The bars that no fold touches, read once: the one test whose outcome nothing was chosen by.

The last fold's policies decide over them, as they would have on the nights. A read is recorded before its result is shown, for every run of
the home: whoever reads again, or reads with another run, is told how often these bars were read before, and only the first read counts.
"""

from dataclasses import replace
from datetime import date
from pathlib import Path

from ploutos.advisor.advisor import advise, make_advisor
from ploutos.config import PipelineConfig, load_config
from ploutos.envs.spec import with_initial_cash
from ploutos.errors import ConfigError
from ploutos.evaluation.backtest import Segment, run_backtests
from ploutos.evaluation.metrics import measure, periods_of, ruin_date
from ploutos.evaluation.skill import against_benchmark
from ploutos.evaluation.summary import AgainstBenchmark, PathMetrics, read_summary
from ploutos.features.llm_features import MARKET_FEATURES
from ploutos.fusion.hybrid import hybrid_env
from ploutos.nightly.decision import DecisionInputs, observed, strategy_of
from ploutos.nightly.night import decision_inputs
from ploutos.registry.recording import market_of, settings_digest, span_of
from ploutos.registry.trials import TrialKind, TrialRegistry, make_trial
from ploutos.run_manifest import read_refs
from ploutos.settings import Settings
from ploutos.specs import Spec
from ploutos.store import Store
from ploutos.strategies.advised import FUSED
from ploutos.strategies.base import PrecomputedTargets, Role, account_ids
from ploutos.strategies.baselines import BUY_AND_HOLD, buy_and_hold
from ploutos.strategies.ensemble import HYBRID
from ploutos.walk_forward import FoldSpec, Range, holdout

_FEWEST = 20


class HoldoutRead(Spec):
    """What the held-out bars said."""

    subject: str
    """Slug of what decided."""
    first: date
    """First session held out."""
    last: date
    """Last one."""
    read_before: int
    """Times that some of these bars were read before, by any run of this home; 0 is the read that counts."""
    own: PathMetrics
    """Of the subject."""
    benchmark: PathMetrics
    """Of buy and hold."""
    against: AgainstBenchmark
    """The subject against buy and hold, corrected for the number of measures."""


def held_out(inputs: DecisionInputs, spec: FoldSpec) -> Range:
    """The bars that a run holds out.

    Raises:
        ConfigError: none, or too few to say anything.
    """
    part = holdout(inputs.bars, spec)
    if part.n_bars < _FEWEST:
        raise ConfigError(
            f"the run holds out {part.n_bars} bars; expected at least {_FEWEST}: plan a run with folds.holdout_months, such as 12"
        )
    return part


def inputs_of_run(store: Store, folder: Path, settings: Settings) -> tuple[DecisionInputs, PipelineConfig]:
    """The inputs of a run's subject, and the run's settings; a subject that takes advice is given it for the bars held out, too.

    Raises:
        StoreError: the folder is not that of a finished run, or an artifact is gone.
        LLMError: the advisor cannot be asked.
    """
    refs, config = read_refs(folder, 3, store), load_config("full", folder / "config.yaml")
    subject = read_summary(folder / "metrics.json").subject.slug
    inputs = decision_inputs(store, refs, config, subject, None)
    if subject not in (FUSED.slug, HYBRID.slug):
        return inputs, config
    part, market = held_out(inputs, config.folds), store.load(refs.require("llm_features"), MARKET_FEATURES)
    advisor, last = make_advisor(config.llm, settings), inputs.bars.n_bars - 1
    signals = advise(inputs.bars, market, max(part.start - 1, 0), last, advisor, config.env)
    return replace(inputs, signals=signals), config


def read_holdout(inputs: DecisionInputs, config: PipelineConfig, registry: TrialRegistry) -> HoldoutRead:
    """Let a run's subject decide over the bars that it held out, and record that they were read.

    Args:
        inputs: of the run, its advice up to the last bar.

    Raises:
        ConfigError: the run holds out nothing, or has no such subject.
    """
    bars, part = inputs.bars, held_out(inputs, config.folds)
    span, market = span_of(bars, part), market_of(config.data)
    read = make_trial(
        TrialKind.HOLDOUT, [settings_digest(config), inputs.subject], market, bars.symbols, span, settings_digest(config),
        facts={"subject": inputs.subject},
    )  # fmt: skip
    before = registry.record_read(read)
    last = inputs.folds[-1].model_copy(update={"test": part})
    alone = replace(
        inputs,
        folds=(last,),
        policies=inputs.policies[-1:],
        models=inputs.models[-1:],
        hybrids=inputs.hybrids[-1:],
        choices=inputs.choices[-1:],
    )
    env = with_initial_cash(hybrid_env(inputs.env) if inputs.subject == HYBRID.slug else inputs.env, bars, part)
    features, by_fold = observed(alone)
    strategy = strategy_of(alone, features, env)
    hold = PrecomputedTargets(BUY_AND_HOLD, buy_and_hold(bars, part.start - 1, env), Role.BASELINE)
    result = run_backtests(bars, features, [Segment(part, by_fold[-1] if by_fold else ())], [strategy, hold], env)
    own, periods = account_ids([strategy])[0].slug, periods_of(bars, result)
    rows = [measure(result, result.row(slug), periods) for slug in (own, BUY_AND_HOLD)]
    all_count = periods.ends[1:] > 0
    against = against_benchmark(
        result, own, BUY_AND_HOLD, periods, all_count, config.evaluation, config.seed, ruin_date(bars, result, own) is not None
    )
    return HoldoutRead(
        subject=inputs.subject, first=span[0], last=span[1], read_before=before, own=rows[0], benchmark=rows[1], against=against
    )
