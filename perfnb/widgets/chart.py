"""A plotly figure with what it needs to be understood without seeing it: a sentence and the numbers drawn."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from perfnb.errors import NotMeasured
from perfnb.objectives import Objectives
from perfnb.widgets import theme
from perfnb.widgets.html import Piece, live, render
from perfnb.widgets.table import table

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from perfnb.recording import Recording

Measure = Callable[["Recording"], "pd.DataFrame"]

theme.apply()


@dataclass(frozen=True)
class Chart:
    """A figure as a cell shows it: live through plotly's mime type, else as a table.

    Attributes:
        figure: A plain figure, never a FigureWidget: that one exports blank.
        alt: One or two sentences that say what there is to see.
        frame: The numbers drawn.
    """

    figure: "go.Figure"
    alt: str
    frame: "pd.DataFrame"

    def __post_init__(self) -> None:
        """Let markers at the edge be drawn whole."""
        self.figure.update_traces(cliponaxis=False, selector={"type": "scatter"})

    @property
    def title(self) -> str:
        """Return the figure's title."""
        return str(self.figure.layout.title.text or "")

    @property
    def twin(self) -> Markup:
        """Return the numbers as an HTML table."""
        return table(self.frame, self.title)

    def as_json(self) -> dict[str, Any]:
        """Return the figure as plotly's mime type has it, configuration included."""
        drawn: dict[str, Any] = json.loads(self.figure.to_json())
        return {**drawn, "config": theme.CONFIG}

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        twin = live(f"<p>{Markup.escape(self.alt)}</p>{self.twin}")
        bundle = {theme.PLOTLY_MIME: self.as_json(), "text/html": twin, "text/plain": f"{self.title}: {self.alt}"}
        return bundle, {"perfnb": {"alt": self.alt}}


class Drawing(Piece):
    """A figure that is SVG from the start, such as a flame graph, with its table beside it."""

    def __init__(self, svg: Markup, title: str, alt: str, frame: "pd.DataFrame") -> None:
        self.title, self.alt, self.frame = title, alt, frame
        twin = table(frame, title)
        super().__init__(render("drawing", svg=svg, title=title, alt=alt, twin=twin), f"{title}: {alt}")


class Missing(Piece):
    """Said in place of a figure whose evidence is not there."""

    def __init__(self, said: str) -> None:
        super().__init__(render("said", said=said), said)


Shown = Chart | Drawing | Missing


class Drawn:
    """A function that draws a measure's frame; :meth:`of` takes the frame from a recording."""

    def __init__(self, draw: Callable[..., Chart | Drawing], measure: Measure, empty: str) -> None:
        self.measure = measure
        self._draw = draw
        self._empty = empty
        self._takes_objectives = "objectives" in signature(draw).parameters
        self.__doc__ = draw.__doc__
        self.__name__ = draw.__name__

    def __call__(self, frame: "pd.DataFrame", objectives: Objectives | None = None) -> Chart | Drawing:
        """Return the figure of ``frame``; where ``objectives`` are given, those that apply are drawn in."""
        return self._draw(frame, objectives=objectives) if self._takes_objectives else self._draw(frame)

    def of(self, recording: "Recording", objectives: Objectives | None = None) -> Shown:
        """Return the figure of what ``recording`` holds, or what would be needed to draw it."""
        try:
            frame = self.measure(recording)
        except NotMeasured as missing:
            return Missing(f"Not measured. It needs {missing.hint or missing.message}")
        return Missing(self._empty) if frame.empty else self(frame, objectives)


def drawn_from(
    measure: Measure, *, empty: str = "Nothing was recorded to draw."
) -> Callable[[Callable[..., Chart | Drawing]], Drawn]:
    """Say which measure's frame a figure draws, so that a report can draw it by name; ``empty`` is said of no rows."""
    return lambda draw: Drawn(draw, measure, empty)
