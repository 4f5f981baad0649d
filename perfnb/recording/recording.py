"""A recording: a directory of typed tables that many processes may write while others read."""

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from perfnb import __version__
from perfnb.errors import BadRecording, NewerRecording, NotMeasured, WrongUse
from perfnb.recording.journal import Writer, abandoned, live_rows, seal
from perfnb.recording.schema import SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

Content = Literal["digest", "full"]

MANIFEST = "recording.json"
KEY = "digest.key"
SEALED_MEANWHILE_TRIES = 5

# How to get the evidence of each table, for NotMeasured.
HOW_TO_MEASURE = {
    "spans": "traces: perfnb record --otlp, or perfnb import TRACES.jsonl",
    "llm_calls": "model calls: perfnb record --upstream URL, or traces with GenAI spans",
    "http_requests": "requests: perfnb record --listen PORT --app URL, or --url URL, or server spans",
    "samples": "metrics: perfnb record --pid PID",
    "stacks": "stacks: perfnb record --pid PID (py-spy), or perfnb import STACKS.txt",
    "statements": "a Postgres DSN: perfnb record --dsn DSN",
    "catalog": "a Postgres DSN: perfnb record --dsn DSN",
    "plans": "a Postgres DSN: perfnb record --dsn DSN",
    "allocations": "heap snapshots: perfnb record --heap",
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
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._files: dict[str, tuple[tuple[Path, ...], tuple[Path, ...]]] = {}
        self._derived: dict[str, Any] = {}
        self._lock = threading.RLock()

    @classmethod
    def create(cls, path: str | Path, *, content: Content = "digest", simulated: bool = False) -> Self:
        """Make an empty recording at ``path`` (``NAME.perfnb``); raises WrongUse where something else stands."""
        path = Path(path)
        if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
            raise WrongUse(f"{path} exists already", hint="name another --out, or remove it")
        path.mkdir(parents=True, exist_ok=True)
        manifest = {
            "schema": SCHEMA_VERSION,
            "perfnb": __version__,
            "created": time.time_ns(),
            "content": content,
            "simulated": simulated,
        }
        key = path / KEY
        key.touch(mode=0o600)
        key.write_text(secrets.token_hex(32))
        _write_manifest(path, manifest)
        return cls(path, manifest)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the recording at ``path``, upgrading an older schema; raises BadRecording or NewerRecording."""
        path = Path(path)
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            version = int(manifest["schema"])
        except FileNotFoundError:
            raise BadRecording(
                f"{path} is no recording: it has no {MANIFEST}", hint="name a NAME.perfnb folder"
            ) from None
        except (ValueError, KeyError, TypeError, NotADirectoryError) as error:
            raise BadRecording(
                f"{path / MANIFEST} can't be read: {error}", hint="restore the file from a copy"
            ) from None
        if version > SCHEMA_VERSION:
            raise NewerRecording(
                f"{path} has schema {version}, this perfnb reads up to {SCHEMA_VERSION}",
                hint="pip install --upgrade perfnb",
            )
        if version < SCHEMA_VERSION:
            from perfnb.recording.upgrade import upgrade

            manifest = upgrade(path, manifest)
            _write_manifest(path, manifest)
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
        with self.writer() as writer:
            writer.write("events", [{"time": time.time_ns(), "kind": kind, "title": title, "body": dict(body or {})}])

    def seal(self) -> int:
        """Seal the journals of writers that are gone; return how many torn lines they ended in."""
        return sum(seal(path) for table in TABLES for path in self._listing(table)[1] if abandoned(path))

    @property
    def torn_lines(self) -> int:
        """Return how many half-written last lines were skipped in sealed journals."""
        return sum(int(path.read_text()) for table in TABLES for path in (self.path / table).glob("*.torn"))

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> "pd.DataFrame":
        """Run SQL over the tables as they are now and return a frame; ``$name`` takes ``parameters``."""
        with self._lock:
            for _ in range(SEALED_MEANWHILE_TRIES):
                try:
                    return self.refresh().execute(sql, dict(parameters or {})).df()
                except import_module("duckdb").IOException:  # a journal was sealed between listing and reading
                    self._files = {}
            return self.refresh().execute(sql, dict(parameters or {})).df()

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
        return [(name, table.time) for name, table in TABLES.items() if name not in ("events", "catalog")]

    @property
    def window(self) -> Window:
        """Return the first and last moment observed; both are the creation time in an empty recording."""
        parts = [
            f"SELECT min({time}) AS first, max({time}{_plus_duration(name)}) AS last FROM {name}"
            for name, time in self._time_columns
        ]
        frame = self.query(f"SELECT min(first) AS first, max(last) AS last FROM ({' UNION ALL '.join(parts)})")
        first, last = frame.iloc[0]
        if first != first or first is None:
            return Window(self.manifest["created"], self.manifest["created"])
        return Window(int(first), int(last))

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
            if self._connection is None:
                self._connection = _connect()
            listing = {table: self._listing(table) for table in TABLES}
            state = {table: (sealed, _sizes(live)) for table, (sealed, live) in listing.items()}
            if state != self._files:
                for table, (sealed, live) in listing.items():
                    if state[table] != self._files.get(table):
                        self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {table} AS {_view(table, sealed, live)}")
                self._files = state
                self._derived.clear()
            return self._connection

    def close(self) -> None:
        """Release the reader's resources."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            self._files = {}
            self._derived.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Recording({str(self.path)!r})"

    def _listing(self, table: str) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Return sealed files and journals of ``table``; a journal whose Parquet stands already is not live."""
        folder = self.path / table
        names = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - one call on the hot path
        sealed = tuple(folder / name for name in names if name.endswith(".parquet"))
        done = {path.stem for path in sealed}
        live = tuple(folder / name for name in names if name.endswith(".jsonl") and name[:-6] not in done)
        return sealed, live


def _write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    partial = path / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(dict(manifest), indent=2) + "\n")
    partial.rename(path / MANIFEST)


def _connect() -> "duckdb.DuckDBPyConnection":
    connection = import_module("duckdb").connect(
        config={"memory_limit": "1200MB", "threads": min(4, os.cpu_count() or 2)}
    )
    connection.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
    result: duckdb.DuckDBPyConnection = connection
    return result


def _sizes(journals: Iterable[Path]) -> tuple[Any, ...]:
    sizes = []
    for path in journals:
        try:
            sizes.append((path, path.stat().st_size))
        except FileNotFoundError:  # sealed since the listing; the next look finds the Parquet
            sizes.append((path, -1))
    return tuple(sizes)


def _view(table: str, sealed: tuple[Path, ...], live: tuple[Path, ...]) -> str:
    declared = TABLES[table]
    columns = ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in declared.types.items())
    parts = []
    if sealed:
        files = ", ".join("'" + str(path).replace("'", "''") + "'" for path in sealed)
        # union_by_name with an empty file of today's columns would cost a read; older schemas are upgraded on opening
        parts.append(f"SELECT {columns} FROM read_parquet([{files}], union_by_name = true)")
    if live:
        parts.append(f"SELECT {columns} FROM ({live_rows(table, list(live))}) WHERE {declared.time} IS NOT NULL")
    if not parts:
        empty = ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in declared.types.items())
        parts.append(f"SELECT {empty} WHERE false")
    return " UNION ALL ".join(parts)


def _plus_duration(table: str) -> str:
    has_duration = any(column.name == "duration_ms" for column in TABLES[table].columns)
    return " + CAST(coalesce(duration_ms, 0) * 1e6 AS BIGINT)" if has_duration else ""
