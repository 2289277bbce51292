"""Seeds, spawned from one root and never reused.

A seed belongs to a purpose ("train", "bootstrap") and to indices (fold, member). Two purposes never share a stream,
and adding a fold or a member leaves the seeds of the others as they were.
"""

from zlib import crc32

import numpy as np


def seed_sequence(root: int, purpose: str, *indices: int) -> np.random.SeedSequence:
    """The `SeedSequence` of one purpose and its indices under a root seed."""
    return np.random.SeedSequence(entropy=root, spawn_key=(crc32(purpose.encode()), *indices))


def generator(root: int, purpose: str, *indices: int) -> np.random.Generator:
    """A numpy generator of its own for one purpose.

    >>> a, b = generator(7, "train", 0, 1), generator(7, "train", 0, 1)
    >>> bool(a.random() == b.random())
    True
    """
    return np.random.default_rng(seed_sequence(root, purpose, *indices))


def seed_integer(root: int, purpose: str, *indices: int) -> int:
    """A 31-bit seed for libraries that take an integer (torch, stable-baselines3)."""
    return int(seed_sequence(root, purpose, *indices).generate_state(1)[0] & 0x7FFFFFFF)
