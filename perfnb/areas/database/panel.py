"""What the notebook on the database shows: each function takes the incident and returns something a cell displays."""

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pandas as pd

from perfnb.areas.cells import Answers, not_measured, shows
from perfnb.areas.database import figures
from perfnb.areas.database.calculator import PoolCalculator
from perfnb.areas.database.index_inventory import indexes
from perfnb.areas.database.locks import blockers, lock_tree
from perfnb.areas.database.maintenance import tables
from perfnb.areas.database.names import headlines, plain
from perfnb.areas.database.overview import overview_piece
from perfnb.areas.database.pools import pool_demand
from perfnb.areas.database.vector_stores import advisories, collections, index_memory, vector_columns
from perfnb.areas.database.vector_tuner import VectorTuner
from perfnb.areas.database.workload import brief, top_statements, workload
from perfnb.errors import NotMeasured, WrongUse
from perfnb.plans import plan_of
from perfnb.widgets import wording
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


def overview(incident: "Incident") -> Piece:
    """Return whether it is the database, and the server, how busy it was, its connections and sizes at a glance."""
    return overview_piece(incident.snapshot, _answers.of(incident).findings)


RANKED = {
    "Time in all": "total", "Mean time": "mean", "Calls per request": "requests", "Rows per call": "rows",
    "Spilled to disk": "spill", "Read from outside shared buffers": "io",
}  # fmt: skip


def top(incident: "Incident") -> Chooser | Missing:
    """Return the statements that lead, with a choice of what by; each within the time that was observed."""
    try:
        found = {name: by for name, by in RANKED.items() if len(top_statements(incident.snapshot, by))}
    except NotMeasured as missing:
        return not_measured(missing)
    if not found:
        return Missing("No statement ran while this was recorded.")

    def draw(by: str) -> Chart:
        return figures.statements_by(top_statements(incident.snapshot, by), by)

    return Chooser("Statements by", found, draw)


STATEMENT_COLUMNS = {
    "statement": "statement", "calls": "calls", "total_exec_time_ms": "time_ms", "share": "share",
    "mean_exec_time_ms": "mean_ms", "p95_at_most_ms": "p95_at_most_ms", "rows_per_call": "rows",
    "calls_per_request": "per_request",
}  # fmt: skip
MOST_TEXT = 320
NO_BREAK, NO_BREAK_HYPHEN = "\u00a0", "\u2011"


def statements(incident: "Incident") -> Piece:
    """Return the statements with most time as a table: their texts, calls, times, rows, and how often a request runs them."""
    try:
        frame = top_statements(incident.snapshot)
    except NotMeasured as missing:
        return not_measured(missing)
    if frame.empty:
        return Missing("No statement ran while this was recorded.")
    known = frame["certainty"].dropna()
    guessed = "; per request from counters, so an average" if len(known) and known.min() < 1 else ""
    texts = frame["statement"].map(lambda text: brief(text, MOST_TEXT))
    shown = frame.assign(statement=texts)[list(STATEMENT_COLUMNS)].rename(columns=STATEMENT_COLUMNS)
    return Table(shown.dropna(axis=1, how="all"), f"Statements with most time; rows are per call{guessed}")


def waits_for_what(incident: "Incident") -> Piece:
    """Return who held whom up at the moment with most waiting, as a tree, and the heads of the queues."""
    try:
        tree = lock_tree(incident.snapshot)
        heads = blockers(incident.snapshot)
    except NotMeasured as missing:
        return not_measured(missing)
    if tree.empty:
        return Missing("No session waited for a lock at any look.")
    indent = [" " * 4 * int(depth) + ("└ " if depth else "") for depth in tree["depth"]]
    shown = tree.assign(session=[f"{place}{pid}" for place, pid in zip(indent, tree["pid"], strict=True)])
    shown = shown[["session", "query", "state", "on", "mode", "waited_ms", "transaction_ms", "application"]]
    shown = shown.assign(query=shown["query"].map(lambda text: brief(str(text or ""), MOST_TEXT)))
    blocked = wording.counted(int(heads["blocked"].max()), "session")
    return Table(shown, f"Who waits for whom when most wait; the first of a tree holds up {blocked} at most")


def index_inventory(incident: "Incident") -> Piece:
    """Return every index: what it is on, how large, how often used, what leans on it."""
    try:
        frame = indexes(incident.snapshot)
    except NotMeasured as missing:
        return not_measured(missing)
    broken = frame["is_valid"].eq(False).map({True: " (invalid)", False: ""})
    shown = pd.DataFrame(
        {
            "index": frame["name"].map(plain) + broken,
            "on": [f"{plain(of)} ({', '.join(keys or [])})" for of, keys in zip(frame["table"], frame["keys"], strict=True)],
            "method": frame["method"],
            "size": frame["bytes"].map(_size),
            "scans_ever": frame["scans"],
            "scans_here": frame["scans_grown"],
            "entries_written_here": frame["writes_grown"],
            "leans_on_it": frame["leans"].replace("", "nothing known"),
        }
    )  # fmt: skip
    return Table(shown, f"{wording.counted(len(shown), 'index', 'indexes')} of the app's tables, largest first")


def table_inventory(incident: "Incident") -> Piece:
    """Return every table: rows, dead rows, how it is read, when it was vacuumed and analysed."""
    try:
        frame = tables(incident.snapshot)
    except NotMeasured as missing:
        return not_measured(missing)
    off = frame["autovacuum"].eq(False).map({True: " (autovacuum off)", False: ""})
    shown = pd.DataFrame(
        {
            "table": frame["name"].map(plain) + off,
            "rows": frame["rows"],
            "size": frame["bytes"].map(_size),
            "dead_share": frame["dead_part"],
            "read_whole_here": frame["sequential_scans_grown"],
            "index_scans_here": frame["index_scans_grown"],
            "changed_since_analyze": frame["modified_since_analyze"],
            "last_vacuum": _latest(frame, "last_vacuum_at", "last_autovacuum_at"),
            "last_analyze": _latest(frame, "last_analyze_at", "last_autoanalyze_at"),
        }
    )
    return Table(shown, f"{wording.counted(len(frame), 'table')} of the app, largest first; times are UTC")


def _size(count: Any) -> str:
    return "–" if pd.isna(count) else _unbroken(wording.size(float(count)))


def _latest(frame: pd.DataFrame, *names: str) -> list[str]:
    """Return the later of several moments of each row, in words."""
    times = frame.reindex(columns=names).max(axis=1)
    return ["never" if pd.isna(time) else _unbroken(wording.moment(int(time))[:16]) for time in times]


def _unbroken(text: str) -> str:
    """Return ``text`` such that no line ends within it."""
    return text.replace(" ", NO_BREAK).replace("-", NO_BREAK_HYPHEN)


ORIGINS = {"generic": "as estimated", "auto_explain": "as run, from the log"}
_PLANS = "SELECT query, plan, origin, duration_ms FROM plans ORDER BY duration_ms DESC NULLS LAST, time DESC"


def plans(incident: "Incident") -> Chooser | Missing:
    """Return the plan of a statement, with a choice of those whose plans were recorded or imported."""
    known = _order(incident.snapshot)
    rows = sorted(incident.snapshot.query(_PLANS).itertuples(), key=lambda row: known.get(str(row.query), len(known)))
    read: dict[tuple[str, str], Any] = {}
    for row in rows:
        with suppress(WrongUse):
            read.setdefault((str(row.query or "a plan"), str(row.origin)), plan_of(json.loads(row.plan)))
    if not read:
        return Missing(
            "No plan was recorded. perfnb record --dsn DSN takes those of the busiest statements; perfnb import PLAN.txt reads a pasted one."
        )
    named = [f"{name}, {ORIGINS.get(origin, origin)}" for name, (_, origin) in zip(headlines([text for text, _ in read]), read, strict=True)]  # fmt: skip
    plans = {str(place): (name, text, plan) for place, (name, ((text, _), plan)) in enumerate(zip(named, read.items(), strict=True))}  # fmt: skip

    def draw(key: str) -> Piece:
        name, text, plan = plans[key]
        return together([PlanView(plan, name), Missing(brief(text, 600))])

    return Chooser("Plan of", {name: key for key, (name, _, _) in plans.items()}, draw)


def _order(recording: "Recording") -> dict[str, int]:
    try:
        return {text: place for place, text in enumerate(workload(recording)["statement"])}
    except NotMeasured:
        return {}


def vectors(incident: "Incident") -> Piece:
    """Return what holds vectors: columns with their indexes, collections of vector stores, and what their indexes weigh."""
    recording = incident.snapshot
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
            pieces.append(Table(_readable(frame), caption))
    pieces += [Missing(said) for said in advisories(recording)]
    if not pieces:
        return Missing("No vectors were seen: neither a column of pgvector nor a collection of a vector store.")
    return together(pieces)


def _readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` with sizes in words, names without their schema, the server only where there are several."""
    shown = frame.dropna(axis=1, how="all").drop(columns=["time"], errors="ignore")
    if "server" in shown and shown["server"].nunique() < 2:
        shown = shown.drop(columns="server")
    for name in ("table", "index"):
        if name in shown:
            shown[name] = shown[name].map(plain)
    sizes = [str(name) for name in shown if str(name).endswith("bytes")]
    shown = shown.assign(**{name: shown[name].map(_size) for name in sizes})
    words = {name: name.replace("_bytes", "_size") for name in sizes if name.endswith("_bytes")}
    if "fits_build" in shown:
        shown["fits_build"] = shown["fits_build"].map({True: "yes", False: "no"}).fillna("–")
    return shown.rename(columns=words | {"bytes": "size", "part_of_cache": "cache_share"})


def tuner(incident: "Incident") -> VectorTuner:
    """Return the panel that tunes a vector search on the live database, with the last tuning below it."""
    return VectorTuner(incident)


def pool(incident: "Incident") -> "PoolCalculator | Missing":
    """Return the pool calculator, beginning with what was measured."""
    try:
        return PoolCalculator(pool_demand(incident.snapshot))
    except NotMeasured as missing:
        return not_measured(missing)
