"""Append rows to a recording: one journal file per table and writer, sealed into Parquet.

A batch is one ``write`` to a file opened for append, done before anything is acknowledged: what was acknowledged is in
the kernel's page cache and survives a kill -9 of the writer (not a power cut). A writer holds a lock on its file, so a
journal whose lock is free belongs to a writer that is gone and may be sealed by anyone (see :mod:`perfnb.recording.seal`).
"""

import contextlib
import fcntl
import logging
import os
import secrets
import threading
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from perfnb.errors import NotWritable, WrongUse
from perfnb.recording.encode import encoded
from perfnb.recording.schema import TABLES
from perfnb.recording.seal import seal

Row = Mapping[str, Any]

SEAL_AT_BYTES = 64 * 2**20  # a live journal is parsed anew by every query: about 0.15 s at this size on two cores

log = logging.getLogger(__name__)


class Journal:
    """The journal of one table and one writer; safe to use from several threads and after a fork."""

    def __init__(self, directory: Path, table: str, *, seal_at_bytes: int = SEAL_AT_BYTES) -> None:
        if table not in TABLES:
            raise WrongUse(f"no table named {table!r}", hint=f"tables are {', '.join(TABLES)}")
        self.table = table
        self._folder = directory / table
        self._seal_at = seal_at_bytes
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._written = 0
        self._path = Path()
        self._sealing: threading.Thread | None = None
        self._sealing_fd: int | None = None
        _journals.add(self)

    def append(self, rows: Iterable[Row]) -> int:
        """Write ``rows`` in one piece and return how many; they are acknowledged once this returns.

        What JSON can't hold (huge integers, half characters, objects) is kept as text, NaN becomes null. Raises
        NotWritable, and writes nothing of the batch, when the disk is full or the folder may not be written.
        """
        lines = encoded(rows)
        if lines:
            self.append_lines(b"".join(lines))
        return len(lines)

    def append_lines(self, lines: bytes) -> None:
        """Write whole JSON lines that are already encoded, in one piece."""
        with self._lock:
            try:
                self._write(self._open(), lines)
            except OSError as error:
                raise NotWritable.because(error, self._folder) from error
            if self._written >= self._seal_at:
                self._rotate()

    def close(self) -> None:
        """Seal what was written; the journal can be used again afterwards."""
        with self._lock:
            self._rotate()
            if self._sealing is not None:
                self._sealing.join()

    def _open(self) -> int:
        while self._fd is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path = self._folder / f"{os.getpid()}-{secrets.token_hex(6)}.jsonl"
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                self._fd, self._written = fd, 0
            else:  # someone took the still unlocked, empty file for an abandoned one and removed it
                os.close(fd)
        return self._fd

    def _write(self, fd: int, lines: bytes) -> None:
        done = 0
        try:
            while done < len(lines):  # a short write happens only when the disk is full or a signal came
                done += os.write(fd, lines[done:] if done else lines)
        except OSError:
            if done:  # half a batch must not stand before the next one
                self._take_back(fd)
            raise
        self._written += done

    def _take_back(self, fd: int) -> None:
        try:
            os.ftruncate(fd, self._written)
        except OSError:  # leave the file with its torn end to whoever seals it, and go on in another
            self._fd = None
            os.close(fd)

    def _rotate(self) -> None:
        """Seal the current file beside further writing, one file at a time."""
        if self._fd is None:
            return
        if self._sealing is not None:
            self._sealing.join()
        self._sealing_fd, self._fd = self._fd, None
        self._sealing = threading.Thread(target=self._seal, args=(self._path,), name="seal")
        self._sealing.start()

    def _seal(self, path: Path) -> None:
        try:
            seal(path)
        except Exception as error:  # the journal stays as it is: readable, and sealed by Recording.seal later
            log.warning("%s could not be sealed: %s", path, error)
        finally:
            self._sealing_fd, fd = None, self._sealing_fd
            if fd is not None:
                os.close(fd)

    def _after_fork(self) -> None:
        """Start anew in a forked child: the file and its lock stay the parent's."""
        for fd in (self._fd, self._sealing_fd):
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._lock = threading.Lock()
        self._fd = self._sealing = self._sealing_fd = None


class Writer:
    """Writes rows into the tables of one recording: ``writer.write("spans", rows)``."""

    def __init__(self, directory: Path, *, seal_at_bytes: int = SEAL_AT_BYTES) -> None:
        self.directory = directory
        self._seal_at = seal_at_bytes
        self._journals: dict[str, Journal] = {}

    def write(self, table: str, rows: Iterable[Row]) -> int:
        """Append ``rows`` to ``table`` and return how many; they survive a crash once this returns.

        Raises NotWritable when the disk is full or the folder may not be written.
        """
        return self.journal(table).append(rows)

    def journal(self, table: str) -> Journal:
        """Return this writer's journal of ``table``; raises WrongUse for a table there isn't."""
        journal = self._journals.get(table)
        if journal is None:  # setdefault is atomic: a second journal made by another thread is dropped unused
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


_journals: "weakref.WeakSet[Journal]" = weakref.WeakSet()


def _start_anew_in_child() -> None:
    for journal in list(_journals):
        journal._after_fork()


os.register_at_fork(after_in_child=_start_anew_in_child)
