"""A recording: a directory of typed tables that many processes may write while others read."""

import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from perfnb import __version__
from perfnb.errors import BadRecording, NewerRecording, NotMeasured, NotWritable, WrongUse
from perfnb.recording.journal import Writer
from perfnb.recording.manifest import read_manifest, write_manifest
from perfnb.recording.schema import SCHEMA_VERSION, TABLES
from perfnb.recording.seal import abandoned, live_rows, seal_abandoned
from perfnb.recording.upgrade import upgrade
from perfnb.recording.views import Files, Views, damage, listing

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

T = TypeVar("T")
Content = Literal["digest", "full"]

KEY = "digest.key"

# How to get the evidence of each table, for NotMeasured.
HOW_TO_MEASURE = {
    "spans": "traces: perfnb record --otlp, or perfnb import TRACES.jsonl",
    "llm_calls": "model calls: perfnb record --upstream URL, or traces with GenAI spans",
    "http_requests": "requests: perfnb record --listen PORT --app URL, or --url URL, or server spans",
    "samples": "metrics: perfnb record --pid PID",
    "stacks": "stacks: perfnb record --pid PID (py-spy), or perfnb import STACKS.txt",
    "statements": "statements of Postgres, seen twice: perfnb record --dsn DSN, with pg_stat_statements on the server",
    "activity": "sessions of Postgres: perfnb record --dsn DSN",
    "catalog": "tables, indexes and settings of a database: perfnb record --dsn DSN",
    "plans": "plans of statements: perfnb record --dsn DSN, or perfnb import PLAN.json",
    "allocations": "a heap source, which this version does not have yet",
    "bills": "a provider's usage or cost export: perfnb import completions_usage.csv",
    "events": "a timeline",
}


@dataclass(frozen=True)
class Window:
    """First and last moment something was observed, in ns since 1970."""

    start: int
    end: int

    @property
    def seconds(self) -> float:
        """Return the window's length."""
        return (self.end - self.start) / 1e9


class Recording:
    """Everything observed of one incident; open it with :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.manifest = dict(manifest)
        self._views = self._new_views()
        self._derived: dict[str, Any] = {}
        self._held = 0
        self._timeline = Writer(path)
        self._lock = threading.RLock()
        _recordings.add(self)

    @classmethod
    def create(cls, path: str | Path, *, content: Content = "digest", simulated: bool = False) -> Self:
        """Make an empty recording at ``path`` (``NAME.perfnb``).

        Raises WrongUse where something else stands, NotWritable where nothing can be written.
        """
        path = Path(path)
        manifest = {
            "schema": SCHEMA_VERSION,
            "perfnb": __version__,
            "created": time.time_ns(),
            "content": content,
            "simulated": simulated,
        }
        try:
            if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
                raise WrongUse(f"{path} exists already", hint="name another --out, or remove it")
            path.mkdir(parents=True, exist_ok=True)
            (path / KEY).touch(mode=0o600)
            (path / KEY).write_text(secrets.token_hex(32))
            write_manifest(path, manifest)
        except OSError as error:
            raise NotWritable.because(error, path) from None
        return cls(path, manifest)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the recording at ``path``, upgrading an older schema; raises BadRecording or NewerRecording."""
        path = Path(path)
        manifest = read_manifest(path)
        if manifest["schema"] > SCHEMA_VERSION:
            raise NewerRecording(
                f"{path} has schema {manifest['schema']}, this perfnb reads up to {SCHEMA_VERSION}",
                hint="pip install --upgrade perfnb",
            )
        if manifest["schema"] < SCHEMA_VERSION:
            manifest = upgrade(path)
        return cls(path, manifest)

    @property
    def name(self) -> str:
        """Return the folder's name without its suffix."""
        return self.path.name.removesuffix(".perfnb")

    @property
    def content(self) -> Content:
        """Return ``digest`` or ``full``: whether message texts were kept."""
        return "full" if self.manifest.get("content") == "full" else "digest"

    @property
    def key(self) -> bytes:
        """Return the secret that keyed hashes of this recording use."""
        try:
            return bytes.fromhex((self.path / KEY).read_text().strip())
        except (FileNotFoundError, ValueError):
            raise BadRecording(
                f"{self.path / KEY} is missing or damaged", hint="nothing more can be recorded here"
            ) from None

    def writer(self) -> Writer:
        """Return a writer; each process (and each source) uses its own."""
        return Writer(self.path)

    def add_event(self, kind: str, title: str, body: Mapping[str, Any] | None = None) -> None:
        """Put one entry on the timeline at once."""
        row = {"time": time.time_ns(), "kind": kind, "title": title, "body": dict(body or {})}
        self._timeline.write("events", [row])

    def seal(self) -> int:
        """Seal the journals of writers that are gone, and the timeline's; return how many torn lines they ended in."""
        self._timeline.close()
        try:
            return sum(seal_abandoned(journal) for table in TABLES for journal in sorted(self._journals(table)))
        except (OSError, import_module("duckdb").Error) as error:
            raise NotWritable.because(error, self.path) from error

    @property
    def torn_lines(self) -> int:
        """Return how many half-written last lines were skipped: in sealed journals, and in those of writers now gone."""
        sealed = sum(int(path.read_text()) for path in self.path.glob("*/*.torn"))
        return sealed + sum(self._torn_in_live(table) for table in TABLES)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> "pd.DataFrame":
        """Run SQL over the tables as they are now and return a frame; ``$name`` takes ``parameters``.

        Raises BadRecording where a file is damaged, and DuckDB's own error where the SQL is wrong.
        """
        return self._read(lambda connection: connection.execute(sql, dict(parameters or {})).df())

    def has(self, table: str) -> bool:
        """Tell whether ``table`` holds a row."""
        sealed, live = self._listing(table)
        if not sealed and not live:
            return False
        return not self.query(f"SELECT 1 FROM {table} LIMIT 1").empty

    def require(self, *tables: str) -> None:
        """Raise NotMeasured for the first of ``tables`` that is empty."""
        for table in tables:
            if not self.has(table):
                raise NotMeasured(f"no rows in {table}", hint=HOW_TO_MEASURE[table])

    @cached_property
    def _time_columns(self) -> list[tuple[str, str]]:
        return [
            (name, table.time) for name, table in TABLES.items() if name not in ("events", "catalog", "plans", "bills")
        ]

    @property
    def window(self) -> Window:
        """Return the first and last moment observed; both are the creation time in an empty recording."""
        parts = [
            f"SELECT min({time}) AS first, max({time}{_plus_duration(name)}) AS last FROM {name}"
            for name, time in self._time_columns
        ]
        sql = f"SELECT min(first), max(last) FROM ({' UNION ALL '.join(parts)})"
        first, last = self._read(lambda connection: connection.execute(sql).fetchone()) or (None, None)
        created = self.manifest.get("created", 0)
        return Window(created if first is None else first, created if last is None else last)

    def derived(self, name: str, build: Callable[[], Any]) -> Any:
        """Return what ``build`` returned the first time for the rows there are now: a memo that new rows clear."""
        with self._lock:
            self.refresh()
            if name not in self._derived:
                self._derived[name] = build()
            return self._derived[name]

    def refresh(self) -> "duckdb.DuckDBPyConnection":
        """Return the connection after pointing its views at the files there are now."""
        with self._lock:
            if self._is_due() and self._views.refresh():
                self._derived.clear()
            return self._views.connection

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep to the rows there are now, so that what is asked meanwhile agrees, however fast more are written."""
        with self._lock:
            self.refresh()
            self._held += 1
            try:
                yield
            finally:
                self._held = max(0, self._held - 1)

    def close(self) -> None:
        """Release what reading took and seal the timeline; the recording can be used again afterwards."""
        with self._lock:
            self._views.close()
            self._derived.clear()
        self._timeline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Recording({str(self.path)!r})"

    def _new_views(self) -> Views:
        return Views(self.path)

    def _is_due(self) -> bool:
        """Tell whether to look for new rows."""
        return not self._held

    def _listing(self, table: str) -> Files:
        return listing(self.path / table)

    def _journals(self, table: str) -> Iterable[Path]:
        """Return all journals of ``table``, those included whose Parquet stands already."""
        return (self.path / table).glob("*.jsonl")

    def _torn_in_live(self, table: str) -> int:
        gone = [journal for journal in self._listing(table)[1] if abandoned(journal)]
        if not gone:
            return 0
        rows = f"SELECT count(*) FROM ({live_rows(table, gone)}) WHERE {TABLES[table].time} IS NULL"
        try:
            with self._lock:
                (torn,) = self.refresh().execute(rows).fetchone() or (0,)
        except import_module("duckdb").IOException:  # sealed since the listing, and counted there from now on
            return 0
        return int(torn)

    def _read(self, run: "Callable[[duckdb.DuckDBPyConnection], T]") -> "T":
        duckdb = import_module("duckdb")
        with self._lock:
            try:
                return run(self.refresh())
            except duckdb.IOException:  # a file went away after it was listed
                self._views.close()
                self._derived.clear()
                self._held = 0
                self._require_whole_files()
                return run(self.refresh())
            except duckdb.Error as error:
                if type(error) in (duckdb.Error, duckdb.InvalidInputException):
                    self._require_whole_files()
                raise

    def _require_whole_files(self) -> None:
        """Raise BadRecording for the first sealed file that can't be read."""
        for table in TABLES:
            for parquet in self._listing(table)[0]:
                if trouble := damage(parquet):
                    raise BadRecording(f"{parquet} is damaged: {trouble}", hint="move it away; the rest can be read")

    def _after_fork(self) -> None:
        """Start anew in a forked child, where DuckDB's threads are gone; closing its connection could wait for them."""
        _parents_connections.append(self._views.leave())
        self._lock = threading.RLock()
        self._derived = {}


_recordings: "weakref.WeakSet[Recording]" = weakref.WeakSet()
_parents_connections: list[Any] = []


def _start_anew_in_child() -> None:
    for recording in list(_recordings):
        recording._after_fork()


os.register_at_fork(after_in_child=_start_anew_in_child)


def _plus_duration(table: str) -> str:
    has_duration = any(column.name == "duration_ms" for column in TABLES[table].columns)
    return " + CAST(coalesce(duration_ms, 0) * 1e6 AS BIGINT)" if has_duration else ""
