"""Whole log files at once: DuckDB reads the JSON lines and writes the spans as Parquet, with no Python per line.

DuckDB takes the lines that fit the format; the few it can't make sense of (no JSON, an odd time) are then looked at one
by one by the same reader that follows growing files, so that both agree and bad lines are known by their number.
"""

import gzip
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb

from perfnb.errors import WrongUse
from perfnb.recording import Writer
from perfnb.recording.seal import quoted
from perfnb.sources.log_formats import BadLine, LogFormat, parsed, row_of
from perfnb.sources.log_plan import Plan, plan_of, spans_of

SHOWN = 20


@dataclass
class LinesRead:
    """How many spans a file gave, how many lines were bad, and the first of those with number and reason."""

    spans: int = 0
    bad: int = 0
    shown: list[tuple[int, str]] = field(default_factory=list)

    def refuse(self, number: int, reason: str) -> None:
        """Count a bad line."""
        self.bad += 1
        if len(self.shown) < SHOWN:
            self.shown.append((number, reason))


def import_lines(
    path: Path, format_: LogFormat, sample: Iterable[dict[str, Any]], writer: Writer, now: int
) -> LinesRead:
    """Write the steps in ``path`` as spans of the recording that ``writer`` writes into.

    ``sample`` are some of its lines, parsed: they tell which of the format's alternatives this file has. ``now`` (ns) is
    the time of lines that have none.
    """
    plan = plan_of(format_, list(sample))
    found = LinesRead()
    try:
        odd = _copy(path, plan, writer.directory, found, now) if plan else None
    except duckdb.Error:  # a line too long, or an encoding it refuses
        found, odd = LinesRead(), None
    if odd is None or len(odd):
        _look_at(path, format_, odd, writer, found, now)
    return found


def _look_at(path: Path, format_: LogFormat, odd: set[int] | None, writer: Writer, found: LinesRead, now: int) -> None:
    """Read lines one by one: those whose ordinal among lines that aren't empty is in ``odd``, or all."""
    rows: list[dict[str, Any]] = []
    for number, line in _numbered(path, odd):
        try:
            row = row_of(format_, line, now)
        except BadLine as error:
            found.refuse(number, str(error))
            continue
        rows += [row] if row else []
        if len(rows) >= 10_000:
            found.spans += writer.write("spans", rows)
            rows.clear()
    found.spans += writer.write("spans", rows)


def _numbered(path: Path, odd: set[int] | None) -> Iterator[tuple[int, bytes]]:
    ordinal = 0
    with open_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            ordinal += 1
            if odd is None or ordinal in odd:
                yield number, line


def open_lines(path: Path) -> Any:
    """Return the file opened for reading lines as bytes, unpacked where it is gzip."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _copy(path: Path, plan: Plan, recording: Path, found: LinesRead, now: int) -> set[int]:
    """Write the lines that fit into Parquet; return the ordinals of those that may be bad."""
    folder = recording / "spans"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"import-{secrets.token_hex(6)}.parquet"
    partial = target.with_suffix(".partial")
    try:
        with _connected() as connection:
            try:  # most logs have no bad line, and to look for one costs a fifth more
                found.spans = _write(connection, spans_of(path, plan, now, strict=True), partial)
            except duckdb.Error:
                found.spans = _write(connection, spans_of(path, plan, now, strict=False), partial)
            odd = _odd(connection, path, plan, now) if _has_odd(connection, partial) else set()
            if odd:
                fitting = f"FROM read_parquet({quoted(partial)}) WHERE start_time IS NOT NULL"
                again = target.with_suffix(".partial2")
                found.spans = _write(connection, fitting, again)
                again.rename(partial)
        if found.spans:
            partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
        target.with_suffix(".partial2").unlink(missing_ok=True)
    return odd


def _connected() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": min(4, os.cpu_count() or 2), "memory_limit": "1200MB"})
    connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    return connection


def _write(connection: duckdb.DuckDBPyConnection, select: str, target: Path) -> int:
    # snappy, because zstd would cost as much again as parsing; sealed journals are zstd
    copied = connection.execute(f"COPY ({select}) TO {quoted(target)} (FORMAT parquet, COMPRESSION snappy)").fetchone()
    return int(copied[0]) if copied else 0


def _has_odd(connection: duckdb.DuckDBPyConnection, partial: Path) -> bool:
    sql = f"SELECT count(*) FROM read_parquet({quoted(partial)}) WHERE start_time IS NULL"
    return bool((connection.execute(sql).fetchone() or (0,))[0])


def _odd(connection: duckdb.DuckDBPyConnection, path: Path, plan: Plan, now: int) -> set[int]:
    """Return which lines, counted without empty ones, are steps with an odd time or have none of the fields."""
    connection.execute("SET preserve_insertion_order = true")
    sql = (
        f"SELECT ordinal FROM (SELECT *, row_number() OVER () AS ordinal FROM ({plan.lines(path)})) "
        f"WHERE (({plan.is_step}) AND {plan.start(now)} IS NULL) OR ({plan.is_empty})"
    )
    return {ordinal for (ordinal,) in connection.execute(sql).fetchall()}


@dataclass
class Stages:
    """The stage table of a log: per stage name, count, mean_ms, max_ms, p50_ms, p95_ms, p99_ms; and its bad lines."""

    rows: list[tuple[str, int, float, float, float, float, float]]
    lines: LinesRead


def stage_table(path: Path, format_: LogFormat, sample: Iterable[dict[str, Any]]) -> Stages:
    """Return how long each step in ``path`` takes, most time first, straight from the file.

    Lines without a duration don't count; bad lines are counted and told by their number. Raises WrongUse where the file
    has no steps in this format.

    Source: C9 (whose jq pipeline takes a missing duration for 0, and ends at the first line that is no JSON)
    """
    plan, found = plan_of(replace(format_, trace_id=(), parent=(), status=(), service=()), list(sample)), LinesRead()
    if plan is None:
        raise WrongUse(f"{path} has no steps with a duration", hint="name the fields in perfnb.toml: [logs]")
    with _connected() as connection:
        try:
            table = connection.execute(_stages(path, plan, strict=True)).fetchall()
        except duckdb.Error:
            table = connection.execute(_stages(path, plan, strict=False)).fetchall()
        odd = _odd(connection, path, plan, 1) if any(row[0] is None for row in table) else set()
    for number, line in _numbered(path, odd) if odd else ():
        if parsed(line) is None and line.strip() != b"null":
            found.refuse(number, "no JSON object")
    rows = [(name, count, mean, most, *quantiles) for name, count, mean, most, quantiles in table if name is not None]
    found.spans = sum(row[1] for row in rows)
    return Stages(rows, found)


def _stages(path: Path, plan: Plan, *, strict: bool) -> str:
    return (
        "SELECT step_name, count(*), avg(took_ms), max(took_ms), quantile_cont(took_ms, [0.5, 0.95, 0.99]) "
        f"FROM {plan.wanted(path, strict=strict)} GROUP BY step_name ORDER BY sum(took_ms) DESC"
    )
