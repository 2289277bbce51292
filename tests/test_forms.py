"""The forms of the flows: a configuration in other clothes, with the settings that people change first."""

import pytest
from pydantic import ValidationError

from flows.forms import DatasetForm, Phase1Form, Phase2Form, Phase3Form, PipelineForm, WalkForwardForm
from ploutos.config import PRESETS, PipelineConfig, load_config
from ploutos.errors import ConfigError, StoreError
from ploutos.llm.config import LLMProvider
from ploutos.store import Store

FORMS = [PipelineForm, WalkForwardForm, Phase1Form, Phase2Form, Phase3Form]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_form_a_configuration_and_its_yaml_give_the_same_run(preset):
    config = load_config(preset)
    assert PipelineForm.model_validate(config).resolve() == config
    assert PipelineForm(preset=preset).resolve() == config
    assert PipelineForm.model_validate({"name": preset, **PRESETS[preset]}).resolve() == config
    assert PipelineForm.model_validate(config.model_dump(mode="json")).resolve() == config


def test_first_settings_win_over_groups_and_groups_over_the_preset():
    form = PipelineForm.model_validate({"preset": "quick", "members": 2, "training": {"n_envs": 8, "members": 4}, "symbols": ["IBM"]})
    assert form.resolve() == load_config("quick", overrides=["training.n_envs=8", "training.members=2", "data.symbols=[IBM]"])


def test_a_language_model_is_asked_only_when_it_is_named():
    assert PipelineForm.model_validate({"llm": {"cadence_bars": 7}}).resolve().llm.provider is LLMProvider.MOCK
    assert PipelineForm.model_validate({"advisor": "ollama", "llm": {"model": "a"}}).resolve().llm.provider is LLMProvider.OLLAMA
    shown = PipelineForm.model_json_schema()["$defs"]["_MockUnlessNamed"]["properties"]["provider"]
    assert shown["default"] == "mock"


def test_ten_settings_and_the_start_come_first_and_the_rest_is_in_groups_that_start_empty():
    fields = list(PipelineForm.model_fields)
    first, rest = fields[: fields.index("data")], fields[fields.index("data") :]
    assert first == [
        "preset", "name", "source", "path", "symbols", "start", "end", "advisor", "members", "seed", "auto_resume", "start_phase",
        "from_run",
    ]  # fmt: skip
    assert set(rest) == set(PipelineConfig.model_fields) - {"name", "seed"}
    assert all(PipelineForm.model_fields[name].default is None for name in rest)


@pytest.mark.parametrize("form", [*FORMS, DatasetForm])
def test_every_setting_has_a_title_and_a_line_and_nothing_unknown_is_taken(form):
    schema = form.model_json_schema()
    assert schema["additionalProperties"] is False
    for name, field in form.model_fields.items():
        assert field.title, name
        assert field.description, name
        assert field.description.strip() != field.title
    with pytest.raises(ValidationError, match="membres"):
        form.model_validate({"membres": 1})


def test_settings_of_a_phase_that_is_kept_are_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 7\nevaluation: {replications: 50}\n")
    kept = PipelineForm(start_phase=3, from_run=tmp_path).resolve()
    assert (kept.seed, kept.evaluation.replications) == (7, 50)
    for given in ({"members": 3}, {"seed": 3}, {"data": {}}, {"env": {}}):
        with pytest.raises(ConfigError, match=f"{next(iter(given))} .* leave it empty"):
            PipelineForm.model_validate({"start_phase": 3, "from_run": tmp_path, **given}).resolve()
    assert Phase2Form(from_run=tmp_path, seed=8).resolve().seed == 8
    with pytest.raises(ConfigError, match="from_run is empty"):
        PipelineForm(start_phase=2).resolve()
    with pytest.raises(ConfigError, match="start_phase is 1"):
        PipelineForm(from_run=tmp_path).refs(Store(tmp_path))
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        Phase2Form(from_run=tmp_path).refs(Store(tmp_path))


def test_a_walk_forward_run_has_no_advisor():
    config = WalkForwardForm(preset="quick").resolve()
    assert config.llm.provider is LLMProvider.MOCK
    assert not any([config.llm.mirrors, config.with_hybrid, config.fusion.choose])


def test_a_dataset_needs_symbols_to_download_and_dates_in_order():
    assert DatasetForm(source="alpaca-iex", symbols=("AAPL",)).data.feed == "iex"
    for given in ({"start": "2020-01-01"}, {"end": "2020-01-01"}, {"symbols": ["A"], "start": "2020-02-01", "end": "2020-01-01"}):
        with pytest.raises(ValidationError, match="start"):
            DatasetForm.model_validate(given)
