"""The documentation says what the code says: generated tables are whole, and what pages name exists."""

import inspect
import pydoc
import re
import runpy
from pathlib import Path

import pytest
import typer
import yaml

import ploutos
from ploutos.cli.main import app
from ploutos.config import PipelineConfig
from ploutos.envs.observation import observation_names
from ploutos.evaluation.summary import StrategyMetrics
from ploutos.features.indicators import NAMES
from ploutos.market.data_spec import EVERY_SETTING

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PROSE = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.fixture(scope="module")
def generate():
    return runpy.run_path(str(DOCS / "generate.py"))


def leaves(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def keys_of(generate):
    return set(re.findall(r"^\| `([^`]+)` \|", generate["settings"](), re.MULTILINE))


def test_the_table_of_settings_holds_every_setting_once(generate):
    listed = re.findall(r"^\| `([^`]+)` \|", generate["settings"](), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert {key for key in listed if "[]" not in key} == set(leaves(PipelineConfig().model_dump(mode="json", context=EVERY_SETTING))) - {
        "data.instruments"
    }
    assert "data.instruments[].multiplier" in listed


def test_a_setting_says_its_type_its_range_its_default_and_its_meaning(generate):
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", generate["settings"](), re.MULTILINE))
    assert rows["training.gamma"].startswith("number, ≥ 0 and ≤ 1 | `0.9` | Discount per bar")
    assert rows["env.max_participation"].startswith("number, > 0 and ≤ 1 | empty | ")
    assert rows["folds.scheme"].startswith("`anchored`, `rolling` | `anchored` | ")
    assert all(not row.endswith("|  ") for row in rows.values())


def test_every_command_and_option_is_listed(generate):
    text = generate["commands"]()

    def walk(command, name):
        inner = getattr(command, "commands", {})
        for key, each in inner.items():
            walk(each, f"{name} {key}")
        if not inner:
            section = text.split(f"## {name}\n")[1].split("\n## ")[0]
            for option in command.params:
                assert all(f"`{each}`" in section for each in option.opts)

    walk(typer.main.get_command(app), "ploutos")


def test_every_metric_is_explained(generate):
    assert re.findall(r"^\| `(\w+)` \|", generate["metrics"](), re.MULTILINE) == list(StrategyMetrics.model_fields)


@pytest.mark.parametrize("account", [False, True])
def test_the_table_of_observations_names_the_columns_in_their_order(generate, panel_features, account):
    kinds = []
    for name in observation_names(panel_features, account):
        symbol, _, column = name.rpartition(".")
        kind = "S.F" if column in NAMES else f"S.{column}" if symbol else column
        kinds += [] if kind in kinds else [kind]
    assert kinds == generate["observation_columns"](account)
    listed = re.findall(r"^\| `([\w.]+)` \|", generate["observation"](), re.MULTILINE)
    assert listed[: len(kinds)] == kinds


def test_every_public_name_is_in_the_python_api(generate):
    listed = re.findall(r"^::: ploutos\.[\w.]*\.(\w+)$", generate["api"](), re.MULTILINE)
    assert sorted(listed) == ploutos.__all__


def test_a_page_asks_for_what_can_be_generated(generate):
    asked = {mark for page in PAGES for mark in re.findall(r"<!-- generated: (\w+) -->", page.read_text())}
    assert asked == set(generate["_MAKE"])
    assert generate["on_page_markdown"]("a\n<!-- generated: metrics -->\n") == f"a\n{generate['metrics']()}\n"


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_every_setting_that_a_page_sets_is_one(generate, page):
    known = keys_of(generate)
    for key in re.findall(r"--set ([a-z_.]+)=", page.read_text()):
        assert key in known or key == "a.b", f"{page.name} sets {key}"


def test_every_page_is_in_the_navigation():
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES)
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text())["theme"]["font"] is False


def test_every_room_of_the_library_is_on_the_page_of_files():
    tree = (DOCS / "reference/files.md").read_text().split("\nploutos/ ")[1].split("\ntasks/ ")[0]
    rooms = {path.parent.name for path in (ROOT / "ploutos").glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)) == rooms


def exists(target):
    """Whether a dotted name stands for something; `f(x=...)` also says that f takes x. Fields that only instances have count."""
    name, _, arguments = target.partition("(")
    found = pydoc.locate(name)
    if found is None:
        owner, _, last = name.rpartition(".")
        kind = pydoc.locate(owner)
        bases = [each for each in getattr(kind, "__mro__", ()) if each.__module__.startswith("ploutos.")]
        return any(re.search(rf"^ +(self\.)?{last}(: | = )", inspect.getsource(each), re.MULTILINE) for each in bases)
    return set(re.findall(r"(\w+)=", arguments)) <= set(inspect.signature(found).parameters) if arguments else True


def test_every_name_that_moved_is_where_the_page_says():
    page = (DOCS / "moved.md").read_text().split("\n## Renamed\n")[1]  # before it, settings and files
    rows = [[re.findall(r"`([^`]+)`", cell) for cell in row.split(" | ")[1:]] for row in page.splitlines() if row.startswith("| `")]
    assert len(rows) > 100
    targets = {target for now, *_ in rows for target in now}
    targets |= {f"{now[0]}.{name}" for now, *moved in rows for names in moved for name in names}
    assert {target for target in targets if not exists(target)} == set()


def test_links_of_the_readme_lead_somewhere_and_it_is_short():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
    assert len(text.splitlines()) <= 150


def test_pages_show_every_example_and_the_lines_they_show_are_python():
    included = re.findall(r'^ *--8<-- "([\w/.]+\.py)', "\n".join(page.read_text() for page in PAGES), re.MULTILINE)
    examples = {str(path.relative_to(ROOT)) for path in ROOT.glob("examples/*.py")}
    assert set(included) == examples | {"tests/plain_ledger.py"}
    for page in PAGES:
        found = re.findall(r'--8<-- "([\w/.]+\.py)(?::(\d+):(\d+))?"', page.read_text())
        for path in dict.fromkeys(path for path, *_ in found):
            lines = (ROOT / path).read_text().splitlines()
            parts = [slice(int(first) - 1, int(last)) for name, first, last in found if name == path and first]
            shown = [line for part in parts for line in lines[part]] if parts else lines
            compile("\n".join(shown), path, "exec")
            if parts:  # all but what makes the folder and writes the file, of which a notebook knows nothing
                assert shown[0] == "import ploutos as pl"
                assert shown[-1] == lines[-2]
                assert all("out" in line for line in lines[lines.index(shown[0]) :] if line not in shown)


def test_recordings_are_shown_and_name_no_path_of_a_machine():
    page, made = (DOCS / "reference/terminal.md").read_text(), (DOCS / "record.py").read_text()
    recordings = sorted((DOCS / "recordings").iterdir())
    assert [each.stem for each in recordings] == ["mistakes", "resumed", "run"]
    for each in recordings:
        text = each.read_text()
        assert f"docs/recordings/{each.name}" in page
        assert f"def {each.stem}()" in made
        assert re.search(r"^exit \d+$", text, flags=re.MULTILINE)
        assert not re.search(r"(?<![\w.:/])/(?:home|root|tmp|opt|usr|var|work|Users)/", text)
