"""HTML that notebooks and reports share: every value is escaped, every piece carries its own small style when live."""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from perfnb.widgets import wording


@cache
def environment() -> Environment:
    """Return the Jinja environment; templates stand in ``perfnb/widgets/templates``."""
    made = Environment(
        loader=PackageLoader("perfnb.widgets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("duration", "percent", "number", "quantity", "dollars", "moment", "clock", "counted", "listed"):
        made.filters[name] = getattr(wording, name)
    return made


@cache
def style() -> str:
    """Return the style sheet of cards and tables."""
    return resources.files("perfnb.widgets").joinpath("templates/cards.css").read_text()


def render(template: str, **values: Any) -> Markup:
    """Return ``templates/TEMPLATE.html.j2`` filled with ``values``, safe to put into a page."""
    return Markup(environment().get_template(f"{template}.html.j2").render(**values))


def live(html: str) -> str:
    """Return ``html`` as an output of a notebook, with its style; two amounts of dollars in it are no formula."""
    return f"<style>{style()}</style><div class='pnb mathjax_ignore tex2jax_ignore'>{html}</div>"


class Piece:
    """Something a cell shows: HTML, and the same facts as plain text.

    Attributes:
        html: What a page embeds; it needs the style sheet of :func:`style`.
        text: What a terminal shows.
        data: Further mime types to publish beside them.
    """

    def __init__(self, html: Markup, text: str, data: dict[str, Any] | None = None) -> None:
        self.html = html
        self.text = text
        self.data = data or {}

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/html": live(self.html), "text/plain": self.text, **self.data}


def together(pieces: Sequence[Piece]) -> Piece:
    """Return pieces one below the other."""
    return Piece(Markup("").join(each.html for each in pieces), "\n".join(each.text for each in pieces))


def status(text: str) -> str:
    """Return a line that a screen reader tells when it changes."""
    return f"<span role='status'>{escape(text)}</span>"
