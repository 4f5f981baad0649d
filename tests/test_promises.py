"""What the documentation and the contributing guide promise, kept by tests."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from perfnb import checklist
from perfnb.checklist import AREAS
from perfnb.cli import app
from perfnb.objectives import Objectives
from perfnb.widgets.chart import Drawn

ROOT = Path(__file__).parent.parent


def required() -> dict[str, str]:
    """Return pyproject's core dependencies: normalised name to version bound."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return dict(split(entry.split(";")[0]) for entry in listed)


def split(entry: str) -> tuple[str, str]:
    name, bound = re.match(r"([A-Za-z0-9_.\[\]-]+)(.*)", entry.strip()).groups()  # type: ignore[union-attr]
    return re.sub(r"[-_.]+", "-", name).lower(), bound.strip()


def test_environment_yml_agrees_with_pyproject() -> None:
    conda_names = {"docker-py": "docker", "python-duckdb": "duckdb"}
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    offered = dict(
        split(entry)
        for entry in [e for e in listed if isinstance(e, str)] + [e for e in by_pip if not e.startswith("-e")]
    )
    offered = {conda_names.get(name, name): bound for name, bound in offered.items()}
    assert {name: offered.get(name) for name in required()} == required()


@pytest.mark.parametrize("area", checklist.AREAS)
def test_every_cause_of_the_catalogue_has_one_check(area: str) -> None:
    wanted = {cause.cause for cause in checklist.catalogue().values() if cause.area == area}
    assert {check.cause for check in checklist.checks(area)} == wanted


ENTRIES = {"A": 41, "B": 35, "C": 66, "D": 40, "E": 87}
"""How many entries each seed guide has."""


def test_every_check_names_seeds_that_exist_and_one_of_its_causes_own() -> None:
    for check in checklist.checks():
        assert all(1 <= int(seed[1:]) <= ENTRIES[seed[0]] for seed in check.seeds), check.cause
        own = {seed for seed in checklist.catalogue()[check.cause].seeds if re.fullmatch(r"[A-E]\d+", seed)}
        assert not own or own & set(check.seeds), check.cause
        assert check.meaning.splitlines()[0].endswith((".", ")")), check.cause


def test_every_command_has_help_an_example_and_options_with_help() -> None:
    command = get_command(app)
    for name, sub in command.commands.items():  # type: ignore[attr-defined]
        assert sub.help, name
        assert f"perfnb {name}" in (sub.epilog or ""), name
        for parameter in sub.params:
            assert getattr(parameter, "help", None) or parameter.name == "help", f"{name} {parameter.name}"


@pytest.mark.parametrize("area", AREAS)
def test_a_finding_names_figures_that_there_are(area: str) -> None:
    folder = ROOT / "perfnb" / "areas" / area
    named = {name for path in folder.glob("*.py") for name in re.findall(r"\bfigure=\"([a-z_]+)\"", path.read_text())}
    figures = import_module(f"perfnb.areas.{area}.figures")
    assert named
    assert [name for name in sorted(named) if not isinstance(getattr(figures, name, None), Drawn)] == []


def test_objectives_cover_every_target_of_the_seeds() -> None:
    ids = {objective.id for objective in Objectives.load(ROOT).values()}
    assert {f"T{number}" for number in range(1, 39)} <= ids


def test_every_objective_names_who_said_it() -> None:
    for objective in Objectives.load(ROOT).values():
        assert objective.said, objective.name
        assert all(re.fullmatch(r"[A-E]\d+", said.seed) for said in objective.said), objective.name


def test_commands_the_readme_shows_exist() -> None:
    shown = set(re.findall(r"(?:^|`|/)perfnb ([a-z]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert shown <= set(get_command(app).commands)  # type: ignore[attr-defined]


def test_nothing_in_the_tree_names_a_package_index_or_this_machine() -> None:
    suspicious = re.compile(r"/work/main|/root/|pypi\.org/simple|files\.pythonhosted")
    tracked = [path for folder in ("perfnb", "notebooks", "docs", "bench", ".ci") for path in (ROOT / folder).rglob("*") if path.suffix in
               (".py", ".md", ".toml", ".ipynb", ".sql", ".j2", ".yml", "")]  # fmt: skip
    assert tracked
    for path in tracked:
        if path.is_file():
            assert not suspicious.search(path.read_text(errors="replace")), path
