"""Rows of ``activity``, ``samples`` and ``catalog`` as a database's sessions and pools leave them."""

from collections.abc import Iterable
from typing import Any

from builders import MS, START, Row

SERVER = "db:5432"


def session(at_ms: float, pid: int = 1, state: str = "idle", *, since_ms: float | None = None, **columns: Any) -> Row:
    """Return one session of the app at one look; ``since_ms`` is when its state began."""
    began = at_ms - 20 if since_ms is None else since_ms
    row: Row = {
        "time": moment(at_ms),
        "server": SERVER,
        "pid": pid,
        "backend": "client backend",
        "database": "shop",
        "role": "app",
        "application": "",
        "client": "remote",
        "state": state,
        "wait_event_type": "Client" if state != "active" else None,
        "wait_event": "ClientRead" if state != "active" else None,
        "session_start": moment(-60_000),
        "query_start": moment(began),
        "state_change": moment(began),
        "query": "SELECT title FROM documents WHERE id = $1",
    }
    if state != "idle":
        row["transaction_start"] = moment(began)
    return row | columns


def looks(count: int, pids: Iterable[int], state: str = "idle", *, every_ms: float = 1000, **columns: Any) -> list[Row]:
    """Return ``pids`` in ``state`` at each of ``count`` looks."""
    return [session(turn * every_ms, pid, state, **columns) for turn in range(count) for pid in pids]


def moment(at_ms: float) -> int:
    return START + round(at_ms * MS)


def sample(
    at_ms: float, metric: str, value: float, *, source: str = "postgres", entity: str = "database shop", **columns: Any
) -> Row:
    return {
        "time": moment(at_ms),
        "source": source,
        "entity": entity,
        "metric": metric,
        "value": value,
        "attributes": {},
    } | columns


def counter(metric: str, values: Iterable[float], *, every_ms: float = 5000, **columns: Any) -> list[Row]:
    """Return a metric read every five seconds."""
    return [sample(turn * every_ms, metric, value, **columns) for turn, value in enumerate(values)]


def setting(name: str, value: object, **properties: Any) -> Row:
    return thing("setting", name, value=str(value), **properties)


def server(**properties: Any) -> Row:
    return thing("server", SERVER, database="shop", **properties)


def thing(kind: str, name: str, **properties: Any) -> Row:
    return {"time": START, "server": SERVER, "kind": kind, "name": name, "properties": properties}
