"""Rows of a recorded database, in a line each: statements at two snapshots, objects, sessions."""

from typing import Any

from builders import START, Row

S = 1_000_000_000
COUNTERS = ("calls", "total_exec_time_ms", "rows", "shared_blocks_hit", "shared_blocks_read", "temp_blocks_written")


def statement(query: str, queryid: str, *, calls: int, ms: float, **columns: Any) -> list[Row]:
    """Return a statement at two snapshots: nothing at first, then ``calls`` that took ``ms`` each."""
    same: Row = {"server": "db:5432", "database": "desk", "role": "app", "queryid": queryid, "is_top_level": True,
                 "query": query, "stddev_exec_time_ms": 1.0, "max_exec_time_ms": ms}  # fmt: skip
    zero = dict.fromkeys((*COUNTERS, "temp_block_time_ms"), 0)
    grown = zero | {"calls": calls, "total_exec_time_ms": calls * ms} | columns
    return [
        {"time": START, "mean_exec_time_ms": 0.0} | same | zero,
        {"time": START + 20 * S, "mean_exec_time_ms": ms} | same | grown,
    ]


def thing(kind: str, name: str, **properties: Any) -> Row:
    """Return an object of the catalog."""
    return {"time": START, "server": "db:5432", "kind": kind, "name": name, "properties": properties}


def session(at_s: float, pid: int, state: str, *, since_s: float = 0.0, **columns: Any) -> Row:
    """Return a session at one look, in ``state`` for ``since_s``."""
    time = START + round(at_s * S)
    return {"time": time, "server": "db:5432", "pid": pid, "backend": "client backend", "database": "desk", "role": "app",
            "application": "app", "state": state, "state_change": time - round(since_s * S)} | columns  # fmt: skip
