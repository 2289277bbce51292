"""What the flows are given: one form each, whose first settings are those that people change and whose rest is in optional groups.

A group that is left empty is as the preset says; one that is given counts for what it names, and for nothing else. The first settings win
over the groups. A form is a run's configuration in other clothes: `resolve` makes a `PipelineConfig` of it, a plain `PipelineConfig` can
be given in its place, and so can any YAML that makes one.
"""

from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ploutos.advisor.config import LLMConfig
from ploutos.config import PRESETS, HardwareSpec, PipelineConfig, load_config, make_config, merge
from ploutos.envs.spec import EnvSpec
from ploutos.errors import ConfigError
from ploutos.evaluation.spec import EvaluationSpec
from ploutos.features.build import FeatureSpec
from ploutos.fusion.spec import FusionSpec, HybridSpec
from ploutos.hardware.resources import ResourceSpec
from ploutos.llm.config import LLMProvider
from ploutos.market.data_spec import DataSpec, SourceName
from ploutos.run_manifest import read_refs
from ploutos.run_refs import RunRefs
from ploutos.specs import Spec
from ploutos.store import Store
from ploutos.strategies.spec import RegressionSpec
from ploutos.training.spec import CheckpointSpec, LogSpec, TrainingSpec
from ploutos.walk_forward import FoldSpec

Preset = Literal["demo", "quick", "test", "full", "hardware_maximized"]
_PATHS = {
    "source": "data.source", "path": "data.path", "symbols": "data.symbols", "start": "data.start", "end": "data.end",
    "members": "training.members", "advisor": "llm.provider", "auto_resume": "checkpoint.auto_resume",
}  # fmt: skip
"""Where a first setting stands in the configuration, if not under its own name."""
_OF_PHASE = {1: ("data", "features", "folds"), 2: ("env", "training", "regression"), 3: ("llm", "fusion", "hybrid", "evaluation")}


def fixed_before(phase: int) -> list[str]:
    """Sections of a configuration that earlier phases have fixed; the seed is one of them once policies are trained."""
    return [name for before, names in _OF_PHASE.items() if before < phase for name in names] + (["seed"] if phase == 3 else [])


class RunForm(Spec):
    """What all forms of a run share.

    Pydantic lists the fields of the last base first, so a form names its bases from the last group to the first settings.
    """

    last_phase: ClassVar[int] = 3

    name: str | None = Field(default=None, title="Name")
    """Label of the run, part of its folder's name; empty takes the preset's, or the earlier run's."""

    @model_validator(mode="before")
    @classmethod
    def _of_a_configuration(cls, value: Any) -> Any:
        if isinstance(value, PipelineConfig):
            value = {name: getattr(value, name) for name in PipelineConfig.model_fields if name in cls.model_fields}
            return value | ({"llm": value["llm"].model_dump(exclude_unset=True)} if "llm" in value else {})
        return value

    @property
    def first_phase(self) -> int:
        """The phase that the run starts with."""
        return 1

    @property
    def earlier(self) -> Path | None:
        """Folder of the run that it continues."""
        return None

    def resolve(self) -> PipelineConfig:
        """The run's configuration.

        Raises:
            ConfigError: settings contradict each other, or belong to a phase that the run does not repeat.
        """
        given = {name: value for name, value in self.model_dump(exclude_unset=True).items() if value is not None}
        values = merge(self._base(), {name: value for name, value in given.items() if name in PipelineConfig.model_fields})
        for name, path in _PATHS.items():
            if name in given:
                section, key = path.split(".")
                values = merge(values, {section: {key: given[name]}})
        return make_config(values)

    def refs(self, store: Store) -> RunRefs | None:
        """What an earlier run made in the phases that are not repeated; None where all are."""
        return None if self.earlier is None else read_refs(self.earlier, self.first_phase - 1, store)

    def _base(self) -> dict[str, Any]:
        """What holds where nothing is given: an earlier run's settings, or a preset."""
        if self.first_phase > 1:
            self._refuse_fixed()
            if self.earlier is None:
                raise ConfigError(f"start_phase is {self.first_phase}, but from_run is empty; name the folder of the run to go on from")
            return load_config("full", self.earlier / "config.yaml").model_dump(mode="json", exclude={"out"})
        preset = getattr(self, "preset", "full")
        return {"name": preset, **PRESETS[preset]}

    def _refuse_fixed(self) -> None:
        """Settings of a phase that is not repeated are those of the earlier run."""
        fixed = fixed_before(self.first_phase)
        for name in self.model_fields_set:
            section = _PATHS.get(name, name).split(".")[0]
            if section in fixed and getattr(self, name) is not None:
                raise ConfigError(f"{name} is fixed by an earlier phase of {self.earlier}; leave it empty, or start from that phase")


class _Market(Spec):
    source: SourceName | None = Field(default=None, title="Source of bars")
    """sample (ships with ploutos), files (your own), synthetic, or a vendor whose bars are in the local dataset."""
    path: Path | None = Field(default=None, title="File or folder of bars")
    """For source files."""
    symbols: tuple[str, ...] | None = Field(default=None, title="Symbols")
    """Which to trade, futures by their root (NQ); empty means all symbols of the source."""
    start: date | None = Field(default=None, title="First session")
    """Empty means the source's first."""
    end: date | None = Field(default=None, title="Last session")
    """Empty means the source's last."""


class _Start(Spec):
    preset: Preset = Field(default="full", title="Preset")
    """demo takes minutes; quick trains 1 % of the steps, test 10 %, full all of them."""


class _Members(Spec):
    members: PositiveInt | None = Field(default=None, title="Policies per fold")
    """They differ in their seed and vote; 5 in full."""
    seed: NonNegativeInt | None = Field(default=None, title="Seed")
    """Root of every random number; 42 unless given."""
    auto_resume: bool | None = Field(default=None, title="Continue from checkpoints")
    """Continue trainings that were interrupted (the default), or train from the start."""


class _Advisor(Spec):
    advisor: LLMProvider | None = Field(default=None, title="Advisor")
    """mock (a fixed rule, the default), ollama, or openai: any server with that API."""


class _Again(Spec):
    start_phase: Literal[1, 2, 3] = Field(default=1, title="Start from phase")
    """1 data and features, 2 training, 3 advice and evaluation; what comes before is taken from the earlier run."""
    from_run: Path | None = Field(default=None, title="Earlier run")
    """Folder of the run whose first phases are kept; needed to start from phase 2 or 3."""


class _Phase1(Spec):
    data: DataSpec | None = Field(default=None, title="Phase 1: bars")
    """All settings of the bars."""
    features: FeatureSpec | None = Field(default=None, title="Phase 1: features")
    """Which features are built."""
    folds: FoldSpec | None = Field(default=None, title="Phase 1: walk-forward folds")
    """Years and months of training, validation and test; bars dropped between them."""


class _Phase2(Spec):
    env: EnvSpec | None = Field(default=None, title="Phase 2: account, costs, reward")
    """The account's rules, and what trading costs."""
    training: TrainingSpec | None = Field(default=None, title="Phase 2: training")
    """The agent, its network, its steps."""
    regression: RegressionSpec | None = Field(default=None, title="Phase 2: supervised models")
    """Models fitted beside the policies."""


class _MockUnlessNamed(LLMConfig):
    """The advisor, as `PipelineConfig` reads it: the mock unless a provider is named."""

    provider: LLMProvider = LLMProvider.MOCK
    """ollama, openai (any server with OpenAI's API) or mock, which is a fixed rule and not a language model."""


class _Reader(Spec):
    llm: _MockUnlessNamed | None = Field(default=None, title="Phase 1: language model")
    """Reads data.texts, where there are any."""


class _Phase3(Spec):
    llm: _MockUnlessNamed | None = Field(default=None, title="Phase 3: language model")
    """The advisor's server, model and cadence."""
    fusion: FusionSpec | None = Field(default=None, title="Phase 3: fusion and risk")
    """How advice and policies become one decision."""
    hybrid: HybridSpec | None = Field(default=None, title="Phase 3: hybrid policies")
    """Policies that observe the advice."""


class _Judged(Spec):
    evaluation: EvaluationSpec | None = Field(default=None, title="Evaluation")
    """Intervals, stress tests, gates."""


class _Machine(Spec):
    hardware: HardwareSpec | None = Field(default=None, title="Machine")
    """Processes and device."""
    pipeline: ResourceSpec | None = Field(default=None, title="Pause between phases")
    """Seconds to wait, and memory that must be free, GiB."""
    checkpoint: CheckpointSpec | None = Field(default=None, title="Checkpoints")
    """How often trainings are saved."""
    logging: LogSpec | None = Field(default=None, title="Logs")
    """Logs of trainings."""
    out: Path | None = Field(default=None, title="Output folder")
    """Where to write the run; empty makes a folder under $PLOUTOS_HOME/runs."""


class PipelineForm(_Machine, _Judged, _Phase3, _Phase2, _Phase1, _Again, _Members, _Advisor, _Market, RunForm, _Start):
    """Bars to report."""

    @property
    def first_phase(self) -> int:
        return self.start_phase

    @property
    def earlier(self) -> Path | None:
        if self.from_run is not None and self.start_phase == 1:
            raise ConfigError(
                "from_run is given and start_phase is 1, which repeats everything; start from phase 2 or 3, or leave from_run empty"
            )
        return self.from_run


class ValidateForm(_Machine, _Judged, _Phase3, _Phase2, _Phase1, _Members, _Advisor, _Market, RunForm, _Start):
    """A planned run."""


class WalkForwardForm(_Machine, _Judged, _Phase2, _Phase1, _Members, _Market, RunForm, _Start):
    """Bars to report without an advisor."""

    def _base(self) -> dict[str, Any]:
        alone = {"llm": {"provider": "mock", "mirror": False}, "hybrid": {"enabled": False}, "fusion": {"choose": False}}
        return merge(super()._base(), alone)


class Phase1Form(_Machine, _Reader, _Phase1, _Market, RunForm, _Start):
    """Bars, features and folds."""

    last_phase: ClassVar[int] = 1


class _GoesOn(RunForm):
    from_run: Path = Field(title="Earlier run")
    """Folder of the run, or of its last phase, to continue."""

    @property
    def earlier(self) -> Path | None:
        return self.from_run


class Phase2Form(_Machine, _Phase2, _Members, _GoesOn):
    """Training on an earlier run's features and folds."""

    last_phase: ClassVar[int] = 2

    @property
    def first_phase(self) -> int:
        return 2


class Phase3Form(_Machine, _Judged, _Phase3, _Advisor, _GoesOn):
    """Advice, fusion and evaluation on an earlier run's policies."""

    @property
    def first_phase(self) -> int:
        return 3


class DatasetForm(Spec):
    """Bars of a vendor for the local dataset."""

    source: Literal["alpaca", "alpaca-iex", "yahoo"] = Field(default="yahoo", title="Vendor")
    """alpaca is the tape of all exchanges, alpaca-iex one of them."""
    symbols: tuple[str, ...] = Field(default=(), title="Symbols")
    """Futures by their root (NQ); empty updates all stored ones."""
    start: date | None = Field(default=None, title="First session")
    """Download what is missing from this day on; empty brings stored series up to date."""
    end: date | None = Field(default=None, title="End date")
    """Exclusive; empty means now."""
    timeframe: str = Field(default="1h", title="Bar length")
    """15min, 1h or 1D."""
    adjustment: Literal["total_return", "raw"] = Field(default="total_return", title="Adjustment")
    """total_return adjusts for splits and dividends."""
    allow_partial: bool = Field(default=False, title="Accept failed symbols")
    """Store the symbols that arrived even if others failed."""

    @model_validator(mode="after")
    def _dates_are_in_order(self) -> "DatasetForm":
        if self.start is not None and not self.symbols:
            raise ValueError(f"start is {self.start} and symbols is empty; name the symbols to download, or leave start empty to update")
        if self.start is None and self.end is not None:
            raise ValueError(f"end is {self.end} without a start; give both, or neither to update")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        return self

    @property
    def data(self) -> DataSpec:
        """The settings of a run that would read the same series."""
        vendor, _, feed = self.source.partition("-")
        data = {"source": vendor, "symbols": self.symbols, "timeframe": self.timeframe, "adjustment": self.adjustment}
        return make_config({"data": data | ({"feed": feed} if feed else {})}).data
