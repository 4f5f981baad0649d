"""Recipes that mend what was found, folded, with their code to copy."""

from collections.abc import Callable, Iterable

from markupsafe import Markup

from perfnb.finding import Finding
from perfnb.recipes import Recipe, recipes, recipes_for
from perfnb.widgets import wording
from perfnb.widgets.html import Piece, render


def recipes_piece(findings: Iterable[Finding]) -> Piece:
    """Return the recipes that mend ``findings``, those for the first finding first; where none does, what there is."""
    found = {finding.cause for finding in findings}
    fitting = recipes_for(findings)
    said = _said(fitting)
    cards = [(one, [cause for cause in one.causes if cause in found], highlighted(one.code)) for one in fitting]
    text = "\n".join([said, *(f"{one.name}: {one.title} ({', '.join(causes)})" for one, causes, _ in cards)])
    return Piece(render("recipes", said=said, cards=cards), text)


def highlighted(code: str) -> Markup:
    """Return Python as HTML with its words marked by class, as in exported notebooks."""
    from nbconvert.filters.highlight import Highlight2HTML

    highlight: Callable[[str], str] = Highlight2HTML(pygments_lexer="python")
    return Markup(highlight(code))


def _said(fitting: tuple[Recipe, ...]) -> str:
    if not fitting:
        return f"None of the {len(recipes())} recipes mends what was found."
    return f"{wording.counted(len(fitting), 'recipe')} to copy into the app and change; each was run against real parts by a test."
