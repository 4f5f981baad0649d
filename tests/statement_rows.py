"""Rows of a database in a line each: ``counted("SELECT …", calls=60, ms=3)`` is what two snapshots of it add up to."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from builders import MS, START, Row, request, span

SERVER = "127.0.0.1:5432"


@dataclass(frozen=True)
class Counted:
    """What a statement did between the first and the last snapshot."""

    query: str
    calls: int
    ms: float
    deviation_ms: float = 0.0
    longest_ms: float | None = None
    rows: float = 1
    columns: Row = field(default_factory=dict)


def counted(query: str, *, calls: int, ms: float, rows: float = 1, **more: Any) -> Counted:
    """Return a statement that ran ``calls`` times at ``ms`` each and returned ``rows`` each time."""
    named = {name: more.pop(name) for name in ("deviation_ms", "longest_ms") if name in more}
    return Counted(query, calls, ms, rows=rows, columns=more, **named)


def snapshots(*statements: Counted, seconds: float = 20, steps: int = 1, before: int = 100) -> list[Row]:
    """Return the rows of ``steps + 1`` snapshots over ``seconds``; each had run ``before`` times when they began."""
    rows = []
    for number, one in enumerate(statements):
        for step in range(steps + 1):
            calls = before + one.calls * step // steps
            rows.append(_row(one, number, calls, START + round(step * seconds / steps * 1e9)))
    return rows


def _row(one: Counted, number: int, calls: int, time: int) -> Row:
    summed = {
        name: value * calls for name, value in one.columns.items() if name.endswith(("_read", "_hit", "_written"))
    }
    timed = (
        {"block_read_time_ms": one.columns["block_read_time_ms"] * calls} if "block_read_time_ms" in one.columns else {}
    )
    kept = {name: value for name, value in one.columns.items() if name not in summed and name not in timed}
    return (
        {
            "time": time,
            "server": SERVER,
            "database": "desk",
            "role": "app",
            "queryid": str(1000 + number),
            "is_top_level": True,
            "query": one.query,
            "calls": calls,
            "total_exec_time_ms": one.ms * calls,
            "mean_exec_time_ms": one.ms,
            "min_exec_time_ms": 0.0,
            "max_exec_time_ms": one.longest_ms or one.ms + 4 * one.deviation_ms,
            "stddev_exec_time_ms": one.deviation_ms,
            "rows": round(one.rows * calls),
        }
        | summed
        | timed
        | kept
    )


def requests(count: int, *, seconds: float = 20, ms: float = 300, **columns: Any) -> list[Row]:
    """Return ``count`` requests, evenly spread over ``seconds``."""
    return [request(turn * seconds * 1000 / count, ms, **columns) for turn in range(count)]


def traced(count: int, *queries: tuple[str, int, float], ms: float = 300, pause_ms: float = 1) -> dict[str, Any]:
    """Return requests and their spans: each request runs ``(statement, times, ms)`` one after another."""
    made: dict[str, list[Row]] = {"requests": [], "spans": []}
    for turn in range(count):
        trace, at = f"{turn:032x}", turn * 2 * ms
        made["requests"].append(request(at, ms, trace_id=trace))
        made["spans"].append(span("POST /chat", at, ms, trace=trace, kind="SERVER", operation="server"))
        moment = at + 5.0
        for kind, (statement, times, each_ms) in enumerate(queries):
            for number in range(times):
                made["spans"].append(query_span(statement, moment, each_ms, trace=trace, name=f"q{kind}-{number}"))
                moment += each_ms + pause_ms
    return made


def query_span(statement: str, at_ms: float, ms: float, *, trace: str, name: str = "q", **columns: Any) -> Row:
    """Return the span of a statement as psycopg's instrumentation makes it."""
    verb = statement.split()[0].upper()
    made = span(name, at_ms, ms, trace=trace, parent="POST /chat", kind="CLIENT", operation="database")
    return made | {"name": verb, "statement": statement, "attributes": {"db.system": "postgresql"}} | columns


def catalog(
    kind: str, objects: dict[str, Row], *, later: dict[str, Row] | None = None, seconds: float = 20
) -> list[Row]:
    """Return the rows of two snapshots of objects; ``later`` holds what the second one says otherwise."""
    changed = {name: facts | (later or {}).get(name, {}) for name, facts in objects.items()}
    return [
        {"time": time, "server": SERVER, "kind": kind, "name": name, "properties": facts}
        for time, both in ((START, objects), (START + round(seconds * 1e9), changed))
        for name, facts in both.items()
    ]


def key(table: str, *columns: str, **facts: Any) -> dict[str, Row]:
    """Return the primary key of ``table`` as an index of the catalog."""
    schema, _, name = table.partition(".")
    return {
        f"{schema}.{name}_pkey": {"table": table, "keys": list(columns), "is_unique": True, "is_primary": True} | facts
    }


def looks(statement: str, times: Iterable[int], *, sessions: int = 1, age_ms: float = 5, **columns: Any) -> list[Row]:
    """Return sessions at work on ``statement`` at each of ``times`` (seconds)."""
    return [
        {
            "time": START + second * 1000 * MS, "server": SERVER, "pid": 100 + number, "backend": "client backend",
            "database": "desk", "role": "app", "state": "active", "query": statement,
            "query_start": START + second * 1000 * MS - round(age_ms * MS),
        } | columns
        for second in times for number in range(sessions)
    ]  # fmt: skip
