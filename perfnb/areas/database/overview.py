"""Is it the database? One sentence, and the server at a glance."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import Markup

from perfnb.areas.database.workload import workload
from perfnb.attribution.objects import objects
from perfnb.attribution.sessions import limits, session_looks
from perfnb.attribution.statements import statement_seconds
from perfnb.errors import NotMeasured
from perfnb.finding import Finding
from perfnb.widgets import cards, wording
from perfnb.widgets.cards import Tile
from perfnb.widgets.chart import Missing
from perfnb.widgets.html import Piece, together

if TYPE_CHECKING:
    from perfnb.recording import Recording

HOW_TO_SEE = "Not measured. It needs a database: perfnb record --dsn DSN"
FELT = ("latency", "errors")
MUCH, SOME = 0.25, 0.05


def overview_piece(recording: "Recording", findings: Sequence[Finding]) -> Piece:
    """Return the verdict over the server, how busy it was, its connections and sizes; Missing without a database."""
    tiles = [*work_tiles(recording), *connection_tiles(recording), *server_tiles(recording)]
    if not tiles:
        return Missing(HOW_TO_SEE)
    said = verdict(share_of_wait(recording), findings)
    html = Markup("<p><b>Is it the database?</b> {}</p>").format(said)
    return together([Piece(html, f"Is it the database? {said}"), cards.tiles_piece(tiles)])


def verdict(waited: float | None, findings: Sequence[Finding]) -> str:
    """Return whether users wait for the database, how much of their wait, and where to look first.

    ``waited`` is the part of the users' wait that is spent in statements, None where it is not known. Waiting that is
    no statement's (for a connection, say) is told by the findings.
    """
    grave = [each for each in findings if each.severity in ("critical", "high")]
    felt = max([waited or 0.0, *(each.share for each in findings if each.symptom == "latency")])
    failed = max([0.0, *(each.share for each in grave if each.symptom == "errors")])
    first = f"look first at {_first(findings)}" if findings else "no cause was found there"
    if waited is None and not any(each.symptom in FELT for each in findings):
        return f"Not known: requests and what they ask the database were not seen together (it takes traces); {first}."
    part = f"about {wording.percent(felt)} of the users' wait"
    if failed:
        part = f"{wording.percent(failed)} of the failed requests and {part}"
    word = "Yes" if felt >= MUCH or failed >= MUCH else "In part" if felt >= SOME or failed else "Hardly"
    return f"{word}: {part}; {first}."


def _first(findings: Sequence[Finding]) -> str:
    order = {"critical": 0, "high": 1, "medium": 2, "low": 3}
    felt_first = sorted(findings, key=lambda each: (order[each.severity], each.symptom not in FELT, -each.share))
    return wording.listed([f"{each.cause} ({each.severity})" for each in felt_first[:2]])


def share_of_wait(recording: "Recording") -> float | None:
    """Return the part of the users' wait that was spent in statements; None where that can't be told."""
    try:
        told = workload(recording)["share_of_wait"].dropna()
    except NotMeasured:
        return None
    return min(1.0, float(told.sum())) if len(told) else None


def server_tiles(recording: "Recording") -> list[Tile]:
    """Return which server it is, and how large its database."""
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


def work_tiles(recording: "Recording") -> list[Tile]:
    """Return how much was asked of the database, and what part of the users' wait that is."""
    try:
        frame = workload(recording)
    except NotMeasured:
        return []
    per_request, waits = float(frame["calls_per_request"].fillna(0).sum()), share_of_wait(recording)
    made = [Tile("of users' wait", wording.percent(waits), note="spent in statements")] if waits is not None else []
    ran = Tile("statements", wording.number(int(frame["calls"].sum())), note=f"{len(frame):,} different")
    per = [Tile("per request", f"{per_request:.1f}", note="statements")] if per_request else []
    return [*made, ran, *per, *_busy(recording, float(frame["total_exec_time_ms"].sum()))]


def _busy(recording: "Recording", total_ms: float) -> list[Tile]:
    try:
        seconds = statement_seconds(recording)
    except NotMeasured:
        return []
    busy = total_ms / 1000 / seconds if seconds else 0.0
    return [Tile("running at a moment", f"{busy:.2f}" if busy >= 0.005 else "under 0.01", note="statements, mean")]


def connection_tiles(recording: "Recording") -> list[Tile]:
    """Return the app's connections: at most, idle in a transaction, waiting for a lock."""
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
