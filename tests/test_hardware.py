"""The machine as containers show it, the sizes that fit it, and what a run took of it."""

import csv
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer

from ploutos.config import PRESETS, dump_yaml, load_config
from ploutos.errors import ResourceError
from ploutos.hardware.cgroup import Limits, read_limits
from ploutos.hardware.machine import Gpu, Machine, read_gpus, usable_cores, usable_memory
from ploutos.hardware.monitor import NOT_EVALUATED, HardwareMonitor, Sample, describe_usage, read_process_usage
from ploutos.resolve import resolve_for_machine
from ploutos.training.autoscale import (
    DEFAULT_REQUEST,
    TrainingSizes,
    Workload,
    autoscale,
    largest_divisor,
    minibatch_bytes,
    rollout_bytes,
    training_bytes,
)

GIB, GB = 1 << 30, 10**9
UNLIMITED_V1 = "9223372036854771712"


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def v2_tree(root: Path, group: str, **files: str) -> Path:
    """A unified hierarchy; file names are `level__name` with dots as they are, level "" for the top."""
    return plant(
        root,
        {
            "proc/self/cgroup": f"0::{group}",
            "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate",
            **{f"sys/fs/cgroup{name}": text for name, text in files.items()},
        },
    )


def test_without_control_groups_there_are_no_limits(tmp_path):
    assert read_limits(tmp_path) == Limits()


def test_version_2_is_read_with_quota_cpuset_and_memory_less_cache(tmp_path):
    v2_tree(
        tmp_path, "/job",
        **{
            "/job/cpu.max": "250000 100000", "/job/cpuset.cpus.effective": "0-2,7", "/job/memory.max": str(4 * GIB),
            "/job/memory.current": str(3 * GIB), "/job/memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file 7",
        },
    )  # fmt: skip
    assert read_limits(tmp_path) == Limits(2.5, frozenset({0, 1, 2, 7}), 4 * GIB, 2 * GIB)


def test_a_limit_on_any_level_counts_and_the_smallest_wins(tmp_path):
    v2_tree(
        tmp_path, "/slice/pod/job",
        **{
            "/slice/cpu.max": "800000 100000", "/slice/pod/cpu.max": "150000 50000", "/slice/pod/job/cpu.max": "max 100000",
            "/slice/memory.max": str(8 * GIB), "/slice/memory.current": str(7 * GIB),
            "/slice/pod/job/memory.max": str(2 * GIB), "/slice/pod/job/memory.current": "0",
        },
    )  # fmt: skip
    found = read_limits(tmp_path)
    assert found.cpus == 3.0
    assert (found.memory_bytes, found.memory_free_bytes) == (2 * GIB, 1 * GIB)  # the slice has one left, the job two


V1_MOUNTS = "\n".join(
    f"{30 + n} 23 0:{28 + n} {{root}} /sys/fs/cgroup/{name} rw,relatime shared:{n} - cgroup cgroup rw,{name}"
    for n, name in enumerate(("cpu,cpuacct", "cpuset", "memory"))
)
V1_GROUPS = "4:memory:/docker/abc\n3:cpuset:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/"
V1_FILES = {
    "cpu,cpuacct{at}/cpu.cfs_quota_us": "150000",
    "cpu,cpuacct{at}/cpu.cfs_period_us": "100000",
    "cpuset{at}/cpuset.cpus": "4-5",
    "memory{at}/memory.limit_in_bytes": str(GIB),
    "memory{at}/memory.usage_in_bytes": str(GIB // 2),
    "memory{at}/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 4}",
}


@pytest.mark.parametrize(("mount_root", "at"), [("/", "/docker/abc"), ("/docker/abc", ""), ("/docker/other", "")])
def test_version_1_is_read_from_the_host_from_inside_a_container_and_from_a_sibling_view(tmp_path, mount_root, at):
    plant(
        tmp_path,
        {
            "proc/self/cgroup": V1_GROUPS,
            "proc/self/mountinfo": V1_MOUNTS.format(root=mount_root),
            **{f"sys/fs/cgroup/{name.format(at=at)}": text for name, text in V1_FILES.items()},
        },
    )
    assert read_limits(tmp_path) == Limits(1.5, frozenset({4, 5}), GIB, GIB // 2 + GIB // 4)


def test_version_1_says_no_limit_with_minus_one_and_with_more_than_any_memory(tmp_path):
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    files |= {"memory/memory.limit_in_bytes": UNLIMITED_V1, "memory/memory.usage_in_bytes": "5"}
    plant(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n2:cpu,cpuacct:/",
            "proc/self/mountinfo": V1_MOUNTS.format(root="/"),
            **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
        },
    )
    found = read_limits(tmp_path)
    assert found.cpus is None
    assert usable_memory(found, 16 * GIB, 9 * GIB) == (16 * GIB, 9 * GIB)


def test_a_host_with_both_versions_is_read_in_both(tmp_path):
    v2 = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
    plant(
        tmp_path,
        {
            "proc/self/cgroup": V1_GROUPS + "\n0::/",
            "proc/self/mountinfo": V1_MOUNTS.format(root="/") + "\n" + v2,
            "sys/fs/cgroup/unified/cgroup.controllers": "",
            "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": str(3 * GIB),
        },
    )
    assert read_limits(tmp_path).memory_bytes == 3 * GIB


@pytest.mark.parametrize(
    ("limits", "affinity", "cores"),
    [
        (Limits(), range(8), 8),
        (Limits(cpus=2.5), range(8), 2),
        (Limits(cpus=0.5), range(8), 1),
        (Limits(cpus=64.0), range(8), 8),
        (Limits(cpuset=frozenset({0, 1, 9})), range(8), 2),
        (Limits(cpus=1.0, cpuset=frozenset({0, 1})), range(8), 1),
        (Limits(cpuset=frozenset(range(64))), [3], 1),
    ],
)
def test_cores_are_the_least_of_affinity_cpuset_and_quota(limits, affinity, cores):
    assert usable_cores(limits, frozenset(affinity)) == cores


def test_memory_is_the_containers_where_it_has_less_than_the_host():
    assert usable_memory(Limits(memory_bytes=4 * GIB, memory_free_bytes=GIB), 16 * GIB, 9 * GIB) == (4 * GIB, GIB)
    assert usable_memory(Limits(memory_bytes=12 * GIB, memory_free_bytes=11 * GIB), 16 * GIB, 9 * GIB) == (12 * GIB, 9 * GIB)


class FakeNvml:
    """NVML as `pynvml` shows it, with devices given as (name, total, used, utilisation in percent or None)."""

    class NVMLError(Exception):
        pass

    def __init__(self, devices, driver=True):
        self.devices, self.driver, self.opened = devices, driver, 0

    def nvmlInit(self):
        if not self.driver:
            raise self.NVMLError("no driver")
        self.opened += 1

    def nvmlShutdown(self):
        self.opened -= 1

    def nvmlDeviceGetCount(self):
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.devices[index]

    def nvmlDeviceGetName(self, device):
        return device[0]

    def nvmlDeviceGetMemoryInfo(self, device):
        if device[1] is None:
            raise self.NVMLError("not supported")
        return SimpleNamespace(total=device[1], used=device[2], free=device[1] - device[2])

    def nvmlDeviceGetUtilizationRates(self, device):
        if device[3] is None:
            raise self.NVMLError("not supported")
        return SimpleNamespace(gpu=device[3], memory=99)


def test_video_memory_is_what_nvml_says_and_none_without_a_driver_or_a_device(caplog):
    nvml = FakeNvml([("big", 24 * GIB, 4 * GIB, 50), ("small", 8 * GIB, GIB, 0), ("mute", None, 0, 0)])
    gpus = read_gpus(nvml)
    assert gpus == (Gpu("big", 24 * GIB, 20 * GIB), Gpu("small", 8 * GIB, 7 * GIB))
    assert Machine(1, GIB, GIB, gpus).vram_bytes == 8 * GIB
    assert "GPU 2 does not say its memory" in caplog.text
    assert nvml.opened == 0
    assert read_gpus(FakeNvml([], driver=False)) == read_gpus(FakeNvml([])) == ()
    assert Machine(1, GIB, GIB, ()).vram_bytes is None


def machine(cores, ram_gib, vram_gib=None, free_gib=None):
    gpus = () if vram_gib is None else (Gpu("card", int(vram_gib * GIB), int(vram_gib * GIB)),)
    return Machine(cores, int(ram_gib * GIB), int((ram_gib if free_gib is None else free_gib) * GIB), gpus)


# Worked by hand: a sample takes 2 * 4 * 484 + 8 * 15 + 32 = 4,024 bytes of the buffer and 4 * (2 * 484 + 8 * 384) = 16,160 of
# a minibatch. So 256 x 4,096 steps and 65,536 samples with the process are 5.82 GB, and 1.69 GB of a card: 0.8 * 24 GiB hold 12.
# On four GiB two trainings have 1.1 GiB each: less 512 and 63 MiB, 143,600 samples or 561 steps of 256 accounts, so 512.
# On 32 GiB 64 trainings have 412 MB each, less than a process: the shortest rollout, 0.60 GB, and 0.8 * 32 GiB hold 45.
TEN_MACHINES = {
    "the seed's: 256 cores, 1 TB, RTX 3090": (machine(256, 1024, 24), TrainingSizes(256, 4096, 65_536, 12)),
    "the same without its GPU": (machine(256, 1024), TrainingSizes(256, 2048, 4_096, 256)),
    "two-core laptop, 4 GB": (machine(2, 4), TrainingSizes(256, 512, 4_096, 2)),
    "two-core laptop, 24 GB": (machine(2, 24), TrainingSizes(256, 4096, 4_096, 2)),
    "eight cores, 16 GB": (machine(8, 16), TrainingSizes(256, 512, 4_096, 8)),
    "eight cores, 32 GB, 8 GB card": (machine(8, 32, 8), TrainingSizes(256, 2048, 4_096, 8)),
    "sixteen cores, 64 GB, 12 GB card": (machine(16, 64, 12), TrainingSizes(256, 2048, 16_384, 11)),
    "64 cores, 32 GB": (machine(64, 32), TrainingSizes(256, 32, 2_048, 45)),
    "one core, 2 GB": (machine(1, 2), TrainingSizes(256, 32, 2_048, 1)),
    "sixteen cores, 128 GB, H200": (machine(16, 128, 139), TrainingSizes(256, 4096, 65_536, 16)),
}


@pytest.mark.parametrize("name", TEN_MACHINES)
def test_ten_machines_and_their_sizes(name):
    found, expected = TEN_MACHINES[name]
    assert autoscale(found) == expected


machines = st.builds(
    machine,
    cores=st.integers(1, 512),
    ram_gib=st.floats(2.5, 2048),
    vram_gib=st.none() | st.floats(2, 192),
)
loads = st.builds(
    Workload,
    n_columns=st.integers(4, 3000),
    n_symbols=st.integers(1, 60),
    hidden_units=st.integers(1, 2048),
    lstm_units=st.integers(1, 512),
    timesteps=st.none() | st.integers(1, 20_000_000),
)
requests = st.builds(TrainingSizes, st.integers(1, 1024), st.integers(1, 8192), st.integers(1, 100_000), st.integers(1, 512))


def scaled(*args, **kwargs):
    """The sizes, or None where the machine is too small for any."""
    try:
        return autoscale(*args, **kwargs)
    except ResourceError:
        return None


@given(machines, st.booleans(), loads, requests)
def test_every_result_divides_fits_and_stays_within_the_request(found, recurrent, load, requested):
    scale = scaled(found, recurrent, load, requested)
    if scale is None:
        return
    assert (scale.n_envs * scale.n_steps) % scale.batch_size == 0
    assert all(1 <= got <= most for got, most in zip(vars(scale).values(), vars(requested).values(), strict=True))
    assert scale.workers <= found.cores
    assert scale.workers * training_bytes(scale, load, recurrent) <= 0.8 * found.free_bytes
    for gpu in found.gpus:
        assert scale.workers * minibatch_bytes(scale.batch_size, load, recurrent) < gpu.free_bytes
    if load.timesteps is not None and scale.n_steps > 32:
        assert 8 * scale.n_envs * scale.n_steps <= load.timesteps


@given(machines, st.floats(1, 8), st.booleans(), loads)
def test_more_memory_never_makes_anything_smaller(found, factor, recurrent, load):
    more = replace(found, total_bytes=int(found.total_bytes * factor), free_bytes=int(found.free_bytes * factor))
    small, large = scaled(found, recurrent, load), scaled(more, recurrent, load)
    if small is None:
        return
    assert large is not None
    for name in ("n_envs", "n_steps", "batch_size"):
        assert getattr(large, name) >= getattr(small, name)
    if not found.gpus:  # a longer rollout may want a larger minibatch, of which fewer fit one card
        assert large.workers >= small.workers


@given(machines, st.integers(0, 256), loads)
def test_more_cores_never_mean_fewer_trainings_at_once_where_no_card_limits_them(found, extra, load):
    found = replace(found, gpus=())
    small, large = scaled(found, load=load), scaled(replace(found, cores=found.cores + extra), load=load)
    assert (small is None) == (large is None)
    if small is not None:
        assert large.workers >= small.workers


@given(machines, st.floats(0.05, 1), loads)
def test_what_is_free_at_the_moment_changes_the_number_of_workers_and_nothing_else(found, share, load):
    idle, busy = scaled(found, load=load), scaled(replace(found, free_bytes=int(found.free_bytes * share)), load=load)
    if busy is None:
        return
    assert replace(busy, workers=0) == replace(idle, workers=0)
    assert busy.workers <= idle.workers


@given(st.floats(2, 192), st.floats(1, 8))
def test_a_larger_card_never_gets_smaller_minibatches(vram, factor):
    small, large = (autoscale(machine(16, 2048, size)) for size in (vram, vram * factor))
    assert large.batch_size >= small.batch_size


@given(st.integers(1, 5000), st.integers(1, 6000))
def test_the_largest_divisor_is_what_trying_all_gives(number, limit):
    assert largest_divisor(number, limit) == max(d for d in range(1, min(number, limit) + 1) if number % d == 0)


def peak_of(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("n_columns", "n_symbols"), [(484, 15), (33, 1)])
def test_the_arithmetic_of_the_rollout_buffer_is_what_stable_baselines3_allocates(n_columns, n_symbols):
    n_steps, n_envs, load = 64, 128, Workload(n_columns=n_columns, n_symbols=n_symbols)

    def work():
        buffer = RolloutBuffer(
            n_steps, spaces.Box(-1, 1, (n_columns,), np.float32), spaces.MultiDiscrete([3] * n_symbols), device="cpu", n_envs=n_envs
        )
        buffer.full = True
        next(buffer.get(1))

    assert rollout_bytes(n_steps * n_envs, load) == pytest.approx(peak_of(work), rel=0.03)


def test_the_arithmetic_of_the_recurrent_buffer_is_what_sb3_contrib_allocates():
    buffers = pytest.importorskip("sb3_contrib.common.recurrent.buffers")
    n_steps, n_envs, load = 32, 64, Workload()

    def work():
        buffer = buffers.RecurrentRolloutBuffer(
            n_steps, spaces.Box(-1, 1, (load.n_columns,), np.float32), spaces.MultiDiscrete([3] * load.n_symbols),
            (n_steps, 1, n_envs, load.lstm_units), device="cpu", n_envs=n_envs,
        )  # fmt: skip
        buffer.full = True
        next(buffer.get(16))

    assert rollout_bytes(n_steps * n_envs, load, recurrent=True) == pytest.approx(peak_of(work), rel=0.05)


def test_a_machine_too_small_for_any_training_is_one_clear_sentence():
    with pytest.raises(ResourceError, match=r"found 0\.0 GiB of memory available to training; expected 0\.5 GiB"):
        autoscale(machine(2, 1))
    with pytest.raises(ResourceError, match=r"found 0\.8 GiB of memory free for training; expected .* close other programs"):
        autoscale(machine(2, 64, free_gib=1))
    with pytest.raises(ResourceError, match=r"card with 0\.5 of 24\.0 GiB free"):
        autoscale(replace(machine(2, 64), gpus=(Gpu("card", 24 * GIB, GIB // 2),)))


def test_a_recurrent_training_keeps_its_accounts_and_shortens_its_sequences():
    assert autoscale(machine(16, 512), recurrent=True) == TrainingSizes(256, 128, 4_096, 16)
    assert DEFAULT_REQUEST.n_envs == 256


def test_hardware_maximized_becomes_plain_numbers_that_another_machine_reads_back(panel_features, tmp_path, caplog):
    caplog.set_level("INFO")
    config = load_config("hardware_maximized", overrides=["hardware.device=cpu", "training.net_arch=[512, 512, 512]"])
    fitted = resolve_for_machine(config, panel_features, machine(2, 24))
    training = fitted.training
    assert (training.n_envs, training.n_steps, training.batch_size, fitted.hardware.workers) == (256, 4096, 4096, 2)
    assert not fitted.hardware.left_to_machine
    assert "TrainingSizes(n_envs=256, n_steps=4096, batch_size=4096, workers=2)" in caplog.text
    (tmp_path / "config.yaml").write_text(dump_yaml(fitted))
    again = load_config("full", tmp_path / "config.yaml")
    assert again == fitted
    assert resolve_for_machine(again, panel_features, machine(256, 1024, 24)) == fitted
    small = resolve_for_machine(config, panel_features, machine(2, 4)).training
    assert small.n_steps < training.n_steps
    assert small.n_envs == 256


def test_a_shortened_hardware_maximized_run_is_as_short_as_asked(panel_features):
    config = load_config("hardware_maximized", overrides=["training.timesteps_reduction=0.01", "hardware.device=cpu"])
    planned = resolve_for_machine(config, panel_features, machine(64, 512)).training.planned_timesteps
    assert planned == pytest.approx(100_000, rel=1 / 16)


def test_what_is_set_is_the_most_that_autoscale_gives(panel_features):
    overrides = ["training.n_envs=64", "training.batch_size=2048", "hardware.workers=3", "hardware.device=cpu"]
    fitted = resolve_for_machine(load_config("hardware_maximized", overrides=overrides), panel_features, machine(64, 512))
    assert (fitted.training.n_envs, fitted.training.batch_size, fitted.hardware.workers) == (64, 2048, 3)


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"hardware_maximized"}))
def test_no_other_preset_looks_at_the_machine(preset, panel_features):
    config = load_config(preset)
    assert not config.hardware.left_to_machine
    assert resolve_for_machine(config, panel_features, machine(256, 1024, 24)) is config


def test_a_gpu_is_used_when_torch_can_use_it_too(panel_features, monkeypatch):
    config = load_config("hardware_maximized")
    for has_cuda, gib, expected in ((True, 24, "cuda"), (False, 24, "cpu"), (True, None, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_cuda=has_cuda: has_cuda)
        fitted = resolve_for_machine(config, panel_features, machine(256, 1024, gib))
        assert fitted.hardware.device == expected
        assert fitted.training.batch_size == (65_536 if expected == "cuda" else 4_096)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_without_a_gpu_utilisation_is_none_an_empty_cell_and_not_evaluated(tmp_path):
    for nvml in (FakeNvml([], driver=False), FakeNvml([])):
        with HardwareMonitor(0.01, nvml) as monitor:
            pass
        assert monitor.get_average_gpu_utilization() is None
        assert monitor.usage.peak_gpu_memory_bytes is None
        monitor.save_metrics(tmp_path / "hardware.csv")
        for row in rows_of(tmp_path / "hardware.csv"):
            assert row["gpu_utilization"] == row["gpu_memory_bytes"] == ""
        words = dict(describe_usage(monitor.usage.summary()))
        assert words["GPU utilisation"] == words["peak GPU memory"] == NOT_EVALUATED
        assert NOT_EVALUATED not in words["peak memory of all processes"]


def test_utilisation_and_memory_of_a_gpu_are_two_columns_and_never_mix(tmp_path):
    nvml = FakeNvml([("one", 24 * GIB, 20 * GIB, 30), ("two", 24 * GIB, 2 * GIB, 50)])
    with HardwareMonitor(5, nvml) as monitor:
        pass
    assert monitor.get_average_gpu_utilization() == pytest.approx(0.4)
    assert monitor.usage.peak_gpu_memory_bytes == 22 * GIB
    monitor.save_metrics(tmp_path / "hardware.csv")
    assert {(row["gpu_utilization"], row["gpu_memory_bytes"]) for row in rows_of(tmp_path / "hardware.csv")} == {("0.4", str(22 * GIB))}
    assert dict(describe_usage(monitor.usage.summary()))["GPU utilisation"] == "40%"
    assert nvml.opened == 0


def test_a_gpu_that_keeps_its_utilisation_to_itself_is_not_evaluated_though_its_memory_is_known(caplog):
    with HardwareMonitor(5, FakeNvml([("mig", 24 * GIB, 6 * GIB, None)])) as monitor:
        pass
    assert monitor.get_average_gpu_utilization() is None
    assert monitor.usage.peak_gpu_memory_bytes == 6 * GIB
    assert len([record for record in caplog.records if "not evaluated" in record.message]) == 1


def test_the_shortest_run_has_readings_and_a_csv(tmp_path):
    monitor = HardwareMonitor(3600)
    assert monitor.get_peak_memory_usage() is None
    assert monitor.usage.mean_cpu_cores is None
    monitor.start_monitoring()
    monitor.stop_monitoring()
    monitor.stop_monitoring()
    monitor.save_metrics(tmp_path / "hardware.csv")
    rows = rows_of(tmp_path / "hardware.csv")
    assert len(rows) == len(monitor.samples) == 2
    assert list(rows[0]) == list(Sample.__dataclass_fields__)
    assert rows[0]["cpu_cores"] == ""
    assert float(rows[1]["elapsed_s"]) > 0


def monitors():
    return [thread for thread in threading.enumerate() if thread.name == "hardware-monitor"]


def test_an_exception_in_the_body_ends_the_thread_and_keeps_the_readings():
    monitor = HardwareMonitor(0.01)

    def body():
        with monitor:
            assert len(monitors()) == 1
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        body()
    assert monitors() == []
    assert len(monitor.samples) >= 2


def test_a_monitor_that_starts_again_forgets_and_one_that_runs_does_not_start_twice():
    monitor = HardwareMonitor(0.01)
    for _ in range(2):
        monitor.start_monitoring()
        first = monitor.samples[0]
        monitor.start_monitoring()
        assert monitor.samples[0] is first
        assert len(monitors()) == 1
        monitor.stop_monitoring()
    assert monitor.samples[0].elapsed_s < 1


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_an_interval_that_is_no_time_is_refused(interval):
    with pytest.raises(ResourceError, match="expected seconds above 0"):
        HardwareMonitor(interval)


def test_cores_and_memory_of_children_count_also_after_they_ended():
    work = "import time; start = time.process_time()\nwhile time.process_time() < start + 0.4: pass\nblock = b'x' * (256 << 20); input()"
    with HardwareMonitor(0.02) as monitor:
        before = monitor.samples[0]
        with psutil.Popen([__import__("sys").executable, "-c", work], stdin=-1) as child:
            deadline = time.monotonic() + 60
            while monitor.get_peak_memory_usage() - before.memory_bytes < 160 << 20 and time.monotonic() < deadline:
                time.sleep(0.05)  # a reading that is dear comes seldom
            child.communicate(b"\n")
    used = monitor.samples[-1].cpu_seconds - before.cpu_seconds
    assert used >= 0.4
    assert monitor.usage.mean_cpu_cores * monitor.samples[-1].elapsed_s == pytest.approx(used, rel=0.1)
    assert monitor.get_peak_memory_usage() - before.memory_bytes > 160 << 20  # this process may give some back meanwhile
    assert max(sample.n_processes for sample in monitor.samples) > before.n_processes
    assert monitor.samples[-1].n_processes == before.n_processes


def test_proportional_memory_is_below_resident_memory_and_read_where_the_system_tells():
    tree = read_process_usage(psutil.Process())
    assert tree.pss_bytes is not None
    assert 0 < tree.pss_bytes <= tree.rss_bytes


def test_dear_readings_come_less_often(monkeypatch):
    monitor = HardwareMonitor(0.001)
    read = monitor._read

    def dear():
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass
        read()

    monkeypatch.setattr(monitor, "_read", dear)
    before = time.process_time()
    with monitor:
        time.sleep(2.2)
    assert len(monitor.samples) <= 2 + 3  # one at each end; 20 ms of work are followed by at least a second of rest
    assert time.process_time() - before < 0.5
