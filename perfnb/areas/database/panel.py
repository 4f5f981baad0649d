"""What the notebook on the database shows: each function takes the incident and returns something a cell displays."""

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from perfnb.areas.cells import Answers, not_measured, shows
from perfnb.areas.database import figures
from perfnb.areas.database.calculator import PoolCalculator
from perfnb.areas.database.index_inventory import indexes
from perfnb.areas.database.locks import blockers, lock_tree
from perfnb.areas.database.maintenance import tables
from perfnb.areas.database.pools import pool_demand
from perfnb.areas.database.sessions import limits, session_looks
from perfnb.areas.database.vector_stores import advisories, collections, index_memory, vector_columns
from perfnb.areas.database.workload import brief, top_statements, workload
from perfnb.attribution.objects import objects
from perfnb.attribution.statements import statement_seconds
from perfnb.errors import NotMeasured, WrongUse
from perfnb.plans import plan_of
from perfnb.tuner.recorded import tunings
from perfnb.tuner.shown import tuning_piece
from perfnb.widgets import cards, wording
from perfnb.widgets.cards import Tile
from perfnb.widgets.chart import Chart, Missing
from perfnb.widgets.choose import Chooser
from perfnb.widgets.html import Piece, together
from perfnb.widgets.plan import PlanView
from perfnb.widgets.table import Table

if TYPE_CHECKING:
    from perfnb.incident import Incident
    from perfnb.recording import Recording

AREA = "database"

# What another notebook looks into further, by what was found here
FURTHER = {
    "connection-held-during-model-call": "slow", "pool-exhausted": "slow", "n-plus-one": "slow",
    "unbatched-embeddings": "costs", "chunk-size": "costs", "vector-db-under-resourced": "memory",
    "low-cache-hit-ratio": "memory",
}  # fmt: skip

_answers = Answers(AREA, FURTHER)
checklist, findings, named, next_steps = _answers.checklist, _answers.findings, _answers.named, _answers.next_steps
try_a_change, recipes = _answers.try_a_change, _answers.recipes

connections_over_time = shows(figures.connections_over_time)
waits_by_event = shows(figures.waits_by_event)
cache_over_time = shows(figures.cache_over_time)
table_sizes = shows(figures.table_sizes)
recall_curve = shows(figures.recall_curve)


def overview(incident: "Incident") -> Piece:
    """Return the server, how busy it was, its connections and sizes at a glance."""
    recording = incident.recording
    tiles = [*_server_tiles(recording), *_work_tiles(recording), *_connection_tiles(recording)]
    return cards.tiles_piece(tiles) if tiles else Missing("Not measured. It needs a database: perfnb record --dsn DSN")


def _server_tiles(recording: "Recording") -> list[Tile]:
    servers = objects(recording, "server")
    made = []
    for server in servers.itertuples():
        if pd.isna(server.version_num):
            continue
        note = "a standby" if server.is_in_recovery is True else ""
        made.append(Tile("PostgreSQL", str(server.version), note=note or str(server.database or "")))
        if server.statements_missing:
            made.append(Tile("statements", "not counted", "not measured", True, str(server.statements_missing)))
    databases = objects(recording, "database").dropna(subset=["bytes"])
    databases = databases[databases["name"].isin(set(servers["database"].dropna()))]
    return made + [
        Tile("database", wording.size(int(row.bytes)), note=str(row.name)) for row in databases.itertuples(index=False)
    ]


def _work_tiles(recording: "Recording") -> list[Tile]:
    try:
        frame = workload(recording)
        seconds = statement_seconds(recording)
    except NotMeasured:
        return []
    busy = float(frame["total_exec_time_ms"].sum()) / 1000 / seconds if seconds else 0.0
    per_request = float(frame["calls_per_request"].fillna(0).sum())
    waits = float(frame["share_of_wait"].fillna(0).sum())
    return [
        Tile(
            "statements", wording.number(int(frame["calls"].sum())), note=wording.counted(len(frame), "different one")
        ),
        Tile("running at a moment", f"{busy:.2f}", note="statements, mean"),
        *([Tile("per request", f"{per_request:.1f}", note="statements")] if per_request else []),
        *([Tile("of users' wait", wording.percent(min(1.0, waits)), note="spent in statements")] if waits else []),
    ]


def _connection_tiles(recording: "Recording") -> list[Tile]:
    try:
        looks = session_looks(recording)
    except NotMeasured:
        return []
    most, known = int(looks["sessions"].max()), limits(recording)
    return [
        Tile("connections", str(most), note=f"of {known.usable} the server gives" if known else "at most"),
        Tile("idle in a transaction", f"{looks['in_open_transaction'].mean():.1f}", note="connections, mean"),
        Tile("waiting for a lock", str(int(looks["waiting_for_locks"].max())), note="sessions at most"),
    ]


RANKED = {
    "Time in all": "total", "Mean time": "mean", "Calls per request": "requests", "Rows per call": "rows",
    "Spilled to disk": "spill", "Read from outside shared buffers": "io",
}  # fmt: skip


def top(incident: "Incident") -> Chooser | Missing:
    """Return the statements that lead, with a choice of what by; each within the time that was observed."""
    try:
        found = {name: by for name, by in RANKED.items() if len(top_statements(incident.recording, by))}
    except NotMeasured as missing:
        return not_measured(missing)
    if not found:
        return Missing("No statement ran while this was recorded.")

    def draw(by: str) -> Chart:
        return figures.statements_by(top_statements(incident.recording, by), by)

    return Chooser("Statements by", found, draw)


STATEMENT_COLUMNS = [
    "statement", "calls", "total_exec_time_ms", "share", "mean_exec_time_ms", "p95_at_most_ms", "rows_per_call",
    "calls_per_request", "certainty",
]  # fmt: skip


def statements(incident: "Incident") -> Piece:
    """Return the statements with most time as a table: calls, times, rows, and what they are to a request."""
    try:
        frame = top_statements(incident.recording)
    except NotMeasured as missing:
        return not_measured(missing)
    shown = frame.assign(statement=frame["statement"].map(lambda text: brief(text, 160)))[STATEMENT_COLUMNS]
    return Table(shown, "Statements with most time in all; 95 of 100 calls took at most what p95 at most says")


def waits_for_what(incident: "Incident") -> Piece:
    """Return who held whom up at the moment with most waiting, as a tree, and the heads of the queues."""
    try:
        tree = lock_tree(incident.recording)
        heads = blockers(incident.recording)
    except NotMeasured as missing:
        return not_measured(missing)
    if tree.empty:
        return Missing("No session waited for a lock at any look.")
    indent = [" " * 4 * int(depth) + ("└ " if depth else "") for depth in tree["depth"]]
    shown = tree.assign(session=[f"{place}{pid}" for place, pid in zip(indent, tree["pid"], strict=True)])
    shown = shown[["session", "application", "state", "query", "mode", "on", "waited_ms", "transaction_ms"]]
    blocked = wording.counted(int(heads["blocked"].max()), "session")
    return Table(shown, f"Who waits for whom when most wait; the first of a tree holds up {blocked} at most")


def index_inventory(incident: "Incident") -> Piece:
    """Return every index: what it is on, how large, how often used, what leans on it."""
    try:
        frame = indexes(incident.recording)
    except NotMeasured as missing:
        return not_measured(missing)
    columns = ["name", "table", "method", "keys", "bytes", "scans", "scans_grown", "writes_grown", "is_valid", "leans"]
    shown = frame[columns].assign(keys=frame["keys"].map(lambda keys: ", ".join(keys or [])))
    names = {"scans": "scans_ever", "scans_grown": "scans_seen", "writes_grown": "entries_written"}
    return Table(
        shown.rename(columns=names),
        f"{wording.counted(len(shown), 'index', 'indexes')} of the app's tables, largest first",
    )


def table_inventory(incident: "Incident") -> Piece:
    """Return every table: rows, dead rows, how it is read, when it was vacuumed and analysed."""
    try:
        frame = tables(incident.recording)
    except NotMeasured as missing:
        return not_measured(missing)
    columns = [
        "name", "rows", "bytes", "dead_part", "autovacuum", "sequential_scans_grown", "index_scans_grown",
        "modified_since_analyze", "last_autovacuum_at", "last_autoanalyze_at",
    ]  # fmt: skip
    names = {
        "sequential_scans_grown": "sequential_scans_seen",
        "index_scans_grown": "index_scans_seen",
        "dead_part": "dead_share",
    }
    return Table(
        frame[columns].rename(columns=names), f"{wording.counted(len(frame), 'table')} of the app, largest first"
    )


def plans(incident: "Incident") -> Chooser | Missing:
    """Return the plan of a statement, with a choice of those whose plans were recorded or imported."""
    rows = incident.recording.query(
        "SELECT query, plan, origin, duration_ms FROM plans ORDER BY duration_ms DESC NULLS LAST, time DESC"
    )
    known = _order(incident.recording)
    read: dict[str, tuple[str, Any]] = {}
    for row in sorted(rows.itertuples(), key=lambda row: known.get(str(row.query), len(known))):
        try:
            read.setdefault(
                f"{brief(str(row.query or 'a plan'), 70)} ({row.origin})",
                (str(row.query), plan_of(json.loads(row.plan))),
            )
        except WrongUse:
            continue
    if not read:
        return Missing(
            "No plan was recorded. perfnb record --dsn DSN takes those of the busiest statements; perfnb import PLAN.txt reads a pasted one."
        )
    keys = {str(place): (name, plan) for place, (name, (_, plan)) in enumerate(read.items())}

    def draw(key: str) -> Piece:
        name, plan = keys[key]
        return PlanView(plan, name)

    return Chooser("Plan of", {name: key for key, (name, _) in keys.items()}, draw)


def _order(recording: "Recording") -> dict[str, int]:
    try:
        return {text: place for place, text in enumerate(workload(recording)["statement"])}
    except NotMeasured:
        return {}


def vectors(incident: "Incident") -> Piece:
    """Return what holds vectors: columns with their indexes, collections of vector stores, and what their indexes weigh."""
    recording = incident.recording
    pieces: list[Piece] = []
    for caption, measure in (
        ("Columns of vectors", vector_columns),
        ("Vector indexes and the memory for them", index_memory),
        ("Collections of vector stores", collections),
    ):
        try:
            frame = measure(recording)
        except NotMeasured:
            continue
        if len(frame):
            pieces.append(Table(frame.dropna(axis=1, how="all"), caption))
    pieces += [Missing(said) for said in advisories(recording)]
    if not pieces:
        return Missing("No vectors were seen: neither a column of pgvector nor a collection of a vector store.")
    return together(pieces)


def tuned(incident: "Incident") -> Piece:
    """Return the last tuning of a vector search on the timeline, or how to make one."""
    try:
        return tuning_piece(tunings(incident.recording)[-1])
    except NotMeasured as missing:
        return not_measured(missing)


def pool(incident: "Incident") -> "PoolCalculator | Missing":
    """Return the pool calculator, beginning with what was measured."""
    try:
        return PoolCalculator(pool_demand(incident.recording))
    except NotMeasured as missing:
        return not_measured(missing)
