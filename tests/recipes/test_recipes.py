"""The book of recipes: complete, short, true to its page, and safe to show."""

import importlib
import re
import tomllib
from pathlib import Path

import nbformat
import pytest
from markupsafe import Markup

from perfnb.checklist import catalogue
from perfnb.finding import Finding
from perfnb.recipes import Recipe, as_markdown, recipe, recipes, recipes_for
from perfnb.report.exporter import export
from perfnb.report.redaction import Redactor
from perfnb.widgets.recipes import recipes_piece

ROOT = Path(__file__).parents[2]
REMAKE = 'python -c "from perfnb.recipes import as_markdown as a; print(a(), end=str())" > docs/recipes.md'
ENTRIES = {"A": 41, "B": 35, "C": 66, "D": 40, "E": 87}
"""How many entries each guide has."""
ASKED_FOR = {
    "B9",
    "B10",
    "B14",
    "B16",
    "B17",
    "B20",
    "B21",
    "B24",
    "B25",
    "B26",
    "B22",
    "C44",
    "C58",
    "E11",
    "E23",
    "E50",
    "A5",
    "A8",
    "A9",
    "A10",
    "A11",
    "A16",
    "A18",
    "A23",
}

every = pytest.mark.parametrize("one", recipes(), ids=lambda one: one.name)


def seeds(one: Recipe) -> set[str]:
    return set(re.findall(r"\b[A-E]\d+\b", one.source))


def found(*causes: str) -> list[Finding]:
    return [Finding("Told <b>", "high", 0.5, ("seen",), "Mend it.", cause=cause) for cause in causes]


@every
def test_a_recipe_mends_causes_there_are_and_says_where_it_comes_from(one: Recipe) -> None:
    assert set(one.causes) <= set(catalogue())
    assert seeds(one)
    assert all(1 <= int(seed[1:]) <= ENTRIES[seed[0]] for seed in seeds(one))
    assert one.source.count(";") >= 1, "name a manual, too"
    assert one.needs
    assert one.costs
    assert one.title.endswith(".")
    assert "`" not in one.title + one.needs + one.source + one.unlike + one.costs


@every
def test_a_recipe_is_short_and_stands_alone(one: Recipe) -> None:
    assert 10 <= len(one.code.splitlines()) <= 40
    assert "perfnb" not in one.code
    assert "class " not in one.code
    assert "noqa" not in one.code


@every
def test_a_recipe_is_run_by_a_test(one: Recipe) -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_recipes_*.py"))
    assert f"book.{one.name}" in tests
    assert f"def test_{one.name}_" in tests


@every
def test_what_a_recipe_needs_is_installed_for_tests_and_told(one: Recipe) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    offered = {re.split(r"[\[<>=;]", each)[0].replace("-", "_") for each in listed}
    used = set(re.findall(r"^(?:from|import) (\w+)", one.code, re.MULTILINE)) - set(
        importlib.import_module("sys").stdlib_module_names
    )
    assert used <= offered
    assert all(each.replace("_", "-") in one.needs for each in used)


def test_every_building_block_of_the_guides_has_a_recipe() -> None:
    assert set().union(*map(seeds, recipes())) >= ASKED_FOR


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "recipes.md").read_text() == as_markdown(), f"make it anew: {REMAKE}"


def test_a_file_is_read_field_by_field() -> None:
    text = '"""Does it.\n\nMends: a, b\nNeeds: c\nSource: A1; a manual\n    of two lines\nCosts: d\n"""\n\nx = 1\n'
    assert recipe("name", text) == Recipe(
        "name", "Does it.", ("a", "b"), "c", "A1; a manual of two lines", "", "d", text
    )
    assert recipe("name", text).code == "x = 1\n"


def test_recipes_fit_findings_the_first_first_and_each_once() -> None:
    names = [one.name for one in recipes_for(found("long-history", "no-streaming", "large-context", "wraparound-risk"))]
    assert names == ["history_budget", "stream_answer", "context_budget"]
    assert recipes_for([]) == ()


def test_a_notebook_shows_those_that_fit_folded() -> None:
    piece = recipes_piece(found("no-streaming", "late-first-content"))
    assert piece.html.count("<details") == 1
    assert "<details open" not in piece.html
    assert "no-streaming</code>" in piece.html
    assert "errors-as-success</code>" not in piece.html
    assert "stream_answer: Words reach the user" in piece.text


def test_a_notebook_says_so_where_none_fits() -> None:
    assert str(recipes_piece(found("wraparound-risk"))) == f"None of the {len(recipes())} recipes mends what was found."


def test_an_export_shows_every_line_of_code() -> None:
    causes = [cause for one in recipes() for cause in one.causes]
    bundle = recipes_piece(found(*causes))._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data=bundle)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("panel.recipes(incident)", outputs=[output])])
    page = export(notebook, Redactor())
    shown = {
        Markup(re.sub(r"<[^>]+>", "", each)).unescape().strip()
        for each in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    }
    assert {one.code.strip() for one in recipes()} <= shown
    assert page.count("<details") > len(recipes())
    assert 'class="kn"' in page
