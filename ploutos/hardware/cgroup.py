"""What a container may use: limits of this process's control group and of every group above it, v1 and v2.

The files are found as the kernel documents it: `/proc/self/cgroup` says in which group the process is, and
`/proc/self/mountinfo` where each hierarchy is mounted. A limit may stand on any level, so the smallest one counts. Hosts
that mount both versions are read in both.

Sources: cgroups(7); Linux kernel documentation, cgroup-v1 and cgroup-v2.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


@dataclass(frozen=True)
class Limits:
    """What the control groups allow; None where they set no limit.

    Attributes:
        cpus: CPU time per time, in cores: 1.5 is one and a half.
        cpuset: numbers of the cores that may be used.
        memory_bytes: the smallest memory limit.
        memory_free_bytes: the least that is left under any limit. Page cache that the kernel drops first counts as free.
    """

    cpus: float | None = None
    cpuset: frozenset[int] | None = None
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None


@dataclass(frozen=True)
class _Mount:
    controllers: frozenset[str]  # empty for v2, which holds them all
    group: PurePosixPath  # the group that the mount point shows
    point: Path


def _text(file: Path) -> str | None:
    """A small file's text; None where there is none or the container hides it."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


def _number(file: Path) -> int | None:
    """A file's first word as a number; None for no file, `max` and the like."""
    words = (_text(file) or "").split()
    return int(words[0]) if words and words[0].lstrip("-").isdigit() else None


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in (_text(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), [*right.split(), "", "", ""][:3]
        if kind in ("cgroup", "cgroup2"):
            controllers = frozenset(options.split(",")) if kind == "cgroup" else frozenset()
            yield _Mount(controllers, PurePosixPath(fields[3]), root / fields[4].lstrip("/"))


def _groups(root: Path) -> dict[str, PurePosixPath]:
    """Controller to this process's group; the empty name is v2."""
    groups: dict[str, PurePosixPath] = {}
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), PurePosixPath(group)))
    return groups


def _levels(controller: str, mounts: tuple[_Mount, ...], groups: dict[str, PurePosixPath]) -> Iterator[tuple[bool, Path]]:
    """Folders of the process's group and of all above it, innermost first, each with whether it is v2."""
    for mount in mounts:
        unified = not mount.controllers
        group = groups.get("" if unified else controller)
        if group is None or not (unified or controller in mount.controllers):
            continue
        below = group.relative_to(mount.group) if group.is_relative_to(mount.group) else PurePosixPath()
        folder = mount.point / below if ".." not in below.parts else mount.point
        while True:
            if folder.is_dir():
                yield unified, folder
            if folder == mount.point:
                break
            folder = folder.parent


def parse_cpus(text: str) -> frozenset[int]:
    """Core numbers of a list as the kernel writes it.

    >>> sorted(parse_cpus("0-2,7"))
    [0, 1, 2, 7]
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _quota(unified: bool, folder: Path) -> float | None:
    if unified:
        words = (_text(folder / "cpu.max") or "").split()
        return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _cpuset(levels: Iterable[tuple[bool, Path]]) -> frozenset[int] | None:
    """Cores of the innermost group that names any; a group's cores are always among its parent's."""
    for unified, folder in levels:
        for name in ("cpuset.cpus.effective",) if unified else ("cpuset.effective_cpus", "cpuset.cpus"):
            if found := _text(folder / name):
                return parse_cpus(found)
    return None


def _droppable(stat: Path, name: str) -> int:
    """Bytes of page cache that nobody touched lately: the kernel takes them back before it refuses memory."""
    lines = (line.split() for line in (_text(stat) or "").splitlines())
    return next((int(words[1]) for words in lines if words[0] == name), 0)


def _memory(unified: bool, folder: Path) -> tuple[int, int] | None:
    """Limit and what is left of it, in bytes."""
    limit_name, used_name, cache = (
        ("memory.max", "memory.current", "inactive_file")
        if unified
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    limit, used = _number(folder / limit_name), _number(folder / used_name)
    if limit is None or limit < 0:
        return None
    return limit, max(limit - max((used or 0) - _droppable(folder / "memory.stat", cache), 0), 0)


def read_limits(root: Path = _ROOT) -> Limits:
    """Limits of this process's control groups.

    Args:
        root: folder that holds `proc` and the mounted hierarchies; another one than `/` only in tests.

    Returns:
        Limits; without control groups, or where the container hides them, none. v1 writes "no limit" as a number larger
        than any memory, so compare with what the host has.
    """
    mounts, groups = tuple(_mounts(root)), _groups(root)
    memory = [found for unified, folder in _levels("memory", mounts, groups) if (found := _memory(unified, folder)) is not None]
    return Limits(
        cpus=_least(_quota(unified, folder) for unified, folder in _levels("cpu", mounts, groups)),
        cpuset=_cpuset(_levels("cpuset", mounts, groups)),
        memory_bytes=min((limit for limit, _ in memory), default=None),
        memory_free_bytes=min((free for _, free in memory), default=None),
    )
