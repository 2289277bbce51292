"""Configuration: one tree, one sentence per fault; and the machine that a run finds itself on."""

import os

import pytest
from pydantic import BaseModel

from ploutos.config import PRESETS, PipelineConfig, dump_yaml, load_config
from ploutos.errors import ConfigError, ResourceError
from ploutos.hardware.machine import Gpu, Machine, read_machine, usable_cores
from ploutos.hardware.resources import ResourceSpec, describe, wait_for_resources
from ploutos.hardware.threads import VARIABLES, capped_environment, uncapped

GIB = 1 << 30


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_configuration(preset):
    assert load_config(preset).name == preset


def test_quick_is_a_hundredth_and_test_a_tenth_of_the_steps_in_whole_rollouts():
    full = load_config("full").training
    rollout = full.n_envs * full.n_steps
    for preset, share in (("quick", 0.01), ("test", 0.1), ("full", 1.0)):
        planned = load_config(preset).training.planned_timesteps
        assert planned % rollout == 0
        assert abs(planned - share * full.total_timesteps) <= rollout / 2


def test_an_override_wins_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("training: {members: 7, n_epochs: 2}\n")
    config = load_config("demo", file, ["training.members=9", "data.symbols=[AAPL, IBM]"])
    assert (config.training.members, config.training.n_epochs, config.training.net_arch) == (9, 2, (32, 32))
    assert config.data.symbols == ("AAPL", "IBM")


def test_a_resolved_configuration_reads_back_as_itself(tmp_path):
    config = load_config("demo", overrides=["seed=7", "data.start=2001-05-01"])
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    assert load_config("full", tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.membres=3", "training.membres is not a setting; did you mean training.members"),
        ("trainig.members=3", "trainig is not a setting; did you mean training"),
        ("data.sorce=files", "data.sorce is not a setting; did you mean data.source"),
        ("fusion.risk.cooldwn_bars=3", "fusion.risk.cooldwn_bars is not a setting; did you mean fusion.risk.cooldown_bars"),
        ("training.members=many", "training.members is 'many'; expected a whole number"),
        ("training.members=0", "training.members is 0; expected more than 0"),
        ("data.source=yahooo", "data.source is 'yahooo'; expected sample, files, synthetic, alpaca or yahoo; did you mean yahoo"),
        ("training.batch_size=1000", r"batch_size 1000 does not divide n_envs \* n_steps = 32 \* 128 = 4096"),
        ("training.timesteps_reduction=2", "training.timesteps_reduction is 2; expected 1 or less"),
        ("members", "--set 'members' is not a setting; expected one such as training.members=5"),
        ("seed=[1", "the value cannot be read"),
    ],
)
def test_what_is_wrong_with_a_setting_is_one_clear_sentence(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config("demo", overrides=[override])


def test_what_is_wrong_with_a_file_is_one_clear_sentence(tmp_path):
    with pytest.raises(ConfigError, match="preset 'dmeo' is unknown; use one of demo, quick, test, full"):
        load_config("dmeo")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config("demo", tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match="holds a list; expected sections"):
        load_config("demo", tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml is not valid YAML"):
        load_config("demo", tmp_path / "bad.yaml")


def undescribed(model, prefix=""):
    for name, field in model.model_fields.items():
        if not field.description:
            yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from undescribed(field.annotation, f"{prefix}{name}.")


def test_every_setting_says_what_it_is():
    assert list(undescribed(PipelineConfig)) == []


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_config("demo").training.members = 3


def machine(free_gib, vram_gib=None):
    gpus = () if vram_gib is None else (Gpu("card", 24 * GIB, int(vram_gib * GIB)),)
    return Machine(2, 16 * GIB, int(free_gib * GIB), gpus)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now = 0.0

    def sleep(self, seconds):
        self.now += seconds

    def __call__(self):
        return self.now


def waited_for(readings, **settings):
    clock, readings = Clock(), iter(readings)
    seen = wait_for_resources(ResourceSpec(**settings), read=lambda: next(readings), sleep=clock.sleep, clock=clock)
    return seen, clock.now


def test_the_pause_ends_when_enough_is_free():
    assert waited_for([machine(4)], pause_between_phases=5) == (machine(4), 5)


def test_the_pause_waits_for_memory_and_for_vram():
    seen, waited = waited_for([machine(0.5), machine(0.5), machine(2)], pause_between_phases=0)
    assert (seen, waited) == (machine(2), 4)
    seen, _ = waited_for([machine(4, 1), machine(4, 9)], pause_between_phases=0, min_free_vram_gib=8)
    assert seen == machine(4, 9)


def test_the_pause_gives_up_with_what_it_saw():
    with pytest.raises(ResourceError, match=r"found 0\.5 of 16\.0 GiB RAM free, 2 cores, no GPU .* expected 1\.0 GiB RAM"):
        waited_for([machine(0.5)] * 100, timeout_seconds=20)


def test_the_probe_reads_this_machine():
    found = read_machine()
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert 0 < found.free_bytes <= found.total_bytes
    assert f"{found.cores} cores" in describe(found)


def test_the_caps_cover_every_library():
    assert uncapped(capped_environment(1)) == []
    assert uncapped({"OMP_NUM_THREADS": "1"}) == list(VARIABLES[1:])


def test_masks_and_weights_do_not_go_together():
    assert load_config(overrides=["training.actions=weights"]).training.actions == "weights"
    with pytest.raises(ConfigError, match=r"MaskablePPO masks discrete actions; with training.actions=weights use PPO or RecurrentPPO"):
        load_config(overrides=["training.actions=weights", "training.algorithm=MaskablePPO"])
