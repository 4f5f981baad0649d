"""Statements of the database as estimates look at them: those that read, whose text is known, most time first."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from perfnb.attribution.statements import HOW_TO_SEE_STATEMENTS, statements
from perfnb.errors import NotMeasured, WrongUse
from perfnb.recording import Recording
from perfnb.sql import Statement, parsed

LONGEST_BRIEF = 80


def reading_statements(recording: Recording) -> pd.DataFrame:
    """Return the SELECTs that clients sent in the window, most time first: the columns of ``statement_windows``, ``read``
    (their structure), and ``share`` (their part of the database's time).

    Raises NotMeasured where statements were not seen twice, or none of them reads.
    """
    recording.require("statements")
    frame: pd.DataFrame = recording.derived("reading statements", lambda: _reading(recording))
    if frame.empty:
        raise NotMeasured("no statement that reads was seen with its text", hint=HOW_TO_SEE_STATEMENTS)
    return frame


def chosen(recording: Recording, queryid: str | None, fits: Callable[[Any], bool], what: str) -> Any:
    """Return the statement ``queryid``, else the one of the most time that ``fits``; raises NotMeasured for none."""
    frame = reading_statements(recording)
    if queryid is not None:
        found = frame[frame["queryid"] == queryid]
        if found.empty:
            raise WrongUse(f"no statement {queryid} that reads was seen", hint="one of pg_stat_statements' queryid")
        return found.iloc[0]
    for _, row in frame.iterrows():
        if fits(row):
            return row
    raise NotMeasured(f"none of {len(frame)} statements {what}", hint="name another: statement=QUERYID")


def brief(text: str, length: int = LONGEST_BRIEF) -> str:
    """Return a statement in one line of at most ``length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _reading(recording: Recording) -> pd.DataFrame:
    frame = statements(recording)
    frame = frame[frame["is_top_level"].astype("boolean").fillna(True) & frame["query"].notna()].copy()
    total = float(frame["total_exec_time_ms"].sum())
    read: list[Statement | None] = [parsed(query) for query in frame["query"]]
    frame["read"] = pd.Series(read, frame.index, dtype=object)
    frame["share"] = frame["total_exec_time_ms"] / total if total else 0.0
    is_select = frame["read"].map(lambda one: one is not None and one.kind == "select" and bool(one.tables))
    return frame[is_select.astype(bool)].reset_index(drop=True)
