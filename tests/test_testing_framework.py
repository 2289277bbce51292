"""The testing framework: a report says what was measured, what was not and why, and passes only on what it measured."""

import json
import math
import time

import gymnasium
import pytest
import yaml
from markets import manifest_of, write_policy_file
from typer.testing import CliRunner

from ploutos.cli.main import app
from ploutos.config import PipelineConfig, load_config
from ploutos.config_aliases import KEYS, translate
from ploutos.errors import ConfigError, PoolError
from ploutos.hardware import monitor
from ploutos.run_manifest import write_manifest
from ploutos.testing_framework import EnvironmentStatePool, HardwareMonitor, TestingFramework, create_test_config


def leaves(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


# --- keys of the documents' files


def test_every_key_of_theirs_changes_something_or_says_why_not():
    values = {
        "hardware.device": "cpu", "training.net_arch": [8], "net_arch": {"pi": [8], "vf": [8]}, "performance.batched_logging": True,
        "training.policy_kwargs.net_arch": {"pi": [8], "vf": [8]}, "phase2.total_timesteps": 640, "pipeline.reallocate_resources": False,
        "optimize_memory": True, "hardware.optimize_memory": True, "performance.optimize_memory": True, "dataset_path": "somewhere",
        "train_years": 3, "timesteps_reduction": 0.05, "vectorized_envs": 64, "hardware.vectorized_envs": 64, "batch_size": 512,
        "hardware.batch_size": 512,
    }  # fmt: skip
    for key in KEYS:
        value = values.get(key, True)
        nested = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        if key == "phase3.total_timesteps":
            nested = {"phase2": {"total_timesteps": 100}, "phase3": {"total_timesteps": 50}}
        translated, notes = translate(nested)
        if notes:
            assert not translated, key
            assert notes[0].startswith(f"{key} is accepted and has no effect here: "), key
        else:
            assert PipelineConfig.model_validate(translated) != PipelineConfig(), key


def test_the_documents_steps_are_a_tenth_of_production_and_phase_three_is_a_share_of_them():
    values, _ = translate({"phase2": {"total_timesteps": 50_000}, "phase3": {"total_timesteps": 25_000}})
    config = PipelineConfig.model_validate(values | {"llm": {"provider": "mock"}})
    assert config.training.total_timesteps == 500_000
    assert config.training.planned_timesteps == pytest.approx(50_000, rel=0.1)  # whole rollouts
    assert config.hybrid.timesteps_share == 0.5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "hardware: {batch_size: 512}\ntraining: {batch_size: 256}",
            "sets training.batch_size to 256, and another key",
        ),
        ("net_arch: {pi: [64], vf: [32]}", "policy and value function have the same layers here"),
        ("phase2: {total_timesteps: many}", "phase2.total_timesteps is 'many'; expected a number of steps"),
        ("phase3: {total_timesteps: 25000}", "give phase2.total_timesteps too"),
        ("hardware: {vectorised_envs: 3}", "hardware.vectorised_envs is not a setting"),
        ("training: {policy_kwargs: {activation: relu}}", "training.policy_kwargs is not a setting"),
        ("training:\nvectorized_envs: 64", None),
    ],
)
def test_what_has_no_counterpart_is_refused_in_one_sentence(tmp_path, text, sentence):
    (tmp_path / "theirs.yaml").write_text(text)
    if sentence is None:
        assert load_config("full", tmp_path / "theirs.yaml").training.n_envs == 64
        return
    with pytest.raises(ConfigError) as caught:
        load_config("full", tmp_path / "theirs.yaml")
    assert sentence in str(caught.value)


def test_their_keys_work_on_the_command_line_too(caplog):
    config = load_config("full", overrides=["hardware.vectorized_envs=64", "phase1.gpu_usage=0.3"])
    assert config.training.n_envs == 64
    assert caplog.messages == [
        "phase1.gpu_usage is accepted and has no effect here: how busy a GPU is cannot be set; manifest.json and hardware.csv say how "
        "busy it was"
    ]


def test_our_own_files_are_read_as_before(tmp_path):
    config = load_config("demo", overrides=["training.members=2"])
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config("full", tmp_path / "ours.yaml") == config


# --- configurations of a mode


def test_a_mode_is_its_preset_a_tenth_of_the_steps_and_simulated_bars_of_its_market():
    config = create_test_config("hardware-maximized", "NQ, ES")
    assert (config.mode, config.run.name, config.run.data.source) == ("hardware_maximized", "hardware_maximized", "synthetic")
    assert config.run.data.symbols == ("NQ", "ES")
    assert config.run.training.timesteps_reduction == 0.1
    assert config.run.hardware.autoscale
    assert create_test_config("pipeline", quick=True).run.training.timesteps_reduction == 0.01
    assert create_test_config("pipeline").run.data.symbols == ("NQ",)


def test_a_file_stands_above_a_mode_and_what_is_asked_for_above_the_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {source: sample, symbols: [IBM]}\ntraining: {timesteps_reduction: 0.5}")
    config = create_test_config("pipeline", file=tmp_path / "mine.yaml").run
    assert (config.data.source, config.data.symbols, config.training.timesteps_reduction) == ("sample", ("IBM",), 0.5)
    asked = create_test_config("pipeline", "AAPL", tmp_path / "mine.yaml", ["training.members=1"], quick=True).run
    assert (asked.data.symbols, asked.training.timesteps_reduction, asked.training.members) == (("AAPL",), 0.01, 1)
    with pytest.raises(ConfigError, match="mode 'turbo' is unknown; use one of hardware_maximized, pipeline"):
        create_test_config("turbo")


# --- what is said of a run


class OneGpu:
    """Stands for NVML with one device that is so busy."""

    NVMLError = RuntimeError

    def __init__(self, percent):
        self.percent = percent

    def __getattr__(self, name):
        return {"nvmlDeviceGetCount": lambda: 1, "nvmlDeviceGetUtilizationRates": lambda _: type("Rates", (), {"gpu": self.percent})}.get(
            name, lambda *_: type("Answer", (), {"used": 3 << 30})
        )


def ran(folder, stages, timesteps=(1000, 24)):
    """What a run leaves, as far as a report reads it."""

    def run(config):
        for number, steps in enumerate(timesteps):
            place = folder / "folds" / str(number) / "seed_0"
            place.mkdir(parents=True, exist_ok=True)
            write_policy_file(place / "policy.zip", timesteps=steps)
        write_manifest(manifest_of(stages=stages), folder)
        time.sleep(0.02)
        return folder

    return run


TRAINED = {"bars": "Cached", "policy 0 0": "Completed"}


def test_without_a_gpu_the_report_says_not_evaluated_and_passes_on_what_was_measured(tmp_path):
    framework = TestingFramework(create_test_config("hardware_maximized"), ran(tmp_path, TRAINED))
    framework.hardware_monitor = HardwareMonitor(1, nvml=NoGpu())
    assert math.isnan(framework.total_time)
    report = framework.run_hardware_maximized_validation()
    assert f"{framework.hardware_monitor.get_average_gpu_utilization():.1f}%" == "nan%"
    assert (report.gpu_utilization, report.cache_hit_rate) == (None, None)
    assert report.targets["gpu_utilization"].reason == "not evaluated: no GPU, or one that does not report it"
    assert report.targets["cache_hit_rate"].met is None
    assert report.targets["execution_time"].met is True
    assert report.timesteps_completed == 1024
    assert report.execution_time == framework.total_time >= 0.02
    assert report.validation_passed is True
    report.save(tmp_path / "logs" / "report.json")
    written = json.loads((tmp_path / "logs" / "report.json").read_text())
    document = ["test_name", "gpu_utilization", "execution_time", "cache_hit_rate", "peak_memory_gb", "timesteps_completed"]
    assert list(written)[:7] == [*document, "validation_passed"]
    assert written["gpu_utilization"] is None


class NoGpu:
    """Stands for NVML without a driver."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self):
        raise self.NVMLError


@pytest.mark.parametrize(("percent", "met"), [(97, True), (60, False)])
def test_a_gpu_that_idles_misses_its_target(tmp_path, percent, met):
    framework = TestingFramework(create_test_config("hardware_maximized"), ran(tmp_path, TRAINED))
    framework.hardware_monitor = HardwareMonitor(1, nvml=OneGpu(percent))
    report = framework.run_hardware_maximized_validation()
    assert report.gpu_utilization == percent
    assert report.targets["gpu_utilization"].met is met
    assert report.validation_passed is met


def test_work_that_was_found_in_the_store_is_no_measurement(tmp_path):
    framework = TestingFramework(create_test_config("pipeline"), ran(tmp_path, {"policy 0 0": "Cached", "hybrid 0 0": "Completed"}))
    report = framework.run_automated_pipeline()
    assert report.validation_passed is False
    assert report.targets["execution_time"].met is None
    assert "1 trainings came from the store (policy 0 0 first)" in report.targets["execution_time"].reason


def test_a_run_that_started_from_a_later_phase_did_not_do_the_whole_work(tmp_path):
    report = TestingFramework(create_test_config("pipeline"), ran(tmp_path, {"policy 0 0": "Completed"})).run_automated_pipeline()
    assert report.targets["execution_time"].reason == "not evaluated: the run started from a later phase"
    assert not report.validation_passed


def test_a_file_that_names_a_source_has_all_of_its_symbols(tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {source: sample}")
    assert create_test_config("pipeline", file=tmp_path / "mine.yaml").run.data.symbols == ()


def test_a_run_above_its_time_or_memory_is_not_passed(tmp_path):
    config = create_test_config("hardware_maximized")
    for limit in ({"execution_time": 0.001}, {"peak_memory_gb": 0.001}):
        tight = config.model_copy(update={"targets": config.targets.model_copy(update=limit)})
        framework = TestingFramework(tight, ran(tmp_path, TRAINED))
        framework.hardware_monitor = HardwareMonitor(1, nvml=NoGpu())
        report = framework.run_hardware_maximized_validation()
        assert [name for name, found in report.targets.items() if found.met is False] == list(limit)
        assert not report.validation_passed


def test_a_configuration_of_another_mode_is_refused(tmp_path):
    framework = TestingFramework(create_test_config("pipeline"), ran(tmp_path, {}))
    with pytest.raises(ConfigError, match=r"for mode pipeline; make one with create_test_config\('hardware_maximized'\)"):
        framework.run_hardware_maximized_validation()


def test_the_original_monitor_keeps_its_unit():
    ours, theirs = (kind(1, nvml=OneGpu(50)) for kind in (monitor.HardwareMonitor, HardwareMonitor))
    for each in (ours, theirs):
        each.start_monitoring()
        each.stop_monitoring()
    assert (ours.get_average_gpu_utilization(), theirs.get_average_gpu_utilization()) == (0.5, 50)


def test_a_loan_is_given_back_once():
    pool = EnvironmentStatePool(gymnasium.make, {"id": "CartPole-v1"}, pool_size=1)
    first, env = pool.acquire()
    pool.release(first)
    second, again = pool.acquire()
    assert again is env
    with pytest.raises(PoolError, match=f"no environment {first} is in use"):
        pool.release(first)  # it would take the environment from whoever has it now
    pool.release(second)
    pool.close()


# --- the command


@pytest.mark.parametrize(("state", "code"), [("Completed", 0), ("Cached", 1)])
def test_the_command_ends_with_0_on_what_it_measured_and_with_1_otherwise(tmp_path, monkeypatch, state, code):
    monkeypatch.setattr("ploutos.testing_framework._run_flow", ran(tmp_path, {"bars": "Cached", "policy 0 0": state}))
    monkeypatch.setattr("ploutos.testing_framework.HardwareMonitor", lambda interval: HardwareMonitor(interval, nvml=NoGpu()))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    output = tmp_path / "logs" / "validation_report.json"
    result = CliRunner().invoke(app, ["validate", "--market", "YM", "--quick", "--output", str(output)])
    assert result.exit_code == code, result.output
    assert "the bars of YM are simulated" in result.stderr
    assert f"Hardware-Maximized Validation: {'passed' if code == 0 else 'not passed'}" in result.stdout
    assert "gpu_utilization > 90: not evaluated: no GPU" in result.stdout
    assert json.loads(output.read_text())["validation_passed"] is (code == 0)
