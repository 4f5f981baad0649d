"""Counters of the server and its databases over time."""

from collections.abc import Mapping
from typing import Any

from psycopg import sql

from perfnb.recording.journal import Row
from perfnb.sources.postgres.capabilities import Read
from perfnb.sources.postgres.server import Server


def samples(server: Server, read: Read, time: int) -> list[Row]:
    """Return one row a metric: of each database, and of the server."""
    rows = [
        row for each in read("sample_databases") for row in _rows(server, f"database {each.pop('name')}", each, time)
    ]
    return rows + [row for each in read("sample_server") for row in _rows(server, "server", each, time)]


def elsewhere(server: Server, read: Read, time: int) -> list[Row]:
    """Return how many statements are counted for the server's other databases, which are not read."""
    found = read("statements_elsewhere", schema=sql.Identifier(server.seen.statements_schema))
    return _rows(server, "server", {"statements_elsewhere": found[0]["statements"]}, time)


def _rows(server: Server, entity: str, values: Mapping[str, Any], time: int) -> list[Row]:
    about = {"time": time, "source": "postgres", "entity": entity, "attributes": {"server": server.name}}
    return [
        {**about, "metric": metric, "value": float(value), "unit": _unit(metric)}
        for metric, value in values.items()
        if value is not None
    ]


def _unit(metric: str) -> str:
    return next((unit for unit in ("bytes", "ms") if metric.endswith(f"_{unit}")), "count")
