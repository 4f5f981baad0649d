"""Make rows from files: OTLP/JSON, logs, Postgres' logs and plans, stacks, bills, told apart by what is in them."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from perfnb.attribution.objects import objects
from perfnb.errors import NotPermitted, NotReachable, WrongUse
from perfnb.plans import looks_like_plan
from perfnb.prompts.digest import Digester
from perfnb.recording import Recording, Writer
from perfnb.sources import bills
from perfnb.sources.log_bulk import Stages, import_lines, open_lines, stage_table
from perfnb.sources.log_formats import LogFormat, detect, mapped_format
from perfnb.sources.otlp.decode import Malformed
from perfnb.sources.otlp.intake import Intake
from perfnb.sources.otlp.protocol import Outcome
from perfnb.sources.otlp.tolerant import document, traces_from_document
from perfnb.sources.otlp.tolerant import field as either
from perfnb.sources.postgres_logs import Format
from perfnb.sources.postgres_logs.files import FileRead, import_log, import_plans, log_format, zone_of

BILL_CSV = "usage or cost export (CSV)"
BILL_PAGES = "usage or cost report (JSON)"
PLANS = "plans of statements"

SHOWN = 20
SAMPLE_LINES = 500
LONGEST_DOCUMENT = 512 * 2**20

_OTLP = (
    ("resourceSpans", "resource_spans"),
    ("resourceMetrics", "resource_metrics"),
    ("resourceLogs", "resource_logs"),
)
_COLLAPSED = re.compile(rb"^(?P<stack>\S.*?)\s+(?P<samples>\d+)$")

Progress = Callable[[Path, int], None]
"""Is told which file is read and how many of its lines are done."""


@dataclass(frozen=True)
class Refused:
    """A line that could not be used."""

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass
class Imported:
    """What came of an import: rows per table, and the lines that could not be used (the first 20, and how many)."""

    rows: Counter[str] = field(default_factory=Counter)
    files: dict[Path, str] = field(default_factory=dict)
    bad: list[Refused] = field(default_factory=list)
    bad_lines: int = 0

    def refuse(self, file: Path, line: int, reason: str, count: int = 1) -> None:
        """Count a bad line (or spans of it), and keep it if it is one of the first."""
        self.bad_lines += count
        if len(self.bad) < SHOWN:
            self.bad.append(Refused(file, line, reason))

    def lines(self) -> list[str]:
        """Return what to tell the user, a line each."""
        told = [f"{path}: {kind}" for path, kind in self.files.items()]
        told += [f"{count:,} rows in {table}" for table, count in sorted(self.rows.items()) if count]
        told += [f"{self.bad_lines:,} bad lines were left out"] if self.bad_lines else []
        told += [f"  {each}" for each in self.bad]
        return told + (["  …"] if self.bad_lines > len(self.bad) else [])


def import_files(
    recording: Recording,
    paths: Iterable[Path],
    *,
    mapping: Mapping[str, Any] | None = None,
    progress: Progress = lambda path, lines: None,
) -> Imported:
    """Add what ``paths`` hold to ``recording``; bad lines are counted and shown, never fatal.

    ``mapping`` names a log's fields; without one ``[logs]`` in perfnb.toml does, or a preset that fits. Raises WrongUse
    for a file of no known kind, before anything is written, and NotReachable or NotPermitted for one that can't be read.
    """
    given, server = mapped_format(mapping), _log_settings(recording)
    inputs = [_Input.of(Path(path), given, server) for path in paths]
    imported = Imported(files={each.path: each.kind for each in inputs})
    with recording.writer() as writer:
        digester = Digester(recording.key, recording.content)
        intake = Intake(writer.write, digester, recording.content)
        # logs first: the messages they carry wait for the spans
        for each in sorted(inputs, key=lambda each: each.kind != "OTLP logs"):
            if each.kind in (BILL_CSV, BILL_PAGES):
                each.read_bill(bills.Reader(digester), writer, imported, progress)
            elif each.kind == PLANS or each.server_log:
                each.read_server(writer, imported, server)
            else:
                each.read(intake, writer, imported, progress)
    imported.rows += Counter({name: n for name, n in intake.counters.items() if name in _TABLES})
    return imported


def stages(path: Path, *, mapping: Mapping[str, Any] | None = None) -> Stages:
    """Return how long each step of a log takes, straight from the file and without a recording.

    Raises WrongUse where ``path`` is no log with steps and durations.
    """
    given = _Input.of(path, mapped_format(mapping), {})
    if given.format is None:
        raise WrongUse(f"{path} is no log ({given.kind})", hint=f"perfnb import {path}")
    return stage_table(path, given.format, given.sample)


_TABLES = ("spans", "llm_calls", "http_requests", "samples")


@dataclass(frozen=True)
class _Input:
    """A file whose kind is known."""

    path: Path
    kind: str
    format: LogFormat | None = None
    sample: tuple[Any, ...] = ()
    server_log: Format | None = None

    @classmethod
    def of(cls, path: Path, given: LogFormat | None, server: Mapping[str, str]) -> "_Input":
        """Look into ``path``; raises WrongUse where its content is of no known kind."""
        head = _head(path)
        parsed = [each for each in map(_object, head) if each is not None]
        if kind := _otlp_kind(parsed) or _otlp_kind([_whole(path)] if _is_start_of_document(head, parsed) else []):
            return cls(path, kind)
        if bills.is_csv(head):
            return cls(path, BILL_CSV)
        if any(map(bills.is_page, parsed)) or (_is_start_of_document(head, parsed) and bills.is_page(_whole(path))):
            return cls(path, BILL_PAGES)
        if log := log_format(path, server.get("log_line_prefix", "")):
            return cls(path, f"log of Postgres ({log.title})", server_log=log)
        if _is_plan(head, parsed):
            return cls(path, PLANS)
        if parsed and (format_ := given or detect(head)):
            return cls(path, f"log ({format_.title})", format_, tuple(parsed))
        if head and not parsed and _collapsed(head):
            return cls(path, "collapsed stacks")
        raise WrongUse(f"{path} is of no known kind", hint=_hint(head, parsed))

    def read(self, intake: Intake, writer: Writer, imported: Imported, progress: Progress) -> None:
        """Write the file's rows."""
        if self.format is not None:
            self._read_log(self.format, writer, imported)
        elif self.kind == "collapsed stacks":
            self._read_stacks(writer, imported, progress)
        else:
            self._read_otlp(intake, imported, progress)

    def read_server(self, writer: Writer, imported: Imported, server: Mapping[str, str]) -> None:
        """Write what a database server's log, or a plan out of it, tells."""
        log = self.server_log
        found: FileRead = (
            import_log(self.path, log, writer, zone=zone_of(server)) if log else import_plans(self.path, writer)
        )
        imported.rows += found.rows
        for number, reason in found.shown:
            imported.refuse(self.path, number, reason)
        imported.bad_lines += found.bad - len(found.shown)

    def _read_log(self, format_: LogFormat, writer: Writer, imported: Imported) -> None:
        found = import_lines(self.path, format_, self.sample, writer, self.path.stat().st_mtime_ns)
        imported.rows["spans"] += found.spans
        for number, reason in found.shown:
            imported.refuse(self.path, number, reason)
        imported.bad_lines += found.bad - len(found.shown)

    def _read_otlp(self, intake: Intake, imported: Imported, progress: Progress) -> None:
        for number, line in _documents(self.path):
            try:
                outcome = _take(intake, document(line))
            except Malformed as error:
                imported.refuse(self.path, number, error.message)
                continue
            if outcome.rejected:
                imported.refuse(self.path, number, outcome.reason, outcome.rejected)
            progress(self.path, number)

    def read_bill(self, reader: bills.Reader, writer: Writer, imported: Imported, progress: Progress) -> None:
        """Write the rows of a provider's export."""
        with open_lines(self.path) as lines:
            found = list(reader.csv_rows(lines) if self.kind == BILL_CSV else _page_rows(self.path, reader))
        for number, row in found:
            if isinstance(row, bills.BadBill):
                imported.refuse(self.path, number, str(row))
        rows = [row for _, row in found if not isinstance(row, bills.BadBill)]
        imported.rows["bills"] += writer.write("bills", rows)
        progress(self.path, len(rows))

    def _read_stacks(self, writer: Writer, imported: Imported, progress: Progress) -> None:
        rows = []
        with open_lines(self.path) as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = _stack(line, self.path.stat().st_mtime_ns)
                if row is None:
                    imported.refuse(self.path, number, "no collapsed stack: frames;… and a number")
                else:
                    rows.append(row)
        imported.rows["stacks"] += writer.write("stacks", rows)
        progress(self.path, len(rows))


def _head(path: Path) -> list[bytes]:
    """Return the first lines that aren't empty."""
    try:
        with open_lines(path) as lines:
            return [line.strip() for line in islice((line for line in lines if line.strip()), SAMPLE_LINES)]
    except (FileNotFoundError, IsADirectoryError):
        raise NotReachable(f"{path} is no file", hint="name OTLP/JSON, log or stack files") from None
    except PermissionError:
        raise NotPermitted(f"{path} may not be read", hint=f"chmod +r {path}") from None
    except (OSError, EOFError) as error:
        raise WrongUse(f"{path} can't be read: {error}", hint="unpack it first") from None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        parsed = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _otlp_kind(parsed: Iterable[dict[str, Any] | None]) -> str | None:
    kinds = ("OTLP traces", "OTLP metrics", "OTLP logs")
    for each in parsed:
        for names, kind in zip(_OTLP, kinds, strict=True):
            if each is not None and any(name in each for name in names):
                return kind
    return None


def _is_start_of_document(head: list[bytes], parsed: list[Any]) -> bool:
    """Tell whether the file may be one JSON document over many lines."""
    return bool(head) and not parsed and head[0][:1] == b"{"


def _whole(path: Path) -> dict[str, Any] | None:
    with open_lines(path) as file:
        body = file.read(LONGEST_DOCUMENT + 1)
    return _object(body) if len(body) <= LONGEST_DOCUMENT else None


def _page_rows(path: Path, reader: bills.Reader) -> Iterator[tuple[int, bills.Row | bills.BadBill]]:
    """Yield the rows of every page: one a line, or one document over many lines."""
    with open_lines(path) as lines:
        first = next((line for line in lines if line.strip()), b"")
        lines.seek(0)
        whole = _object(first) is None
        for number, line in [(1, lines.read())] if whole else enumerate(lines, 1):
            if line.strip():
                yield from ((number, row) for row in reader.page_rows(_object(line)))


def _documents(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each line, or the whole file where it is one document over many lines."""
    with open_lines(path) as lines:
        first = next((line for line in lines if line.strip()), b"")
        if _object(first) is None and _otlp_kind([_whole(path)]):
            lines.seek(0)
            yield 1, lines.read()
            return
        lines.seek(0)
        yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _take(intake: Intake, parsed: dict[str, Any]) -> Outcome:
    """Write all signals in one document, which may hold several."""
    signals: tuple[Callable[[dict[str, Any]], Outcome], ...] = (
        lambda each: intake.add_traces(traces_from_document(each)),
        intake.add_metrics,
        intake.add_logs,
    )
    outcomes = [add(parsed) for names, add in zip(_OTLP, signals, strict=True) if either(parsed, *names) is not None]
    if not outcomes:
        raise Malformed("no resourceSpans, resourceMetrics or resourceLogs", hint="")
    reasons = [outcome.reason for outcome in outcomes if outcome.reason]
    return Outcome(0, sum(outcome.rejected for outcome in outcomes), reasons[0] if reasons else "")


def _log_settings(recording: Recording) -> dict[str, str]:
    """Return how the recorded server writes its log, where one was recorded."""
    if not recording.has("catalog"):
        return {}
    known = objects(recording, "setting")
    return {name: value for name, value in zip(known["name"], known["value"], strict=True) if name.startswith("log_")}


def _is_plan(head: list[bytes], parsed: list[dict[str, Any]]) -> bool:
    if parsed:
        return any("Plan" in each or "Node Type" in each or "QUERY PLAN" in each for each in parsed[:3])
    return looks_like_plan(b"\n".join(head).decode("utf-8", "replace"))


def _collapsed(head: list[bytes]) -> bool:
    fitting = sum(bool(_COLLAPSED.match(line)) for line in head)
    return fitting > len(head) / 2 and any(b";" in line for line in head)


def _stack(line: bytes, now: int) -> dict[str, Any] | None:
    found = _COLLAPSED.match(line.strip())
    if found is None or int(found["samples"]) >= 2**63:
        return None
    stack = found["stack"].decode("utf-8", "replace")
    return {"time": now, "stack": stack, "samples": int(found["samples"]), "mode": "profile"}


def _hint(head: list[bytes], parsed: list[Any]) -> str:
    if not head:
        return "it is empty"
    if parsed:
        return "name the log's fields in perfnb.toml: [logs] name = …, duration_ms = …, time = …"
    return (
        "OTLP/JSON, logs of one JSON object a line or of Postgres, plans as EXPLAIN prints them, collapsed stacks "
        "(a;b;c 12) and providers' usage exports are read"
    )
