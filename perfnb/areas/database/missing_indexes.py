"""Indexes that are not there: statements that read much of a large table to find few of its rows."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from perfnb.areas.database.index_advice import Advice, KnownColumn, KnownTable, advice, blocks, size_bytes
from perfnb.areas.database.index_inventory import MB, indexes
from perfnb.areas.database.maintenance import tables
from perfnb.areas.database.maintenance_statements import column as quoted_column
from perfnb.areas.database.maintenance_statements import create_index
from perfnb.areas.database.workload import brief, waits_for_locks, workload
from perfnb.attribution.objects import objects
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Estimate, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording
from perfnb.sql import Part, Statement, parsed

LEAST_ROWS = 10_000
LEAST_BYTES = MB

# A statement counts as one that scans if a call touches so much of the table, or so many of its rows are read.
SCANNED = 0.2

_COLUMNS = [
    "table", "ddl", "statement", "shape", "calls", "mean_exec_time_ms", "share", "rows_per_call", "matched_rows",
    "blocks_now", "blocks_least", "blocks_most", "size_least_bytes", "size_most_bytes", "heap_bytes", "is_sure", "seen_in", "note",
]  # fmt: skip


def suggested_indexes(
    recording: Recording, *, least_calls: int = 3, least_ms: float = 2, min_share: float = 0.02
) -> pd.DataFrame:
    """Return one row per statement and index that it lacks, most of the database's time first.

    Columns: table, ddl (``CREATE INDEX CONCURRENTLY ON …``), statement, shape, calls, mean_exec_time_ms, share (of the
    database's time), rows_per_call, matched_rows (of a call, estimated), blocks_now (a call reads; NA where not
    counted), blocks_least and blocks_most (with the index), size_least_bytes and size_most_bytes (of the index),
    heap_bytes (what building it reads), is_sure (false for GIN, whose gain depends on what is looked for), seen_in
    (counters or plan), note. Statements ordered by a vector's distance are not judged here. Raises NotMeasured where
    neither statements nor the catalog were seen.
    """
    known = _known_tables(recording)
    frame = workload(recording)
    frame = frame[
        (frame["calls"] >= least_calls) & (frame["mean_exec_time_ms"] >= least_ms) & (frame["share"] >= min_share)
    ]
    frame = frame[~frame["shape"].isin(waits_for_locks(recording))]
    scans = _scans_in_plans(recording)
    rows = [row for statement in frame.to_dict("records") for row in _suggested(statement, known, scans)]
    return pd.DataFrame(rows, columns=_COLUMNS).drop_duplicates(["ddl", "shape"], ignore_index=True)


def _suggested(
    row: dict[str, Any], known: "Mapping[str, _Seen]", scans: set[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    statement = parsed(row["statement"])
    if statement is None or statement.distance is not None:
        return
    for part in statement.parts:
        for name in part.tables:
            seen = known.get(name)
            in_plan = seen is not None and any((queryid, seen.table.name) in scans for queryid in row["queryids"] or ())
            if seen is None or not (in_plan or seen.is_scanned_by(row)):
                continue
            found = advice(
                part, seen.table, rows_per_call=_own_rows(row, statement, part), joined=_joined(part, seen.table)
            )
            if found is not None:
                yield _row(row, found, seen, in_plan)


def _own_rows(row: dict[str, Any], statement: Statement, part: Part) -> float | None:
    """Return the rows of a call where they are all that its conditions match, else None."""
    is_all = (
        len(statement.parts) == 1
        and len(part.tables) == 1
        and not (part.has_limit or part.group_by or part.is_aggregate)
    )
    return float(row["rows_per_call"]) if is_all and not pd.isna(row["rows_per_call"]) else None


def _joined(part: Part, table: KnownTable) -> list[str]:
    """Return columns of ``table`` that rows of another table, narrowed down by an equality, are joined by."""
    names = (table.name, table.name.partition(".")[2])
    if any(each.table in names and each.operator in ("=", "in") and each.is_required for each in part.filters):
        return []
    narrowed = {each.table for each in part.filters if each.operator in ("=", "in") and each.is_required}
    sides = [(join.left, join.right) for join in part.joins] + [(join.right, join.left) for join in part.joins]
    return [mine.column for mine, other in sides if mine.table in names and other.table in narrowed]


def _row(row: dict[str, Any], found: Advice, seen: "_Seen", in_plan: bool) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("statement", "shape", "calls", "mean_exec_time_ms", "share", "rows_per_call")},
        "table": found.table, "ddl": found.ddl, "matched_rows": found.matched_rows, "blocks_now": row["blocks_per_call"],
        "blocks_least": found.blocks[0], "blocks_most": found.blocks[1], "size_least_bytes": found.size_bytes[0],
        "size_most_bytes": found.size_bytes[1], "heap_bytes": seen.table.heap_bytes, "is_sure": "USING gin" not in found.ddl,
        "seen_in": "plan" if in_plan else "counters", "note": found.note,
    }  # fmt: skip


class _Seen:
    """A large table, and what was read of it while observed."""

    def __init__(self, table: KnownTable, row: Mapping[str, Any]) -> None:
        self.table = table
        parts = [row["sequential_rows_grown"], row["index_rows_grown"]]
        told = [float(each) for each in parts if not pd.isna(each)]
        self._read = sum(told) if told else None
        self._scans = None if pd.isna(row["sequential_scans_grown"]) else float(row["sequential_scans_grown"])

    def is_scanned_by(self, row: Mapping[str, Any]) -> bool:
        """Tell whether calls of a statement may well each read a fair part of the table.

        Its blocks must be many by the table's size, and rows must have been read from the table for that many calls.
        Where blocks are not counted, there must be a sequential scan for every other call.
        """
        calls = max(1.0, float(row["calls"]))
        if self._read is not None and self._read / calls < SCANNED / 2 * self.table.rows:
            return False
        if pd.isna(row["blocks_per_call"]):
            return self._scans is not None and self._scans >= 0.5 * calls
        return bool(row["blocks_per_call"] >= SCANNED * self.table.pages)


def _known_tables(recording: Recording) -> dict[str, _Seen]:
    """Return large tables by their qualified names, and by their plain ones where those are of one table alone."""
    frame = tables(recording)
    frame = frame[(frame["rows"] >= LEAST_ROWS) & (frame["heap_bytes"].fillna(0) >= LEAST_BYTES)]
    columns, there = _columns(recording), _indexes(recording)
    seen: dict[str, _Seen] = {}
    for row in frame.to_dict("records"):
        name = row["name"]
        made = KnownTable(name, row["rows"], float(row["heap_bytes"]), columns.get(name, {}), there.get(name, ()))
        seen[name] = _Seen(made, row)
    plain = pd.Series([name.partition(".")[2] for name in objects(recording, "table")["name"]])
    alone = set(plain[~plain.duplicated(keep=False)])
    return seen | {name.partition(".")[2]: one for name, one in seen.items() if name.partition(".")[2] in alone}


def _columns(recording: Recording) -> dict[str, dict[str, KnownColumn]]:
    found: dict[str, dict[str, KnownColumn]] = {}
    for row in objects(recording, "column").to_dict("records"):
        table, _, name = row["name"].rpartition(".")
        told = {key: None if pd.isna(row[key]) else float(row[key]) for key in ("distinct", "null_fraction", "most_common_fraction", "average_bytes", "correlation")}  # fmt: skip
        found.setdefault(table, {})[name] = KnownColumn(
            name, str(row["type"]), told["distinct"], told["null_fraction"] or 0.0, told["most_common_fraction"],
            told["average_bytes"] or 8.0, told["correlation"] or 0.0,
        )  # fmt: skip
    return found


def _indexes(recording: Recording) -> dict[str, list[tuple[str, str, tuple[str, ...], str]]]:
    found: dict[str, list[tuple[str, str, tuple[str, ...], str]]] = {}
    try:
        frame = indexes(recording)
    except NotMeasured:
        return found
    for row in frame[frame["is_valid"].fillna(True)].to_dict("records"):
        predicate = row["predicate"] if isinstance(row["predicate"], str) else ""
        found.setdefault(row["table"], []).append((row["name"], row["method"], tuple(row["keys"] or ()), predicate))
    return found


def _scans_in_plans(recording: Recording) -> set[tuple[str, str]]:
    """Return (queryid, ``schema.table``) of sequential scans with a filter in recorded plans."""
    if not recording.has("plans"):
        return set()
    from perfnb.plans import read_plan

    found = set()
    for row in recording.query("SELECT queryid, plan FROM plans WHERE queryid IS NOT NULL").itertuples():
        try:
            nodes = list(read_plan(str(row.plan)).nodes())
        except Exception:  # a plan that can't be read tells nothing
            continue
        found |= {(str(row.queryid), f"{node.schema or 'public'}.{node.relation}") for node in nodes if node.type == "Seq Scan" and node.filter}  # fmt: skip
    return found


def unindexed_foreign_keys(recording: Recording, *, least_ms: float = 2, min_share: float = 0.02) -> pd.DataFrame:
    """Return foreign keys of large tables without an index, whose target's rows were deleted: each delete reads all.

    Columns as :func:`suggested_indexes`; the statement is the DELETE. (Changes of a key are as dear, and very rare.)
    """
    known, there, rows = _known_tables(recording), _indexes(recording), []
    deletes = _deletes(recording, least_ms, min_share)
    for key in objects(recording, "foreign_key").to_dict("records"):
        seen = known.get(key["table"])
        if seen is None or any(_leads(keys, key["columns"]) for _, _, keys, _ in there.get(key["table"], ())):
            continue
        for row in deletes.get(key["target"], []) + deletes.get(key["target"].partition(".")[2], []):
            ddl = create_index(key["table"], [quoted_column(name) for name in key["columns"]])
            found = Advice(
                key["table"], tuple(key["columns"]), ddl, 1.0, 1.0, size_bytes(seen.table, key["columns"]),
                blocks(seen.table, 1.0, key["columns"]), f"each row deleted from {key['target']} is looked for here ({key['name']})",
            )  # fmt: skip
            rows.append(_row(row, found, seen, False))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _leads(keys: tuple[str, ...], columns: list[str]) -> bool:
    return {key.strip('"') for key in keys[: len(columns)]} == set(columns)


def _deletes(recording: Recording, least_ms: float, min_share: float) -> dict[str, list[dict[str, Any]]]:
    frame = workload(recording)
    slow = frame[(frame["kind"] == "delete") & (frame["mean_exec_time_ms"] >= least_ms) & (frame["share"] >= min_share)]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in slow.to_dict("records"):
        statement = parsed(row["statement"])
        for name in statement.written if statement else ():
            found.setdefault(name, []).append(row)
    return found


@check("missing-index", area="database")
def missing_index(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.05, least_calls: int = 3, least_ms: float = 2
) -> Finding | Clear:
    """Statements read much of a large table to find few of its rows, for want of an index (R52).

    Judged by statements, not by the ratio of index scans of a table: a table that was never read by an index counts
    too, and so does one read backwards by its primary key. Not judged: tables under 10,000 rows or 1 MB, statements that
    want a tenth of the rows or more or all rows together, those that ran fewer than ``least_calls`` times, those
    ordered by a vector's distance.

    Source: C26, C27, C30, C31, C32, C33, B23, E9, E10; PgHero, suggested_indexes and missing_indexes
    """
    frame = workload(recording)
    found = pd.concat(
        [suggested_indexes(recording, least_calls=least_calls, least_ms=least_ms), unindexed_foreign_keys(recording)]
    )
    large = {seen.table.name for seen in _known_tables(recording).values()}
    unread = int(sum(parsed(text) is None for text in frame["statement"]))
    examined = f"{len(frame)} statements on {len(large)} tables of {LEAST_ROWS:,} rows or more" + (f"; {unread} could not be read" if unread else "")  # fmt: skip
    found["saved"] = found["share"].where(found["is_sure"].astype(bool), found["share"] * _saved_at_least(found))
    by_index = found.groupby("ddl")["saved"].sum().sort_values(ascending=False)
    share = float(min(1.0, found.drop_duplicates("shape")["saved"].sum()))
    if found.empty or share < min_share:
        return Clear(f"none of {examined} reads much for few rows and {min_share:.0%} of the database's time")
    found = found.sort_values("saved", ascending=False, ignore_index=True)
    worst = found.iloc[0]
    return Finding(
        title=f"{worst['table'].removeprefix('public.')} lacks an index: {_reads(worst)} to find {worst['matched_rows']:,.0f}: {brief(worst['statement'], 60)}",
        severity=severity(_times(worst), share),
        share=share,
        symptom="database time",
        evidence=(
            f"{worst['calls']:.0f} calls, {worst['mean_exec_time_ms']:.0f} ms each, {worst['share']:.0%} of the database's time (seen in {worst['seen_in']})",
            *_before_and_then(worst),
            f"the index takes about {_sizes(worst)} MB (rows by the average width of its columns; less where values repeat) and as much log; to build it reads {worst['heap_bytes'] / MB:,.0f} MB twice, while writes go on",
            *(f"{row.ddl.splitlines()[-1]} would serve: {brief(row.statement, 60)}" for row in found.iloc[1:4].itertuples()),
            f"examined: {examined}",
        ),
        remedy="Try it first (rolled back, or hypothetically), then:\n" + "\n".join(by_index.index[:5]) + _notes(found),
        effort="low",
        estimate=_estimate(worst),
        frame=found.drop(columns=["shape"]).head(50),
        figure="top_statements",
    )  # fmt: skip


def _saved_at_least(found: pd.DataFrame) -> pd.Series:
    """Return the least part of a call's blocks that the index saves."""
    return (1 - found["blocks_most"] / found["blocks_now"]).fillna(0.5).clip(0, 1).astype(float)


def _reads(row: pd.Series) -> str:
    if pd.isna(row["blocks_now"]):
        return "scans are made"
    return f"a call reads {row['blocks_now']:,.0f} blocks"


def _times(row: pd.Series) -> float:
    """Return how badly it is missed: how many times the blocks that would do are read, a hundred times being high."""
    now = row["heap_bytes"] / 8192 if pd.isna(row["blocks_now"]) else row["blocks_now"]
    return max(1.1, 2 * math.log10(max(1.0, now / max(1.0, math.sqrt(row["blocks_least"] * row["blocks_most"])))))


def _before_and_then(row: pd.Series) -> tuple[str, ...]:
    rows = "" if pd.isna(row["rows_per_call"]) else f" for {row['rows_per_call']:,.1f} rows"
    now = "" if pd.isna(row["blocks_now"]) else f"a call reads {row['blocks_now']:,.0f} blocks{rows} now; "
    return (f"{now}with the index it would read about {row['blocks_least']:,.0f} to {row['blocks_most']:,.0f}",)


def _sizes(row: pd.Series) -> str:
    least, most = (f"{row[name] / MB:,.1f}" for name in ("size_least_bytes", "size_most_bytes"))
    return least if least == most else f"{least} to {most}"


def _estimate(row: pd.Series) -> Estimate | None:
    if pd.isna(row["blocks_now"]) or not row["blocks_now"]:
        return None
    now = float(row["mean_exec_time_ms"])
    low, high = (max(0.02, min(now, now * float(row[name]) / float(row["blocks_now"]))) for name in ("blocks_least", "blocks_most"))  # fmt: skip
    return Estimate(
        "statement_ms", now, low, high,
        ("a statement's time goes with the blocks it reads", "the planner uses the index", "rows of a value lie together at best, each in a block of its own at worst"),
        ("what the index costs every write",),
    )  # fmt: skip


def _notes(found: pd.DataFrame) -> str:
    notes = list(dict.fromkeys(note for note in found["note"].head(5) if note))
    return "".join(f"\n{note[0].upper()}{note[1:]}." for note in notes)
