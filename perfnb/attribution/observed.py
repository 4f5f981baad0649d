"""What the diagnosis looks at: the recording without what was seen while a trial ran, or one trial alone.

A trial sends traffic of its own and changes the target meanwhile, so what was recorded during it says nothing of how
things are: requests, calls, spans, samples and stacks from its first request to its last answer are left out, and so
is whatever else carries an arm of it or lies in its traces. :class:`OfTrial` is the other side: the same tables with
one trial's traffic in them, so that all that is known of calls and requests can be asked of it too. A trial of one
statement sends no traffic, yet the database works for it meanwhile, and others may wait: its time is left out likewise.
"""

from pathlib import Path
from typing import Self

import pandas as pd

from perfnb.recording import TABLES, Recording

OBSERVED = ("http_requests", "llm_calls", "spans", "samples", "stacks", "activity")

_TRIALS = """
CREATE OR REPLACE TEMP TABLE trial_rows AS
SELECT split_part(arm, '/', 1) AS trial, trace_id, start_time,
       start_time + CAST(coalesce(duration_ms, 0) * 1e6 AS BIGINT) AS end_time
FROM http_requests WHERE arm IS NOT NULL
UNION ALL
SELECT split_part(arm, '/', 1), trace_id, start_time,
       start_time + CAST(coalesce(duration_ms, 0) * 1e6 AS BIGINT)
FROM llm_calls WHERE arm IS NOT NULL
UNION ALL
SELECT body ->> '$.trial', NULL, CAST(body ->> '$.started_ns' AS BIGINT), CAST(body ->> '$.ended_ns' AS BIGINT)
FROM events WHERE kind = 'trial' AND body ->> '$.mode' IN ('session', 'rolled back')
"""


class OfTrial(Recording):
    """A recording of which only what was seen during one trial is looked at; open it with :meth:`of`."""

    trial: str = ""

    @classmethod
    def of(cls, path: Path, trial: str) -> Self:
        """Return the trial ``trial`` of the recording at ``path``."""
        made = cls.open(path)
        made.trial = trial
        return made


def observed(recording: Recording) -> Recording:
    """Make the views ``observed_http_requests``, ``observed_llm_calls``, ``observed_spans`` …, and return ``recording``."""
    trial_windows(recording)
    return recording


def observed_seconds(recording: Recording) -> float:
    """Return how long the target was observed, without the time in which trials ran."""
    windows = trial_windows(recording)
    if not windows:
        return recording.window.seconds
    parts = [
        f"SELECT min({_time(table)}) AS first, max({_end(table)}) AS last FROM observed_{table}" for table in OBSERVED
    ]
    row = recording.query(f"SELECT min(first) AS first, max(last) AS last FROM ({' UNION ALL '.join(parts)})").iloc[0]
    if pd.isna(row["first"]):
        return 0.0
    first, last = int(row["first"]), int(row["last"])
    trials = sum(max(0, min(last, end) - max(first, begin)) for begin, end in windows.values())
    return max(0, last - first - trials) / 1e9


def trial_windows(recording: Recording) -> dict[str, tuple[int, int]]:
    """Return when each trial began and ended, in ns since 1970."""
    windows: dict[str, tuple[int, int]] = recording.derived("observed", lambda: _build(recording))
    return windows


def _time(table: str) -> str:
    return TABLES[table].time


def _end(table: str) -> str:
    has_duration = "duration_ms" in TABLES[table].types
    return _time(table) + (" + CAST(coalesce(duration_ms, 0) * 1e6 AS BIGINT)" if has_duration else "")


def _build(recording: Recording) -> dict[str, tuple[int, int]]:
    connection = recording.refresh()
    connection.execute(_TRIALS)
    rows = connection.execute("SELECT trial, min(start_time), max(end_time) FROM trial_rows GROUP BY trial").fetchall()
    windows = {trial: (int(first), int(last)) for trial, first, last in rows}
    for table in OBSERVED:
        condition = _condition(table, windows, getattr(recording, "trial", ""))
        connection.execute(f"CREATE OR REPLACE TEMP VIEW observed_{table} AS FROM {table} WHERE {condition}")
    return windows


def _condition(table: str, windows: dict[str, tuple[int, int]], trial: str) -> str:
    if trial:
        return _within(table, windows.get(trial, (0, 0))) + _only(table, trial)
    if not windows:
        return "true"
    return " AND ".join([f"NOT ({_within(table, window)})" for window in windows.values()] + _foreign(table))


def _within(table: str, window: tuple[int, int]) -> str:
    return f"{_time(table)} BETWEEN {window[0]} AND {window[1]}"


def _foreign(table: str) -> list[str]:
    """Return what a row outside every trial's time must meet to be none of a trial's."""
    types = TABLES[table].types
    parts = ["arm IS NULL"] if "arm" in types else []
    if "trace_id" in types:
        parts.append(
            "(trace_id IS NULL OR trace_id NOT IN (SELECT trace_id FROM trial_rows WHERE trace_id IS NOT NULL))"
        )
    return parts


def _only(table: str, trial: str) -> str:
    """Return what a row in the trial's time must meet; a front saw the trial's requests a second time."""
    name = trial.replace("'", "''")
    arm = f"(arm IS NULL OR split_part(arm, '/', 1) = '{name}')"
    if table == "llm_calls":
        return f" AND {arm}"
    if table != "http_requests":
        return ""
    seen = "SELECT trace_id FROM trial_rows WHERE trace_id IS NOT NULL"
    return f" AND {arm} AND (arm IS NOT NULL OR source = 'span' OR trace_id IS NULL OR trace_id NOT IN ({seen}))"
