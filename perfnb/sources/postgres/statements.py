"""Snapshots of pg_stat_statements in one form, whatever columns the installed version has."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from perfnb.recording.journal import Row
from perfnb.sources.postgres.capabilities import Capabilities, Read
from perfnb.sources.postgres.literals import without_literals
from perfnb.sources.postgres.server import Server
from perfnb.sources.postgres.sql import MARK

_TIMES_IO = ("block_read_time_ms", "block_write_time_ms", "temp_block_time_ms")
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "is_top_level": ("toplevel",),
    "queryid": ("queryid::text",),
    "calls": ("calls",),
    "plans": ("plans",),
    "total_plan_time_ms": ("total_plan_time",),
    "total_exec_time_ms": ("total_exec_time", "total_time"),
    "mean_exec_time_ms": ("mean_exec_time", "mean_time"),
    "min_exec_time_ms": ("min_exec_time", "min_time"),
    "max_exec_time_ms": ("max_exec_time", "max_time"),
    "stddev_exec_time_ms": ("stddev_exec_time", "stddev_time"),
    "rows": ("rows",),
    "shared_blocks_hit": ("shared_blks_hit",),
    "shared_blocks_read": ("shared_blks_read",),
    "shared_blocks_dirtied": ("shared_blks_dirtied",),
    "shared_blocks_written": ("shared_blks_written",),
    "temp_blocks_read": ("temp_blks_read",),
    "temp_blocks_written": ("temp_blks_written",),
    "block_read_time_ms": ("shared_blk_read_time", "blk_read_time"),
    "block_write_time_ms": ("shared_blk_write_time", "blk_write_time"),
    "wal_bytes": ("wal_bytes::bigint",),
}
_MOST_TRIES = 2
LEAST_KNOWN = 10

Key = tuple[int, str, bool | None]


def columns(installed: Iterable[str]) -> dict[str, str]:
    """Return for each column of a recording's statements the expression that gives it, where ``installed`` has it."""
    there = set(installed)
    found = {
        name: next((each for each in candidates if each.partition("::")[0] in there), "")
        for name, candidates in _COLUMNS.items()
    }
    if {"temp_blk_read_time", "temp_blk_write_time"} <= there:
        found["temp_block_time_ms"] = "temp_blk_read_time + temp_blk_write_time"
    if "stats_since" in there:
        found["since_us"] = "(extract(epoch FROM stats_since) * 1000000)::bigint"
    return {name: expression for name, expression in found.items() if expression}


@dataclass(frozen=True)
class Totals:
    """What a snapshot says of all statements together."""

    evicted: int | None = None
    reset_at_us: int | None = None
    is_reset: bool = False


class Statements:
    """Takes snapshots, each only of what ran since the one before; texts are asked for once a statement.

    Statements of other roles that this role may not see have no queryid; they make one row without it a snapshot, whose
    counters are theirs in sum, so that every snapshot has a row. perfnb's own are left out.
    """

    def __init__(self) -> None:
        self._calls: dict[Key, int] = {}
        self._texts: dict[str, str | None] = {}
        self._tries: dict[str, int] = {}
        self._own: set[str] = set()
        self.totals = Totals()

    def forget(self) -> None:
        """Give all statements at the next snapshot."""
        self._calls.clear()

    def snapshot(self, server: Server, read: Read, time: int, *, everything: bool = False) -> list[Row]:
        """Return the rows of a snapshot: of ``everything``, or of what ran since the last."""
        raw = self._numbers(server.seen, read)
        visible = [row for row in raw if row["queryid"] is not None]
        self._learn_texts(server.seen, read, {row["queryid"] for row in visible})
        visible = [row for row in visible if row["queryid"] not in self._own]
        calls = {_key(row): row["calls"] for row in visible}
        ran = [row for row in visible if everything or self._calls.get(_key(row)) != row["calls"]]
        self.totals = self._totals(server, read, calls)
        self._calls = calls
        about = {"time": time, "server": server.name, "database": server.seen.database}
        hidden = _sum([row for row in raw if row["queryid"] is None])
        return [*(self._row(server, row, about) for row in ran), about | hidden]

    def _numbers(self, seen: Capabilities, read: Read) -> list[dict[str, Any]]:
        made = [
            sql.SQL("{} AS {}").format(sql.SQL(text), sql.Identifier(name))
            for name, text in columns(seen.statement_columns).items()
        ]
        return read("statements", columns=sql.SQL(", ").join(made), schema=sql.Identifier(seen.statements_schema))

    def _learn_texts(self, seen: Capabilities, read: Read, queryids: set[str]) -> None:
        wanted = [
            each
            for each in queryids - self._own
            if self._texts.get(each) is None and self._tries.get(each, 0) < _MOST_TRIES
        ]
        if not wanted:
            return
        schema = sql.Identifier(seen.statements_schema)
        found = {row["queryid"]: row["query"] for row in read("statement_texts", {"queryids": wanted}, schema=schema)}
        for queryid in wanted:
            text = found.get(queryid)
            self._tries[queryid] = self._tries.get(queryid, 0) + 1
            self._texts[queryid] = without_literals(text) if text else None
            if text and MARK in text:
                self._own.add(queryid)
        self._texts = {queryid: text for queryid, text in self._texts.items() if queryid in queryids}

    def _row(self, server: Server, row: Mapping[str, Any], about: Mapping[str, Any]) -> Row:
        kept = {name: value for name, value in server.timed(row).items() if name != "userid"}
        if not server.seen.times_io:
            kept = {name: value for name, value in kept.items() if name not in _TIMES_IO}
        return {**about, **kept, "query": self._texts.get(row["queryid"])}

    def _totals(self, server: Server, read: Read, calls: Mapping[Key, int]) -> Totals:
        if not server.seen.has_statements_info:
            return Totals(is_reset=_began_anew(self._calls, calls))
        info = read("statements_info", schema=sql.Identifier(server.seen.statements_schema))[0]
        before, now = self.totals.reset_at_us, info["reset_at_us"]
        return Totals(info["evicted"], now, is_reset=None not in (before, now) and before != now)


def _began_anew(before: Mapping[Key, int], now: Mapping[Key, int]) -> bool:
    """Tell whether all counters were reset, where the server doesn't say when: few are left, and none went on."""
    went_on = sum(now.get(key, 0) >= calls for key, calls in before.items())
    return len(before) >= LEAST_KNOWN and len(now) < len(before) / 2 and went_on < len(before) / 20


def _key(row: Mapping[str, Any]) -> Key:
    return row["userid"], row["queryid"], row.get("is_top_level")


_SUMMED = ("calls", "total_exec_time_ms", "rows", "shared_blocks_hit", "shared_blocks_read")


def _sum(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: sum(row.get(name) or 0 for row in rows) for name in _SUMMED}
