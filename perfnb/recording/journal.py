"""Append rows to a recording: one journal file per table and writer, sealed into Parquet.

A batch is one ``write`` to a file opened for append, done before anything is acknowledged: what was acknowledged is in
the kernel's page cache and survives a kill -9 of the writer (not a power cut). A writer holds a lock on its file, so a
journal whose lock is free belongs to a writer that is gone and may be sealed by anyone. Sealing writes Parquet beside
the journal and renames it into place; while both exist, readers take the Parquet.
"""

import fcntl
import os
import secrets
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from perfnb.errors import WrongUse
from perfnb.recording.schema import TABLES

Row = Mapping[str, Any]

SEAL_AT_BYTES = 256 * 2**20


class Journal:
    """The journal of one table and one writer; safe to use from several threads."""

    def __init__(self, directory: Path, table: str, *, seal_at_bytes: int = SEAL_AT_BYTES) -> None:
        if table not in TABLES:
            raise WrongUse(f"no table named {table!r}", hint=f"tables are {', '.join(TABLES)}")
        self.table = table
        self._folder = directory / table
        self._folder.mkdir(parents=True, exist_ok=True)
        self._seal_at = seal_at_bytes
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._written = 0
        self._path = Path()
        self._sealing: threading.Thread | None = None

    def append(self, rows: Iterable[Row]) -> int:
        """Write ``rows`` in one piece and return how many; they are acknowledged once this returns."""
        lines = [orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY) for row in rows]
        if lines:
            self.append_lines(b"".join(lines))
        return len(lines)

    def append_lines(self, lines: bytes) -> None:
        """Write whole JSON lines that are already encoded, in one piece."""
        with self._lock:
            fd = self._open()
            done = 0
            while done < len(lines):  # a short write happens only when the disk is full or a signal came
                done += os.write(fd, lines[done:] if done else lines)
            self._written += done
            if self._written >= self._seal_at:
                self._rotate()

    def close(self) -> None:
        """Seal what was written."""
        with self._lock:
            self._rotate()
            if self._sealing is not None:
                self._sealing.join()

    def _open(self) -> int:
        if self._fd is None:
            self._path = self._folder / f"{os.getpid()}-{secrets.token_hex(6)}.jsonl"
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._written = 0
        return self._fd

    def _rotate(self) -> None:
        """Seal the current file beside further writing, one file at a time."""
        if self._fd is None:
            return
        if self._sealing is not None:
            self._sealing.join()
        self._sealing = threading.Thread(target=_seal_and_release, args=(self._path, self._fd), name="seal")
        self._sealing.start()
        self._fd = None


def _seal_and_release(journal: Path, fd: int) -> None:
    try:
        seal(journal)
    finally:
        os.close(fd)


class Writer:
    """Writes rows into the tables of one recording: ``writer.write("spans", rows)``."""

    def __init__(self, directory: Path, *, seal_at_bytes: int = SEAL_AT_BYTES) -> None:
        self.directory = directory
        self._seal_at = seal_at_bytes
        self._journals: dict[str, Journal] = {}
        self._lock = threading.Lock()

    def write(self, table: str, rows: Iterable[Row]) -> int:
        """Append ``rows`` to ``table`` and return how many; they survive a crash once this returns."""
        return self.journal(table).append(rows)

    def journal(self, table: str) -> Journal:
        """Return this writer's journal of ``table``."""
        journal = self._journals.get(table)
        if journal is None:
            with self._lock:
                journal = self._journals.setdefault(table, Journal(self.directory, table, seal_at_bytes=self._seal_at))
        return journal

    def close(self) -> None:
        """Seal every journal; the writer can be used again afterwards."""
        for journal in list(self._journals.values()):
            journal.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def live_rows(table: str, journals: list[Path]) -> str:
    """Return the SQL that reads unsealed journals; a torn line becomes a row without a time and is left out."""
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in TABLES[table].types.items())
    files = ", ".join("'" + str(path).replace("'", "''") + "'" for path in journals)
    return (
        f"SELECT * FROM read_json([{files}], format = 'newline_delimited', columns = {{{columns}}}, "
        f"ignore_errors = true, maximum_object_size = {64 * 2**20})"
    )


def seal(journal: Path) -> int:
    """Turn a journal into Parquet beside it and return how many torn lines were skipped.

    Torn lines are kept next to the Parquet as ``NAME.torn`` (their number, nothing else), so that they are counted.
    """
    import duckdb  # slow to import, and most writers never seal

    table = journal.parent.name
    parquet, partial = journal.with_suffix(".parquet"), journal.with_suffix(".partial")
    time = TABLES[table].time
    with duckdb.connect() as connection:
        connection.execute("SET preserve_insertion_order = true; SET threads = 2")
        connection.execute(f"CREATE TEMP VIEW live AS {live_rows(table, [journal])}")
        (torn,) = connection.execute(f"SELECT count(*) FROM live WHERE {time} IS NULL").fetchone() or (0,)
        target = str(partial).replace("'", "''")
        connection.execute(
            f"COPY (SELECT * FROM live WHERE {time} IS NOT NULL) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
        )
    if torn:
        journal.with_suffix(".torn").write_text(str(torn))
    partial.rename(parquet)
    journal.unlink()
    return int(torn)


def abandoned(journal: Path) -> bool:
    """Tell whether the writer of ``journal`` is gone."""
    try:
        fd = os.open(journal, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
