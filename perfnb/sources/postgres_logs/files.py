"""Whole files: a server's log or pasted plans into the tables of a recording."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from perfnb.errors import WrongUse
from perfnb.plans import Plan, read_plans
from perfnb.recording import Writer
from perfnb.sources.log_bulk import open_lines
from perfnb.sources.postgres.literals import plan_without_literals, without_literals
from perfnb.sources.postgres_logs.entries import NotRead
from perfnb.sources.postgres_logs.formats import Format, format_of
from perfnb.sources.postgres_logs.rows import Messages

SAMPLE_LINES = 500
BATCH = 2000
SHOWN = 20


@dataclass
class FileRead:
    """What a file gave: rows by table, what its messages were, and how many lines could not be used with the first ones."""

    rows: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    shown: list[tuple[int, str]] = field(default_factory=list)

    def refuse(self, number: int, reason: str) -> None:
        """Count a bad line, and keep it if it is one of the first."""
        self.bad += 1
        if len(self.shown) < SHOWN:
            self.shown.append((number, reason))


def log_format(path: Path, line_prefix: str = "") -> Format | None:
    """Return the format of the server's log at ``path``; None where it is none."""
    with open_lines(path) as lines:
        head = [line.decode("utf-8", "replace").rstrip("\r\n") for line in islice(lines, SAMPLE_LINES)]
    return format_of([line for line in head if line.strip()], line_prefix)


def import_log(path: Path, format_: Format, writer: Writer, *, zone: tzinfo | None = None) -> FileRead:
    """Write what the log at ``path`` tells; ``zone`` is the server's log_timezone where it is known."""
    found, messages = FileRead(), Messages()
    with open_lines(path) as opened:
        lines = TextIOWrapper(opened, "utf-8", "replace", newline="\n")
        for batch in _batches(_rows(format_, (line.rstrip("\r\n") for line in lines), zone, messages, found)):
            _write(batch, writer, found)
        lines.detach()
    _write(list(messages.left()), writer, found)
    found.messages = messages.counters
    return found


def import_plans(path: Path, writer: Writer) -> FileRead:
    """Write the plans that were pasted into the file at ``path``; raises WrongUse where none can be read."""
    found = FileRead()
    with open_lines(path) as lines:
        text = lines.read().decode("utf-8", "replace")
    rows = [plan_row(plan, path.stat().st_mtime_ns) for plan in read_plans(text)]
    _write([("plans", row) for row in rows], writer, found)
    return found


def plan_row(plan: Plan, time: int, *, origin: str = "pasted") -> dict[str, Any]:
    """Return the row of the table ``plans`` for ``plan``, without any literal."""
    document = {name: value for name, value in plan.document.items() if name != "Query Text"}
    return {
        "time": time,
        "queryid": plan.queryid or None,
        "query": without_literals(plan.query) or None,
        "plan": plan_without_literals(document),
        "origin": origin,
        "duration_ms": plan.total_ms,
    }


def zone_of(settings: Mapping[str, str]) -> tzinfo | None:
    """Return the time zone of a server's log by its settings; None where they don't tell one that is known."""
    try:
        return ZoneInfo(settings["log_timezone"])
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        return None


def _rows(
    format_: Format, lines: Iterable[str], zone: tzinfo | None, messages: Messages, found: FileRead
) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, entry in format_.entries(lines, zone):
        if isinstance(entry, NotRead):
            found.refuse(number, str(entry))
            continue
        try:
            yield from messages.rows(entry)
        except WrongUse as error:
            found.refuse(number, error.message)


def _batches(rows: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    while batch := list(islice(rows, BATCH)):
        yield batch


def _write(rows: list[tuple[str, dict[str, Any]]], writer: Writer, found: FileRead) -> None:
    for table in dict.fromkeys(table for table, _ in rows):
        found.rows[table] += writer.write(table, [row for name, row in rows if name == table])
