"""The messages of a server's log, from its three formats: stderr, csvlog and jsonlog."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

import orjson

from perfnb.sources.postgres_logs.entries import FURTHER, LEVELS, Entry, NotRead, moment
from perfnb.sources.postgres_logs.prefix import Line, Prefix, detected, without_composed

MOST_OPEN = 1000
LONGEST_FIELD = 64 * 2**20

Read = tuple[int, "Entry | NotRead"]
"""The number of the line a message begins on, and the message or why there is none."""

# https://www.postgresql.org/docs/current/runtime-config-logging.html#RUNTIME-CONFIG-LOGGING-CSVLOG
_CSV = {
    "time": 0, "user": 1, "database": 2, "pid": 3, "level": 11, "message": 13, "detail": 14, "context": 18,
    "statement": 19, "application": 22, "queryid": 25,
}  # fmt: skip
_CSV_COLUMNS = range(23, 30)  # 23 up to version 12, 24 in 13, 26 since 14
_JSON = {
    "time": "timestamp", "user": "user", "database": "dbname", "pid": "pid", "level": "error_severity",
    "message": "message", "detail": "detail", "context": "context", "statement": "statement",
    "application": "application_name", "queryid": "query_id",
}  # fmt: skip


@dataclass(frozen=True)
class Format:
    """A format that fits a file: its name for people, and what reads its lines."""

    title: str
    entries: Callable[[Iterable[str], "tzinfo | None"], Iterator[Read]]


def format_of(lines: list[str], line_prefix: str = "") -> Format | None:
    """Return the format of the log that begins with ``lines``; None where they are no log of Postgres.

    ``line_prefix`` is the server's log_line_prefix, where it is known.
    """
    if not lines:
        return None
    if lines[0].startswith("{") and _is_json(lines):
        return Format("jsonlog", json_entries)
    if _is_csv(lines):
        return Format("csvlog", csv_entries)
    composed = without_composed(lines)
    plain = [composed.sub("", line) for line in lines] if composed else lines
    prefix = detected(plain, line_prefix)
    if prefix is None:
        return None

    def entries(every: Iterable[str], zone: tzinfo | None) -> Iterator[Read]:
        return stderr_entries((composed.sub("", each) for each in every) if composed else every, zone, prefix)

    return Format("stderr", entries)


def stderr_entries(lines: Iterable[str], zone: tzinfo | None, prefix: Prefix) -> Iterator[Read]:
    """Yield each message of a stderr log with the lines that go on or belong to it, by process."""
    texts: dict[str, list[tuple[str, list[str]]]] = {}  # by process: level or part, and its lines
    begun: dict[str, tuple[int, Line]] = {}
    last = ""
    for number, text in enumerate(lines, 1):
        line = None if text.startswith("\t") else prefix.line(text)
        if line is None and text.startswith(("\t", "#011")) and last in texts:
            texts[last][-1][1].append(text.removeprefix("#011").removeprefix("\t"))
        elif line is None:
            if text.strip():
                yield number, NotRead("no line of a server's log")
        else:
            last = line.told.get("pid", "")
            if line.level in FURTHER and last in texts:
                texts[last].append((line.level, [line.message]))
                continue
            if last in begun:
                yield _whole(*begun.pop(last), texts.pop(last), zone)
            begun[last], texts[last] = (number, line), [(line.level, [line.message])]
            if len(begun) > MOST_OPEN:
                oldest = next(iter(begun))
                yield _whole(*begun.pop(oldest), texts.pop(oldest), zone)
    for key, (number, line) in begun.items():
        yield _whole(number, line, texts[key], zone)


def _whole(number: int, line: Line, texts: list[tuple[str, list[str]]], zone: "tzinfo | None") -> Read:
    told = {name: line.told.get(name, "") for name in ("user", "database", "application", "queryid")}
    try:
        at = moment(line.told.get("time", ""), zone)
    except NotRead as error:
        return number, error
    pid = line.told.get("pid", "")
    entry = Entry(at, line.level, "\n".join(texts[0][1]), int(pid) if pid.isdigit() else None, **told)
    for part, rest in texts[1:]:
        entry = entry.adding(part, "\n".join(rest))
    return number, entry


def csv_entries(lines: Iterable[str], zone: "tzinfo | None" = None) -> Iterator[Read]:
    """Yield each row of a csvlog; messages may run over many lines."""
    csv.field_size_limit(max(csv.field_size_limit(), min(LONGEST_FIELD, sys.maxsize)))
    reader = csv.reader((line if line.endswith("\n") else line + "\n" for line in lines), strict=False)
    before = 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield before + 1, NotRead(f"no row of a csvlog: {error}")
            before = reader.line_num
            continue
        number, before = before + 1, reader.line_num
        if row:
            yield number, _of_row(row, zone)


def _of_row(row: list[str], zone: "tzinfo | None") -> "Entry | NotRead":
    if len(row) not in _CSV_COLUMNS or row[_CSV["level"]] not in LEVELS:
        return NotRead(f"no row of a csvlog: {len(row)} fields")
    return _made({name: row[at] for name, at in _CSV.items() if at < len(row)}, zone)


def json_entries(lines: Iterable[str], zone: "tzinfo | None" = None) -> Iterator[Read]:
    """Yield each object of a jsonlog."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = _object(line)
        if found is None or found.get("error_severity") not in LEVELS:
            yield number, NotRead("no object of a jsonlog")
        else:
            yield number, _made({name: _text(found.get(key)) for name, key in _JSON.items()}, zone)


def _made(told: Mapping[str, str], zone: "tzinfo | None") -> "Entry | NotRead":
    rest = dict(told)
    try:
        at = moment(rest.pop("time"), zone)
    except NotRead as error:
        return error
    pid = rest.pop("pid")
    return Entry(at, rest.pop("level"), rest.pop("message"), int(pid) if pid.isdigit() else None, **rest)


def _is_csv(lines: list[str]) -> bool:
    first = next((entry for _, entry in csv_entries(lines[:50])), None)
    return isinstance(first, Entry)


def _is_json(lines: list[str]) -> bool:
    found = [_object(line) for line in lines[:50]]
    fitting = [each for each in found if each and each.get("error_severity") in LEVELS and "timestamp" in each]
    return len(fitting) > len(found) / 2


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _text(value: Any) -> str:
    return "" if value is None else str(value)
