"""What each statement did while the target was observed: counters read twice and subtracted, without what trials did.

The server counts since its last reset. Between two snapshots a counter that fell began anew (a reset, or the statement
was thrown out and came back), so what it shows then is what was added. A statement that first appears in a later
snapshot ran since the one before.
"""

import pandas as pd

from perfnb.attribution.observed import observed, trial_windows
from perfnb.errors import NotMeasured
from perfnb.recording import Recording

HOW_TO_SEE_STATEMENTS = (
    "statements of Postgres, seen twice: perfnb record --dsn DSN, with pg_stat_statements on the server"
)
KEY = "server, database, role, queryid, is_top_level"

SUMMED = (
    "calls", "plans", "total_plan_time_ms", "total_exec_time_ms", "rows", "shared_blocks_hit", "shared_blocks_read",
    "shared_blocks_dirtied", "shared_blocks_written", "temp_blocks_read", "temp_blocks_written", "block_read_time_ms",
    "block_write_time_ms", "temp_block_time_ms", "wal_bytes",
)  # fmt: skip

# Sums of squares, so that the deviation within the window can be had from two readings.
_SQUARES = "calls * (stddev_exec_time_ms * stddev_exec_time_ms + mean_exec_time_ms * mean_exec_time_ms)"


def _deltas() -> str:
    changes = ",\n       ".join(
        f"CASE WHEN began_anew THEN {name} ELSE {name} - before_{name} END AS {name}" for name in (*SUMMED, "squares")
    )
    befores = ", ".join(f"lag({name}) OVER same AS before_{name}" for name in (*SUMMED, "squares", "max_exec_time_ms"))
    return f"""
WITH readings AS (
    SELECT s.*, {_SQUARES} AS squares, n.before_time, n.is_outside_trials FROM statements s
    JOIN statement_snapshots n ON n.server = s.server AND n.database = s.database AND n.time = s.time
    WHERE s.queryid IS NOT NULL
),
pairs AS (SELECT *, {befores} FROM readings WINDOW same AS (PARTITION BY {KEY} ORDER BY time)),
judged AS (
    SELECT *, before_calls IS NULL OR calls < before_calls AS began_anew FROM pairs
    WHERE before_time IS NOT NULL
)
SELECT {KEY}, time, before_time, query,
       {changes},
       CASE WHEN began_anew OR max_exec_time_ms > before_max_exec_time_ms THEN max_exec_time_ms END AS max_exec_time_ms
FROM judged
WHERE is_outside_trials AND (began_anew OR calls > before_calls)
"""


_SNAPSHOTS = """
CREATE OR REPLACE TEMP TABLE statement_snapshots AS
SELECT *, before_time IS NOT NULL AND ({outside}) AS is_outside_trials FROM (
    SELECT server, database, time, lag(time) OVER (PARTITION BY server, database ORDER BY time) AS before_time
    FROM (SELECT DISTINCT server, database, time FROM statements)
)
"""


def _totals() -> str:
    sums = ", ".join(f"sum({name}) AS {name}" for name in SUMMED)
    return f"""
CREATE OR REPLACE TEMP TABLE statement_windows AS
SELECT {KEY}, max(query) AS query, {sums},
       sum(total_exec_time_ms) / sum(calls) AS mean_exec_time_ms,
       sqrt(greatest(0, sum(squares) / sum(calls) - power(sum(total_exec_time_ms) / sum(calls), 2)))
           AS stddev_exec_time_ms,
       max(max_exec_time_ms) AS max_exec_time_ms
FROM statement_deltas GROUP BY {KEY} HAVING sum(calls) > 0
"""


def prepare_statements(recording: Recording) -> Recording:
    """Make ``statement_deltas`` (one row per statement and pair of snapshots) and ``statement_windows`` (one row per
    statement), and return ``recording``.

    Both have the columns of ``statements``, counters being what was added; ``max_exec_time_ms`` is null where the
    longest execution was before the window. Raises NotMeasured where there are not two snapshots.
    """

    def build() -> int:
        observed(recording)
        taken = int(recording.query("SELECT count(DISTINCT time) AS n FROM statements")["n"].iloc[0])
        if taken < 2:
            return taken
        trials = trial_windows(recording).values()
        outside = " AND ".join(f"NOT (before_time < {end} AND time > {begin})" for begin, end in trials) or "true"
        connection = recording.refresh()
        connection.execute(_SNAPSHOTS.format(outside=outside))
        connection.execute(f"CREATE OR REPLACE TEMP TABLE statement_deltas AS {_deltas()}")
        connection.execute(_totals())
        return taken

    if recording.derived("statements", build) < 2:
        raise NotMeasured("fewer than two snapshots of statements", hint=HOW_TO_SEE_STATEMENTS)
    return recording


def statements(recording: Recording) -> pd.DataFrame:
    """Return one row per statement that ran in the window, most time first: what ``statement_windows`` has."""
    return prepare_statements(recording).query("SELECT * FROM statement_windows ORDER BY total_exec_time_ms DESC")


def database_time_ms(recording: Recording) -> float:
    """Return the execution time of all statements that clients sent in the window."""
    return float(
        prepare_statements(recording)
        .query(
            "SELECT coalesce(sum(total_exec_time_ms), 0) AS ms FROM statement_windows WHERE coalesce(is_top_level, true)"
        )["ms"]
        .iloc[0]
    )


def statement_seconds(recording: Recording) -> float:
    """Return for how long statements were counted, trials left out."""
    frame = prepare_statements(recording).query(
        "SELECT coalesce(sum(length), 0) AS ns FROM (SELECT server, max(time - before_time) AS length "
        "FROM statement_snapshots WHERE is_outside_trials GROUP BY server, time)"
    )
    return float(frame["ns"].iloc[0]) / 1e9
