"""What pyproject.toml asks for is what the two files of pins hold: the newest tested versions, and the oldest."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(text) for text in PROJECT["dependencies"]]
TEST = [Requirement(text) for text in PROJECT["optional-dependencies"]["test"]]


def pins(name):
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line]
    assert not [each for each in found if each.url]  # no host is named
    return {canonicalize_name(each.name): Version(next(iter(each.specifier)).version) for each in found}


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_every_dependency_is_pinned_within_its_bounds(name):
    pinned = pins(name)
    assert {each.name for each in [*DIRECT, *TEST] if not each.specifier.contains(pinned[canonicalize_name(each.name)])} == set()


def test_a_lower_bound_is_a_version_that_is_tested():
    pinned = pins("constraints-oldest.txt")
    floors = {each.name: Version(part.version) for each in DIRECT for part in each.specifier if part.operator in (">=", "==")}
    assert floors == {each.name: pinned[canonicalize_name(each.name)] for each in DIRECT}
