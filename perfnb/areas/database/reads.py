"""Reads that need not reach the primary: the same row for every request, and all of them where it is saturated."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from perfnb.areas.database.loops import id_filter, repeated
from perfnb.areas.database.relations import Relations, relations
from perfnb.areas.database.workload import brief, felt_severity, running, workload
from perfnb.attribution import observed
from perfnb.attribution.objects import require_objects
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording
from perfnb.sql import parsed

HOW_TO_SEE_SESSIONS = "sessions of the server: perfnb record --dsn DSN, with a role of pg_monitor"


@check("uncached-session-reads", area="database")
def uncached_session_reads(
    recording: Recording,
    objectives: Objectives,
    *,
    per_request: tuple[float, float] = (0.8, 5),
    min_share: float = 0.1,
    min_ms: float = 2,
    max_changes: float = 0.35,
    reads_per_row: float = 5,
    least: int = 20,
) -> Finding | Clear:
    """About every request reads one row by its id that hardly ever changes, and it is felt (R67).

    Nearly every app does this, and most need nothing better: it is named only where it takes a tenth of the users'
    wait, or a tenth of the database's time and at least 2 ms of each request. Rows must be read often (calls by rows)
    and changed seldom (the table's inserts, updates and deletes by calls, while observed).

    Source: E50
    """
    frame = workload(recording)
    if frame["calls_per_request"].isna().all():
        raise NotMeasured(
            "requests were not seen",
            hint="requests beside statements: perfnb record --dsn DSN --listen PORT --app URL, or --otlp",
        )
    known = relations(recording)
    if not known.tables:
        raise NotMeasured("tables were not seen", hint="changes of tables: perfnb record --dsn DSN")
    judged = frame[(frame["kind"] == "select") & ~frame["shape"].isin(repeated(recording)["shape"])]
    judged = judged[judged["calls_per_request"].between(*per_request) & (judged["calls"] >= least)]
    told = pd.DataFrame([_session_row(recording, row, known) for row in judged.to_dict("records")])
    if told.empty or not told["is_one_row"].any():
        return Clear(f"none of {len(frame)} statements reads one row by its id about once a request")
    told = told[told["is_one_row"]]
    steady = told[(told["changes_per_call"] <= max_changes) & (told["reads_per_row"] >= reads_per_row)]
    felt = (steady["share_of_wait"] >= min_share) | (
        (steady["share"] >= min_share) & (steady["ms_per_request"] >= min_ms)
    )
    found = steady[felt]
    if found.empty:
        most = told.nlargest(1, "share").iloc[0]
        return Clear(
            f"{len(told)} statements read one row about once a request; the first takes {most['share']:.0%} of the database's time and {most['ms_per_request']:.1f} ms a request: not worth a cache"
        )
    first = found.iloc[0]
    share = float(min(1.0, found["share"].sum()))
    return Finding(
        title=f"Each request reads {first['table']} by {first['column']}, though a row changes once in {_once_in(first)} reads",
        severity=felt_severity(1 + first["calls_per_request"] * share, share, first["share_of_wait"]),
        share=share,
        symptom="database time",
        evidence=(
            f"{first['calls_per_request']:.1f} calls and {first['ms_per_request']:.1f} ms a request, {first['share']:.0%} of the database's time, {first['share_of_wait']:.0%} of the users' wait",
            f"{first['rows']:.0f} rows, each read about {first['reads_per_row']:.0f} times since the counters began; {first['changes']:.0f} changes while observed",
            brief(str(first["statement"])),
        ),
        remedy="Keep the row by its id for minutes (E50: 300 s), in the process (cachetools.TTLCache) or in Redis for several, and drop it from there where the app changes it; what must end at once (a sign-out) has to be dropped, not waited for.",
        effort="low",
        frame=found[["statement", "table", "column", "calls", "calls_per_request", "ms_per_request", "share", "share_of_wait", "rows", "changes", "reads_per_row"]].reset_index(drop=True),
        figure="top_statements",
    )  # fmt: skip


def _session_row(recording: Recording, row: Mapping[str, Any], known: Relations) -> dict[str, Any]:
    """Return ``row`` with the table and key it reads, how often a row is read, and how often one changes."""
    statement = parsed(str(row["statement"]))
    by_id = statement and id_filter(statement, known)
    made = dict(row) | {"is_one_row": False}
    if not statement or not by_id or not known.is_key(by_id.table, by_id.column) or len(statement.tables) != 1:
        return made
    facts = known.tables.get(known.name(by_id.table), {})
    rows = known.rows(by_id.table)
    changes = sum(facts.get(f"{what}_grown", 0.0) for what in ("inserted", "updated", "deleted"))
    answers_one = pd.isna(row["rows_per_call"]) or row["rows_per_call"] <= 1
    return made | {
        "is_one_row": bool(answers_one and rows),
        "table": by_id.table,
        "column": by_id.column,
        "rows": rows or 0.0,
        "changes": changes,
        "changes_per_call": changes / float(row["calls"]),
        "reads_per_row": _calls_ever(recording, row) / rows if rows else 0.0,
    }


_CALLS_EVER = """
SELECT coalesce(sum(calls), 0) AS calls FROM (
    SELECT max(calls) AS calls FROM statements WHERE list_contains($ids, queryid) GROUP BY server, database, role, queryid)
"""


def _calls_ever(recording: Recording, row: Mapping[str, Any]) -> float:
    if row["seen_by"] != "counters":
        return float(row["calls"])
    return float(recording.query(_CALLS_EVER, {"ids": list(row["queryids"])})["calls"].iloc[0])


def _once_in(row: pd.Series) -> str:
    return f"{row['calls'] / row['changes']:.0f}" if row["changes"] else f"more than {row['calls']:.0f}"


@check("read-load-on-primary", area="database")
def read_load_on_primary(
    recording: Recording,
    objectives: Objectives,
    *,
    read_share: float = 0.8,
    one_statement: float = 0.5,
    full: float = 0.9,
    cores_unknown: float = 8,
    least: int = 10,
) -> Finding | Clear:
    """A server that takes writes is busy to its limit, and nearly all of it is reading (R66).

    Busy means sessions at work (running, or waiting for I/O; not for locks or clients), on average as many as nine
    tenths of the cores, or eight where the server's cores are not known. Where one statement makes half of the reading,
    or rows are read one by one, mending that comes before a replica, and it is not named.

    Source: E44; PostgreSQL wiki, Number Of Database Connections
    """
    server = require_objects(recording, "server")
    if server["is_in_recovery"].fillna(False).any() and not (~server["is_in_recovery"].fillna(False)).any():
        return Clear("the server is a standby")
    looks, times = running(recording), _looks(recording)
    if times < least:
        raise NotMeasured(f"sessions were looked at {times} times", hint=HOW_TO_SEE_SESSIONS)
    busy = float((~looks["waits_for"].isin(("Lock", "Client", "Timeout"))).sum()) / times
    cores = _cores(recording, str(server["name"].iloc[0]))
    limit = full * cores if cores else cores_unknown
    frame = workload(recording)
    is_read = [_only_reads(kind, text) for kind, text in zip(frame["kind"], frame["statement"], strict=True)]
    reads = frame[pd.Series(is_read, frame.index, dtype=bool)]
    part = float(reads["share"].sum())
    said = f"{busy:.1f} sessions at work on average of {times} looks, {f'{cores:.0f} cores' if cores else 'cores not known'}; reads take {part:.0%} of the statements' time"
    if busy < limit or part < read_share:
        return Clear(said)
    others = reads[~reads["shape"].isin(repeated(recording)["shape"])]
    if others["share"].sum() < one_statement or float(reads["share"].max()) >= one_statement * part:
        return Clear(f"{said}; few statements make most of it, so mend those")
    replicas = int(server["replicas"].fillna(0).max())
    return Finding(
        title=f"Reads keep the primary busy: {busy:.1f} sessions at work, {part:.0%} of the time in selects",
        severity=severity(busy / limit * 1.1, part),
        share=min(1.0, part),
        symptom="database time",
        evidence=(
            said,
            f"{len(reads)} different selects, the longest takes {reads['share'].max():.0%} of the time",
            f"{replicas} standbys follow this server" if replicas else "no standby follows this server",
        ),
        remedy="Cache what is read alike first; then send reads that may be a little late to a standby (target_session_attrs=prefer-standby, a second engine for reads) and leave writes, and reads of what was just written, on the primary.",
        effort="high",
        frame=reads.head(20)[["statement", "calls", "share", "mean_exec_time_ms", "rows_per_call", "blocks_per_call"]].assign(statement=[brief(text, 200) for text in reads.head(20)["statement"]]),
        figure="top_statements",
    )  # fmt: skip


def _only_reads(kind: str, text: str) -> bool:
    statement = parsed(text)
    return kind == "select" and not (statement is not None and (statement.locks_rows or statement.written))


def _looks(recording: Recording) -> int:
    """Return at how many moments sessions were seen by a role that may see their state."""
    frame = observed(recording).query(
        "SELECT count(DISTINCT time) AS times FROM observed_activity WHERE state IS NOT NULL AND backend = 'client backend'"
    )
    return int(frame["times"].iloc[0])


_CORES = """
SELECT median(a.value / 100 / b.value) AS cores FROM observed_samples a JOIN observed_samples b
  ON b.entity = a.entity AND b.time = a.time AND b.metric = 'cpu_of_host' AND b.value > 0.001
WHERE a.metric = 'cpu_percent' AND a.source = 'process'
"""


def _cores(recording: Recording, server: str) -> float | None:
    """Return this host's cores where the server runs on it and a process's share of them was recorded."""
    if server.rpartition(":")[0].strip("[]") not in (
        "127.0.0.1",
        "localhost",
        "::1",
        "",
        "/tmp",
        "/var/run/postgresql",
    ):
        return None
    cores = recording.query(_CORES)["cores"].iloc[0]
    return None if pd.isna(cores) else float(round(cores))
