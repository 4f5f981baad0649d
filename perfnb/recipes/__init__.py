"""Remedies to copy into an app: short working files on well-kept libraries, each run by a test.

They stand in ``perfnb/recipes/book`` as data: nothing imports them, and copies belong to who copies them.
"""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from perfnb.finding import Finding

BOOK = Path(__file__).parent / "book"

PAGE_HEAD = """\
# Recipes

Remedies to copy into an app: short files on well-kept libraries, each run by a test against real parts. They are no API
of perfnb; take one, change it, own it. A notebook shows those that fit its findings (`panel.recipes(incident)`).

This page is made from the files (`perfnb.recipes.as_markdown`).
"""

_FIELD = re.compile(r"^(\w[\w ]*): (.+(?:\n    .+)*)", re.MULTILINE)


@dataclass(frozen=True)
class Recipe:
    """One file to copy.

    Attributes:
        name: Its file's name, without ``.py``.
        title: What it does, in one sentence.
        causes: What it mends, by the names findings have.
        needs: Packages and services it stands on.
        source: Entries of the guides, and the manuals it follows.
        unlike: Where it departs from the guides, and why; empty where they are right.
        costs: What it costs to have it.
        text: The whole file.
    """

    name: str
    title: str
    causes: tuple[str, ...]
    needs: str
    source: str
    unlike: str
    costs: str
    text: str

    @property
    def code(self) -> str:
        """Return the file below its docstring."""
        return "".join(self.text.splitlines(keepends=True)[_docstring(self.text).end_lineno or 0 :]).lstrip("\n")


@cache
def recipes() -> tuple[Recipe, ...]:
    """Return all recipes, by name."""
    return tuple(recipe(path.stem, path.read_text(encoding="utf-8")) for path in sorted(BOOK.glob("*.py")))


def recipes_for(findings: Iterable[Finding]) -> tuple[Recipe, ...]:
    """Return the recipes that mend what was found, those for the first finding first, each once."""
    fitting = (one for finding in findings for one in recipes() if finding.cause in one.causes)
    return tuple(dict.fromkeys(fitting))


def recipe(name: str, text: str) -> Recipe:
    """Return the recipe a file's ``text`` holds; its docstring has a title and fields."""
    told = str(ast.literal_eval(_docstring(text).value))
    fields = {field: " ".join(said.split()) for field, said in _FIELD.findall(told)}
    return Recipe(
        name=name,
        title=told.partition("\n")[0],
        causes=tuple(fields["Mends"].split(", ")),
        needs=fields["Needs"],
        source=fields["Source"],
        unlike=fields.get("Unlike the guides", ""),
        costs=fields["Costs"],
        text=text,
    )


def as_markdown() -> str:
    """Return ``docs/recipes.md``."""
    causes = sorted({cause for one in recipes() for cause in one.causes})
    rows = [f"| {cause} | {', '.join(f'[{n}](#{n})' for n in _names(cause))} |" for cause in causes]
    index = "\n".join(["| cause | recipes |", "|---|---|", *rows])
    return "\n\n".join([PAGE_HEAD.rstrip(), index, *map(_section, recipes())]) + "\n"


def _section(one: Recipe) -> str:
    lines = [f"## {one.name}", one.title]
    told = {"Mends": ", ".join(one.causes), "Needs": one.needs, "Costs": one.costs, "Unlike the guides": one.unlike}
    listed = [f"- {name}: {said}" for name, said in (told | {"Source": one.source}).items() if said]
    link = f"- The file: [{one.name}.py](../perfnb/recipes/book/{one.name}.py)"
    return "\n\n".join([*lines, "\n".join([*listed, link])])


def _names(cause: str) -> list[str]:
    return [one.name for one in recipes() if cause in one.causes]


def _docstring(text: str) -> ast.Expr:
    first = ast.parse(text).body[0]
    assert isinstance(first, ast.Expr)
    return first
