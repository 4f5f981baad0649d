"""Objects of the database as they are now: the kinds of :mod:`perfnb.recording.kinds` that Postgres has."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import psycopg

from perfnb.recording.journal import Row
from perfnb.sources.postgres.bloat import bloat_fraction
from perfnb.sources.postgres.capabilities import Read, Rows
from perfnb.sources.postgres.server import Server

MOST_TABLES = 1000
LEAST_TABLES = 50
TIMEOUT_MS = 5000
PASSED_ON = frozenset(
    ("hnsw", "ivfflat", "pg_stat_statements", "auto_explain", "pg_trgm", "plan_filter", "vectorscale", "diskann", "vchordrq")
)  # fmt: skip
"""Extensions whose settings are told; others' may be an app's own, and hold its secrets."""


class Reading(Protocol):
    """Opens a read-only transaction."""

    def __call__(self, timeout_ms: int = ...) -> AbstractContextManager[Read]:
        """Return what asks queries in it."""


class Catalog:
    """Takes snapshots of the catalog, bounded in tables and in time; ``left_out`` says how much was not read, and why.

    What seldom changes (columns, settings, extensions) is read where ``everything`` is asked for. Of a table that is
    locked, size and indexes are as they were when last seen: asking for them would wait behind the lock.
    """

    def __init__(self, most_tables: int = MOST_TABLES) -> None:
        self.left_out = ""
        self._most = most_tables
        self._columns: dict[int, Rows] = {}
        self._sizes: dict[str, dict[str, int]] = {}
        self._indexes: Rows = []

    def snapshot(self, server: Server, time: int, *, everything: bool = False) -> list[Row]:
        """Return one row an object; raises psycopg.Error where not even a bounded part can be read."""
        while True:
            try:
                return self._read(server, time, everything, sizes=True)
            except psycopg.errors.LockNotAvailable:
                return self._read(server, time, everything, sizes=False)
            except psycopg.errors.QueryCanceled:
                if self._most <= LEAST_TABLES:
                    raise
                self._most = max(LEAST_TABLES, self._most // 4)

    def _read(self, server: Server, time: int, everything: bool, *, sizes: bool) -> list[Row]:
        with server.reading(TIMEOUT_MS) as read:
            of_tables = self._about_tables(server, read, everything, sizes)
            found = {
                "server": [_server(server, read)],
                "database": read("databases"),
                "progress": read("progress"),
                **(_seldom(read) if everything else {}),
                **of_tables,
            }
        return [_row(server, time, kind, each) for kind, rows in found.items() for each in rows]

    def _about_tables(self, server: Server, read: Read, everything: bool, sizes: bool) -> dict[str, Rows]:
        relations = read("relations", {"most": self._most})
        chosen = {"oids": [each["oid"] for each in relations]}
        self.left_out = _left_out(relations)
        locked = [each["oid"] for each in read("locked")]
        sized = chosen | {"sizes": sizes, "locked": locked}
        found: dict[str, Rows] = {}
        if everything or not self._columns:
            ages = {each["name"]: each["older"] for each in read("column_ages", chosen)}
            found["column"] = [each | {"older": ages.get(each["name"])} for each in read("columns", chosen)]
            self._columns = _by_table(found["column"])
        found["table"] = [self._table(server, each) for each in read("tables", sized)]
        found["index"] = self._indexes = [
            *_indexes(read("indexes", sized), read("index_last_scans", chosen)),
            *(each for each in self._indexes if each["table_oid"] in locked),
        ]
        found["foreign_key"] = read("foreign_keys", chosen)
        return found

    def _table(self, server: Server, row: dict[str, Any]) -> dict[str, Any]:
        options = _options(row["options"])
        row["options"] = options or None
        if row["bytes"] is None:  # a lock is on it
            row |= self._sizes.get(row["name"], {})
        self._sizes[row["name"]] = {name: row[name] for name in _SIZES}
        row["bloat_fraction"] = bloat_fraction(
            row["rows_estimated"],
            row["pages"],
            self._columns.get(row.pop("oid"), ()),
            fillfactor=float(options.get("fillfactor", 100)),
            page_bytes=server.seen.block_bytes,
        )
        return row


def _seldom(read: Read) -> dict[str, Rows]:
    return {
        "setting": read("settings"),
        "role_setting": [{"name": each["name"], "settings": _told(each["settings"])} for each in read("role_settings")],
        "extension": read("extensions"),
    }


def _server(server: Server, read: Read) -> dict[str, Any]:
    seen = server.seen
    about: dict[str, Any] = {
        "name": server.name,
        "version": seen.version,
        "version_num": seen.version_num,
        "database": seen.database,
        "role": seen.role,
        "statements_version": seen.statements_version,
        "statements_missing": f"{seen.missing}: {seen.how_to_see}" if seen.missing else None,
        "statements_max": seen.statements_max,
        "pooler": "pgbouncer" if seen.is_pooled else None,
        "started_at_us": seen.started_at_us,
        "is_in_recovery": seen.is_in_recovery,
        "is_superuser": seen.is_superuser,
        "sees_all": seen.sees_all,
        "times_io": seen.times_io,
    }
    if seen.has_statements and seen.has_statements_info:
        from psycopg import sql

        info = read("statements_info", schema=sql.Identifier(seen.statements_schema))[0]
        about |= {"statements_evicted": info["evicted"], "statements_reset_at_us": info["reset_at_us"]}
    return about | read("server")[0]


def _indexes(rows: Rows, last_scans: Rows) -> Rows:
    last = {each["oid"]: each["last_scan_at_us"] for each in last_scans}
    for row in rows:
        row["last_scan_at_us"] = last.get(row.pop("oid"))
        row["references"].sort()
        row["options"] = _options(row["options"]) or None
    return rows


def _by_table(columns: Rows) -> dict[int, Rows]:
    tables: dict[int, Rows] = {}
    for each in columns:
        tables.setdefault(each["table_oid"], []).append(each)
    return tables


def _options(listed: Iterable[str] | None) -> dict[str, str]:
    """Return ``reloptions`` as a mapping."""
    return dict(each.split("=", 1) for each in listed or () if "=" in each)


def _told(listed: Iterable[str]) -> dict[str, str]:
    """Return what a role's or database's settings say, without those an app made up for itself."""
    return {
        name: value
        for name, value in _options(listed).items()
        if "." not in name or name.partition(".")[0] in PASSED_ON
    }


def _left_out(relations: Rows) -> str:
    there = relations[0]["tables"] if relations else 0
    return (
        f"{len(relations)} of {there} tables are read: the largest and the most used" if there > len(relations) else ""
    )


_SIZES = ("bytes", "heap_bytes", "index_bytes", "toast_bytes")
_NOT_TOLD = ("name", "table_oid", "fixed_bytes", "alignment")


def _row(server: Server, time: int, kind: str, found: Mapping[str, Any]) -> Row:
    properties = {name: value for name, value in server.timed(found).items() if name not in _NOT_TOLD}
    return {"time": time, "server": server.name, "kind": kind, "name": found["name"], "properties": properties}
