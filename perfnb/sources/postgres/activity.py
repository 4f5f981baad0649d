"""Who is connected, what each session does, and whom it waits for."""

import functools
from typing import Any

from perfnb.recording.journal import Row
from perfnb.sources.postgres.capabilities import Read
from perfnb.sources.postgres.literals import without_literals
from perfnb.sources.postgres.server import Server

HIDDEN = "<insufficient privilege>"


def sessions(server: Server, read: Read, time: int) -> list[Row]:
    """Return one row a session; the lock table is looked at only where somebody may wait for a lock."""
    rows = read("activity")
    may_wait = not server.seen.sees_all or any(row["wait_event_type"] == "Lock" for row in rows)
    waiting = {row.pop("pid"): row for row in read("waiting")} if may_wait else {}
    return [_row(server, row, waiting.get(row["pid"], {}), time) for row in rows]


def _row(server: Server, row: dict[str, Any], waits: dict[str, Any], time: int) -> Row:
    query = row.pop("query")
    text = None if not query or query == HIDDEN else _stripped(query)
    return {"time": time, "server": server.name, **server.timed(row), **waits, "query": text}


_stripped = functools.lru_cache(maxsize=4096)(without_literals)
