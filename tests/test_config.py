"""Configuration: one tree, one sentence per fault; and the machine that a run finds itself on."""

import os
from dataclasses import replace

import pytest
from pydantic import BaseModel

from ploutos.config import PRESETS, PipelineConfig, dump_yaml, load_config
from ploutos.errors import ConfigError, ResourceError
from ploutos.hardware.machine import Gpu, Machine, read_machine, usable_cores
from ploutos.hardware.resources import Held, ResourceSpec, describe, describe_pause, read_held, reallocate, wait_for_resources
from ploutos.hardware.threads import VARIABLES, capped_environment, uncapped
from ploutos.resolve import gpu_share

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


def test_a_pause_gives_memory_back_and_measures_it():
    held = [bytearray(1 << 12) for _ in range(1 << 15)]  # 128 MiB in pieces that Python's own heap would keep
    before = read_held(read_machine())
    held.clear()
    pause = reallocate("phase 2", ResourceSpec(pause_between_phases=0, min_free_ram_gib=0), before, lambda: pytest.fail("no need"), False)
    assert pause.freed_bytes > 64 << 20
    assert pause.free_bytes > 0
    assert pause.freed_vram_bytes is before.free_vram_bytes is None or pause.freed_vram_bytes is not None
    assert f"{pause.freed_bytes / 2**20:,.0f} MiB given back" in describe_pause(replace(pause, freed_vram_bytes=None))


def test_what_is_dear_is_given_back_where_memory_is_short_or_a_gpu_was_used():
    asked, spec, before = [], ResourceSpec(pause_between_phases=0), Held(0, None)
    for name, free_gib, always in (("idle", 4, False), ("gpu", 4, True), ("short", 0.5, False)):
        readings = iter([machine(free_gib), machine(4)][always:])
        reallocate("phase 3", spec, before, lambda name=name: asked.append(name), always, lambda readings=readings: next(readings))
    assert asked == ["gpu", "short"]


def test_what_a_model_leaves_on_the_gpu_is_counted():
    pause = reallocate("phase 2", ResourceSpec(pause_between_phases=0), Held(0, 8 * GIB), lambda: None, False, lambda: machine(4, 20))
    assert pause.freed_vram_bytes == 12 << 30
    assert "12,288 MiB VRAM given back" in describe_pause(pause)


def test_a_share_of_the_gpu_is_divided_among_the_processes_of_a_phase():
    settings = ["pipeline.gpu_usage_phase2=0.8", "pipeline.gpu_usage_phase3=0.6", "hardware.workers=4"]
    config = load_config("full", overrides=settings)
    assert gpu_share(config, "policy") == pytest.approx(0.2)
    assert gpu_share(config, "hybrid") == gpu_share(config, "ablated") == pytest.approx(0.15)
    assert gpu_share(load_config("full", overrides=[*settings, "hardware.runner=workers"]), "policy") == 0.8
    assert gpu_share(load_config("full"), "policy") is None
    with pytest.raises(ConfigError, match="gpu_usage_phase2"):
        load_config("full", overrides=["pipeline.gpu_usage_phase2=1.2"])


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
