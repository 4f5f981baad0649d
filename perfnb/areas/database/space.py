"""Rows nobody needs any more: sessions, messages, logs that are kept for ever."""

import re
from typing import Any

import pandas as pd
import psycopg
from psycopg import sql

from perfnb.areas.database.index_inventory import MB, database_bytes
from perfnb.areas.database.maintenance import tables
from perfnb.areas.database.maintenance_statements import count_old, count_orphans, delete_old, delete_orphans
from perfnb.attribution.objects import objects
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

HOW_TO_SEE_AGES = "statistics of time columns: ANALYZE the tables, and record with a role that may read them (pg_stats)"

# A column that tells when a row was last of use; a table that has one holds what passes.
LAST_USED = re.compile(r"^(last_(active|seen|used|access(ed)?|login|activity|visit|message)(_at|_on|_time)?|expire[sd]?(_at|_on|_date)?|accessed_at)$")  # fmt: skip
CREATED = re.compile(r"^(created|created_at|created_on|inserted_at|sent_at|logged_at|occurred_at|received_at|timestamp|time|ts|date|datetime|updated_at|modified_at)$")  # fmt: skip
PASSING = re.compile(r"(^|_)(session|message|conversation|chat|turn|event|log|audit|history|trace|span|notification|token|visit|request|job|task|queue|cache|archive|tmp|temp)(e?s)?($|_)")  # fmt: skip


def passing_rows(recording: Recording, *, days: float = 90) -> pd.DataFrame:
    """Return tables whose rows pass out of use, with the part of them that is older than ``days``.

    Columns: name, column (the time it goes by), bytes, rows, inserted, deleted, older (part of the rows, as of the
    last ANALYZE; NA where there are no statistics), counted_days (what ``older`` counts from), old_bytes, parent (the
    table that it hangs on by a foreign key, if that passes too). A table passes if it has a column of last use, or is
    named for what passes, or hangs on one that does; what an app knows (documents, products) does not.
    """
    frame = tables(recording)
    columns = objects(recording, "column")
    keys = objects(recording, "foreign_key")
    times = {name: _time_column(group, days) for name, group in _by_table(columns)}
    named = {name for name in frame["name"] if PASSING.search(name.partition(".")[2])}
    last_used = {name for name, found in times.items() if found and LAST_USED.match(found["column"])}
    passing = named | last_used
    parents = {row["table"]: row["target"] for row in keys.to_dict("records") if row["target"] in passing}
    rows = [
        {**_of_table(row), **(times.get(row["name"]) or {}), "parent": parents.get(row["name"])}
        for row in frame.to_dict("records")
        if row["name"] in passing | set(parents) and times.get(row["name"])
    ]
    found = pd.DataFrame(rows, columns=[*_OF_TABLE, "column", "older", "counted_days", "parent"])
    found["older"] = found["older"].astype(float)
    return found.assign(old_bytes=found["bytes"].astype(float) * found["older"])


_OF_TABLE = ["name", "bytes", "rows", "inserted", "deleted", "deleted_grown"]


def _of_table(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _OF_TABLE}


def _by_table(columns: pd.DataFrame) -> "list[tuple[str, list[dict[str, Any]]]]":
    times = columns[columns["type"].astype(str).str.match(r"^(timestamp|date)")]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in times.to_dict("records"):
        table, _, column = row["name"].rpartition(".")
        found.setdefault(table, []).append(row | {"column": column})
    return list(found.items())


def _time_column(columns: list[dict[str, Any]], days: float) -> dict[str, Any] | None:
    """Return the time to judge rows by: of last use, or of making where there is no other."""
    for pattern in (LAST_USED, CREATED):
        for row in columns:
            if pattern.match(row["column"]):
                counted, older = _older(row["older"], days)
                return {"column": row["column"], "older": older, "counted_days": counted}
    return None


def _older(told: object, days: float) -> tuple[float, float | None]:
    """Return the part of rows older than ``days``: of the next longer time that was counted, so rather too little."""
    counted = {float(key): float(value) for key, value in told.items()} if isinstance(told, dict) else {}
    longer = sorted(key for key in counted if key >= days)
    return (longer[0], counted[longer[0]]) if longer else (days, None)


@check("stale-rows", area="database")
def stale_rows(
    recording: Recording,
    objectives: Objectives,
    *,
    min_older: float = 0.5,
    least_bytes: float = 5 * MB,
    least_rows: float = 10_000,
    min_share: float = 0.1,
    max_deleted: float = 0.05,
) -> Finding | Clear:
    """Sessions and messages of long ago fill the database, and nothing deletes any (R64).

    Seen in the planner's statistics of time columns, so that no row is read. Orphans can't be seen that way: their
    count is given as a statement. How long rows must be kept is not known either; what is old is not yet useless.

    Source: E15, E16, C13, C14; PostgreSQL manual, pg_stats (histogram_bounds, most_common_vals)
    """
    limit = objectives["session_days"]
    days = float(limit.value)
    frame = passing_rows(recording, days=days)
    large = frame[(frame["bytes"] >= least_bytes) & (frame["rows"] >= least_rows)]
    kept = large[large["deleted"].fillna(0) <= max_deleted * large["inserted"].fillna(0).clip(lower=1)]
    judged = kept.dropna(subset=["older"])
    if len(kept) and judged.empty:
        raise NotMeasured("no statistics of time columns", hint=HOW_TO_SEE_AGES)
    found = judged[judged["older"] >= min_older].sort_values("old_bytes", ascending=False)
    share = min(1.0, float(found["old_bytes"].sum()) / database_bytes(recording))
    examined = f"{len(frame)} tables hold what passes (sessions, messages, logs), {len(large)} of them {least_bytes / MB:g} MB or more; {len(found)} are kept for ever and mostly older than {days:g} days"
    if found.empty or share < min_share:
        return Clear(examined)
    worst = found.iloc[0]
    return Finding(
        title=f"{worst['older']:.0%} of {worst['name'].removeprefix('public.')} are older than {worst['counted_days']:g} days, and none are deleted",
        severity=severity(1.5 + float(worst["older"]), share),
        share=share,
        symptom="bytes",
        evidence=(
            *(f"{row['name']}: {row['older']:.0%} of {row['rows']:,.0f} rows have a {row['column']} more than {row['counted_days']:g} days back; {row['deleted']:,.0f} deleted since counters began" for row in found.head(4).fillna({"deleted": 0}).to_dict("records")),
            f"about {found['old_bytes'].sum() / MB:,.1f} MB, {share:.0%} of the database's bytes, by the statistics of the last ANALYZE; limit {days:g} days (E15)",
        ),
        remedy="Agree how long they must be kept, count, then delete in batches on a schedule, children first (or partition by time and drop partitions):\n"
        + "\n".join(_cleanup(recording, found, days)),
        effort="medium",
        frame=found.head(50),
        figure="table_sizes",
    )  # fmt: skip


def _cleanup(recording: Recording, found: pd.DataFrame, days: float) -> list[str]:
    ordered = found.sort_values("parent", na_position="last").head(4)
    lines = [line for row in ordered.to_dict("records") for line in (count_old(row["name"], row["column"], days), delete_old(row["name"], row["column"], days))]  # fmt: skip
    return [*lines, *_orphans(recording, set(found["name"]))]


def _orphans(recording: Recording, names: set[str]) -> list[str]:
    """Return counts and deletes of orphans for columns named like a reference (session_id) that no foreign key guards."""
    columns = [name.rpartition(".")[::2] for name in objects(recording, "column")["name"]]
    known = objects(recording, "foreign_key")
    guarded = {(row["table"], column) for row in known.to_dict("records") for column in row["columns"] or ()}
    targets = {f"{name.partition('.')[2].removesuffix('s')}_id": name for name in objects(recording, "table")["name"]}
    loose = [(table, column) for table, column in columns if table in names and (table, column) not in guarded]
    return [
        statement
        for table, column in loose
        if column in targets and targets[column] != table
        for statement in (count_orphans(table, column, targets[column], "id"), delete_orphans(table, column, targets[column], "id"))
    ]  # fmt: skip


def oldest_rows(
    connection: "psycopg.Connection[Any]", table: str, column: str, *, days: float = 90, timeout_ms: int = 2000
) -> pd.DataFrame:
    """Return oldest, rows and old_rows (older than ``days``) of ``table`` (``schema.table``): reads the whole table.

    Only when asked for, in a read-only transaction that ends after ``timeout_ms``. Raises NotMeasured where that does not do.
    """
    schema, _, name = table.partition(".")
    statement = sql.SQL(
        "SELECT /* perfnb */ min({column}) AS oldest, count(*) AS rows, "
        "count(*) FILTER (WHERE {column} < now() - make_interval(secs => %s)) AS old_rows FROM {table}"
    ).format(column=sql.Identifier(column), table=sql.Identifier(schema, name))
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION READ ONLY")
            connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(timeout_ms)))
            row = connection.execute(statement, [days * 86_400]).fetchone()
    except psycopg.errors.QueryCanceled:
        raise NotMeasured(
            f"{table} was not counted within {timeout_ms} ms", hint="allow more time: timeout_ms=…"
        ) from None
    return pd.DataFrame([row], columns=["oldest", "rows", "old_rows"])
