"""Small parts that figures are made of: an empty canvas with its title and axes, labels, units, thinning."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from perfnb.widgets import theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_POINTS = 1500
MOST_LABEL = 46


@dataclass(frozen=True)
class Unit:
    """The unit of a time axis: ``values / factor`` are milliseconds turned into it."""

    name: str
    factor: float

    def of(self, milliseconds: "pd.Series[Any]") -> "pd.Series[Any]":
        """Return ``milliseconds`` in this unit."""
        return milliseconds / self.factor


def time_unit(milliseconds: "pd.Series[Any]") -> Unit:
    """Return milliseconds, or seconds where the largest value has more than four digits."""
    return Unit("s", 1000.0) if milliseconds.max() >= 2000 else Unit("ms", 1.0)


def canvas(title: str, x: str, y: str, *, height: int = 380, from_zero: bool = False, **layout: Any) -> "go.Figure":
    """Return an empty figure; ``x`` and ``y`` name the axes with their units."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(title_text=title, height=height, **layout)
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y, rangemode="tozero" if from_zero else "normal")
    return figure


def in_dollars(figure: "go.Figure", axis: str) -> "go.Figure":
    """Write the numbers of ``axis`` (``x`` or ``y``) as dollars, small ones without powers of ten; return ``figure``."""
    figure.update_layout({f"{axis}axis": {"tickprefix": "$", "exponentformat": "none", "separatethousands": True}})
    return figure


def rows_height(rows: int, *, each: int = 30, around: int = 130) -> int:
    """Return the height of a figure with one line per row."""
    return around + each * max(rows, 2)


def label(text: object, most: int = MOST_LABEL) -> str:
    """Return ``text`` for an axis or a legend: cut in the middle and escaped, for plotly reads tags and entities."""
    plain = " ".join(str(text).split())
    if len(plain) > most:
        plain = f"{plain[: most * 2 // 3]} … {plain[-most // 4 :]}"
    return escape(plain, quote=False)


def labels(values: "pd.Series[Any]", most: int = MOST_LABEL) -> list[str]:
    """Return ``values`` as labels that differ where the values do."""
    seen: dict[str, int] = {}
    made = []
    for value in values:
        text = label(value, most)
        seen[text] = seen.get(text, 0) + 1
        made.append(text if seen[text] == 1 else f"{text} ({seen[text]})")
    return made


def thinned(frame: pd.DataFrame, most: int = MOST_POINTS) -> pd.DataFrame:
    """Return at most ``most`` rows, evenly spread."""
    if len(frame) <= most:
        return frame
    return frame.iloc[[round(place * (len(frame) - 1) / (most - 1)) for place in range(most)]]


def drawn_of(shown: pd.DataFrame, frame: pd.DataFrame, noun: str) -> str:
    """Return ``1,500 of 20,000 calls are drawn`` where rows were left out, else nothing."""
    return f" {len(shown):,} of {len(frame):,} {noun} are drawn." if len(shown) < len(frame) else ""


def moments(nanoseconds: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return UTC nanoseconds as times plotly draws."""
    return pd.to_datetime(nanoseconds, unit="ns", utc=True)


def limit_line(figure: "go.Figure", value: float, name: str, *, across: bool = True) -> None:
    """Draw an objective: across at height ``value``, or upright."""
    line = {"color": theme.VERMILION, "dash": "dash", "width": 1.5}
    place = {
        "annotation_text": name,
        "annotation_font_size": 12,
        "line": line,
        "annotation_font_color": theme.VERMILION,
    }
    if across:
        figure.add_hline(y=value, annotation_position="top left", **place)
    else:
        figure.add_vline(x=value, annotation_position="top right", **place)


def colour_of(position: int) -> str:
    """Return the colour of the series at ``position``."""
    return theme.COLOURS[position % len(theme.COLOURS)]
