"""How far the planner's estimates are from what came, and how old the statistics are that it goes by."""

import math
from typing import Any

import orjson
import pandas as pd

from perfnb.areas.database.maintenance import setting, tables
from perfnb.areas.database.workload import workload
from perfnb.attribution.objects import objects
from perfnb.attribution.shapes import shape_of
from perfnb.errors import NotMeasured, WrongUse
from perfnb.plans import BLOCK_BYTES, Plan, misestimates, plan_of
from perfnb.recording import Recording
from perfnb.sql import parsed

AGES = ["name", "rows", "changed", "changed_part", "never_analyzed", "due", "is_coming"]

# PostgreSQL manual, Automatic Vacuuming
DEFAULTS = {"autovacuum_analyze_threshold": 50.0, "autovacuum_analyze_scale_factor": 0.1, "autovacuum_naptime": 60.0}
SCANS = ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Sample Scan")
GROWN = 1.1  # times its pages at the last ANALYZE
ROUNDS = 2  # a table that is due may be passed over once: workers are few


def plans(recording: Recording) -> pd.DataFrame:
    """Return one row per plan that can be read: time, queryid, query, origin, duration_ms, plan (the model)."""
    rows = recording.query("SELECT time, queryid, query, origin, duration_ms, plan FROM plans ORDER BY time")
    rows["plan"] = pd.Series([_read(text) for text in rows["plan"]], rows.index, dtype="object")
    return rows[rows["plan"].notna()].reset_index(drop=True)


def _read(text: str | None) -> Plan | None:
    try:
        return plan_of(orjson.loads(text or ""))
    except (WrongUse, orjson.JSONDecodeError):
        return None


def poor_estimates(recording: Recording, *, factor: float, least_rows: float) -> pd.DataFrame:
    """Return tables whose rows executed plans estimated ``factor`` times too high or low, the worst first.

    Columns: table, times, words, query, queryid, duration_ms. Only scans of tables are looked at: what a join or a
    grouping gives can be off with the freshest statistics.
    """
    rows = []
    for each in plans(recording).itertuples():
        for found in misestimates(each.plan, factor=factor, least_rows=least_rows):
            if found.node.type in SCANS and found.node.relation:
                table = ".".join(filter(None, (found.node.schema, found.node.relation)))
                rows.append((table, found.times, found.words, each.query, each.queryid, each.duration_ms))
    columns = ["table", "times", "words", "query", "queryid", "duration_ms"]
    return pd.DataFrame(rows, columns=columns).sort_values("times", ascending=False, ignore_index=True)


def statistics_age(recording: Recording) -> pd.DataFrame:
    """Return one row per table of the app: how much of it changed since its last ANALYZE, and whether one is coming.

    Columns: name, rows, changed (rows changed since, NA where not counted), changed_part (of its rows),
    never_analyzed, due (changes at which autovacuum analyzes it; NA where it never does) and is_coming: autovacuum will
    see to it within its naptime, or has had no time yet.
    """
    frame = tables(recording)
    if frame.empty:
        return pd.DataFrame(columns=AGES)
    known = {name.rpartition(".")[0] for name in _analyzed_columns(recording)}
    rows, changed = frame["rows"].astype(float), _changed(frame)
    runs = frame[["analyzes", "autoanalyzes"]].astype(float).fillna(0).sum(axis=1)
    seen = frame[["last_analyze_at", "last_autoanalyze_at"]].notna().any(axis=1)
    is_on = frame["autovacuum"].astype(bool) & (
        str(setting(recording, "autovacuum") or "on").lower() not in ("off", "false")
    )
    each = [_due(recording, row) for row in frame.to_dict("records")]
    due = pd.Series(each, frame.index, dtype=float).where(is_on)
    return pd.DataFrame(
        {
            "name": frame["name"],
            "rows": rows,
            "changed": changed,
            "changed_part": changed / rows.where(rows > 0),
            "never_analyzed": ~seen & (runs == 0) & ~frame["name"].isin(known),
            "due": due,
            "is_coming": (changed > due) & ~_was_passed_over(recording, frame, due),
        }
    )


def _changed(frame: pd.DataFrame) -> "pd.Series[float]":
    """Return the rows changed since the last ANALYZE, as counted; where the table has not grown since, no more than were
    updated and deleted: what a session loads within the second before its own ANALYZE is counted after it.
    """
    counted = frame["modified_since_analyze"].astype(float)
    pages, before = frame["heap_bytes"].astype(float) / BLOCK_BYTES, frame["pages"].astype(float)
    has_not_grown = (before > 0) & (pages <= GROWN * before)
    rewritten = frame[["updated", "deleted"]].astype(float).fillna(0).sum(axis=1)
    return counted.where(~has_not_grown | (counted <= rewritten), rewritten)


def _analyzed_columns(recording: Recording) -> list[str]:
    columns = objects(recording, "column")
    return [str(name) for name in columns.loc[columns["distinct"].notna(), "name"]]


def _was_passed_over(recording: Recording, frame: pd.DataFrame, due: "pd.Series[float]") -> "pd.Series[bool]":
    """Tell which tables were due at the first look already, and still are after autovacuum must have come by."""
    key = ["server", "name"]
    first = frame[key].merge(objects(recording, "table", at="first"), on=key, how="left").set_axis(frame.index)
    before = first["modified_since_analyze"].astype(float)
    since = (frame["time"] - first["time"]) / 1e9
    return (before > due) & (since >= ROUNDS * _number(recording, "autovacuum_naptime", {}))


def _due(recording: Recording, row: dict[str, Any]) -> float:
    options = row["options"] if isinstance(row["options"], dict) else {}
    threshold = _number(recording, "autovacuum_analyze_threshold", options)
    counted = row["rows_estimated"]
    rows = max(0.0, 0.0 if pd.isna(counted) else float(counted))
    return threshold + _number(recording, "autovacuum_analyze_scale_factor", options) * rows


def _number(recording: Recording, name: str, options: dict[str, Any]) -> float:
    try:
        return float(options.get(name) or setting(recording, name) or DEFAULTS[name])
    except ValueError:
        return DEFAULTS[name]


def reading(recording: Recording, names: "pd.Series[str] | list[str]", *, least_ms: float = 0) -> pd.DataFrame:
    """Return the statements of the workload that look for rows in one of the tables, those under ``least_ms`` left out."""
    short = {name.rpartition(".")[2] for name in names}
    frame = workload(recording)
    frame = frame[frame["kind"].isin(("select", "update", "delete")) & (frame["mean_exec_time_ms"] >= least_ms)]
    touched = [{table.rpartition(".")[2] for table in _tables(text)} for text in frame["statement"]]
    return frame[pd.Series([bool(each & short) for each in touched], frame.index, dtype=bool)]


def _tables(statement: str) -> tuple[str, ...]:
    found = parsed(statement)
    return found.tables if found else ()


def share_of(recording: Recording, found: pd.DataFrame) -> float:
    """Return the part of the database's time that the statements of these plans take.

    Where statements were not counted it is the part of the executed plans' own time.
    """
    try:
        frame = workload(recording)
    except NotMeasured:
        every = plans(recording)["duration_ms"].astype(float).sum()
        own = found.drop_duplicates(["query", "duration_ms"])["duration_ms"].astype(float).sum()
        return min(1.0, own / every) if every else 0.0
    ids, shapes = set(found["queryid"].dropna()), {shape_of(text).key for text in found["query"].dropna()}
    same = [
        shape in shapes or bool(ids & set(queryids if isinstance(queryids, tuple) else ()))
        for shape, queryids in zip(frame["shape"], frame["queryids"], strict=True)
    ]
    return min(1.0, float(frame.loc[same, "share"].sum()))


def expected_rows(recording: Recording, statements: pd.DataFrame, *, factor: float, least: float) -> list[str]:
    """Return, in words, statements whose generic plan expects a multiple or a fraction of the rows each call gives."""
    told = []
    for each in plans(recording).itertuples():
        root = each.plan.root
        same = statements[[each.queryid in (ids or ()) for ids in statements["queryids"]]]
        if (
            each.origin != "generic"
            or same.empty
            or root.type in ("Limit", "ModifyTable")
            or root.rows_estimated is None
        ):
            continue
        came = float(same["rows_per_call"].iloc[0])
        times = max(came, 1.0) / max(root.rows_estimated, 1.0)
        if not math.isnan(came) and max(came, root.rows_estimated) >= least and not 1 / factor < times < factor:
            told.append(f"its plan for any value expects {root.rows_estimated:,.0f} rows, a call gives {came:,.0f}")
    return told
