"""A frame as a table for people: units in the head, numbers aligned, times readable, long frames cut and counted."""

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from perfnb.widgets import wording
from perfnb.widgets.html import Piece, render

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 50
MOST_CHARACTERS = 2000
SUFFIXES = {"ms": "ms", "bytes": "bytes", "usd": "USD", "percent": "%", "seconds": "s", "per_s": "per s", "ns": "ns"}


class Table(Piece):
    """``frame`` under ``caption``, at most ``most`` rows of it."""

    def __init__(self, frame: "pd.DataFrame", caption: str, *, most: int = MOST_ROWS) -> None:
        self.frame = frame
        super().__init__(table(frame, caption, most=most), f"{caption}\n{frame.head(most).to_string(index=False)}")


def table(frame: "pd.DataFrame", caption: str, *, most: int = MOST_ROWS) -> Markup:
    """Return ``frame`` as an HTML table that scrolls inside its box."""
    columns = [str(name) for name in frame.columns]
    shown = frame.head(most)
    rows = [[cell(value, name) for name, value in zip(columns, row, strict=True)] for row in shown.itertuples(False)]
    numeric = [is_numeric(shown[name]) for name in frame.columns]
    return render(
        "table",
        caption=caption,
        heads=[heading(name) for name in columns],
        rows=rows,
        numeric=numeric,
        more=len(frame) - len(shown),
    )


def heading(column: str) -> str:
    """Return ``time_to_first_token_ms`` as ``time to first token (ms)``."""
    if column.startswith("usd_per_"):
        return column.replace("usd", "USD").replace("_", " ")
    for suffix, unit in SUFFIXES.items():
        if column.endswith(f"_{suffix}"):
            return f"{column.removesuffix(f'_{suffix}').replace('_', ' ')} ({unit})"
    return column.replace("_", " ")


def is_numeric(column: "pd.Series[Any]") -> bool:
    """Tell whether ``column`` holds numbers, which are aligned on the right."""
    return column.dtype.kind in "iuf" and not _is_moment(str(column.name))


def cell(value: Any, column: str) -> str:
    """Return one value as text: nothing is a dash, a share a percentage, nanoseconds a time of day."""
    if value is None or str(value) in ("nan", "NaT", "<NA>"):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) or hasattr(value, "dtype"):
        if _is_moment(column) and value > 1e17:
            return wording.clock(int(value))
        if column == "certainty" or column.endswith("share"):
            return wording.percent(float(value))
        if "usd" in column.split("_"):
            return wording.dollars(float(value)).replace("$", "")
        return wording.number(float(value))
    if hasattr(value, "strftime"):
        return str(value.strftime("%H:%M:%S"))
    return _cut(str(value))


def _is_moment(column: str) -> bool:
    return column == "time" or column.endswith("_time")


def _cut(text: str) -> str:
    """Cut a long text between words: half a password is harder to recognise than a whole one."""
    if len(text) <= MOST_CHARACTERS:
        return text
    return text[:MOST_CHARACTERS].rpartition(" ")[0] + " …"
