"""Steps from log files that grow: JSON lines, read as they are written."""

import io
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from perfnb.sources.base import Emit, Readiness
from perfnb.sources.log_formats import BadLine, LogFormat, Row, detect, mapped_format, row_of
from perfnb.sources.threaded import Threaded

POLL_S = 0.2
SHOWN = 20
SAMPLE_LINES = 2_000
READ_BYTES = 4 * 2**20

Shown = tuple[str, int, str]
"""File, line number and reason of a bad line."""


class Logs(Threaded):
    """Follows log files and writes a span for every line that tells a step's name and duration.

    Lines that are there already are left out unless ``from_start``. A rotated file is read to its end before the new
    one is opened, a truncated one from its start, and a last line without its end waits for it. A file that isn't
    there yet is waited for. Counted are lines that were spans, other ones, bad and torn ones, and files that could not
    be read (errors).
    """

    name = "logs"
    stop_timeout_s = None  # what is left is read by whoever leaves, not by both

    def __init__(
        self,
        emit: Emit,
        paths: Iterable[Path],
        mapping: Mapping[str, Any] | None = None,
        *,
        from_start: bool = False,
        poll_s: float = POLL_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(emit)
        self._format = mapped_format(mapping)
        self._poll_s = poll_s
        self._clock = clock
        self.bad: list[Shown] = []
        self._tails = [_Tail(Path(path), from_start) for path in paths]

    def probe(self) -> Readiness:
        """Tell which of the files are there and readable."""
        missing = [str(tail.path) for tail in self._tails if not os.access(tail.path, os.R_OK)]
        found = f"{len(self._tails) - len(missing)} of {len(self._tails)} files"
        return Readiness(self.name, not missing, found, f"not readable yet: {', '.join(missing)}" if missing else "")

    def __enter__(self) -> Self:
        for tail in self._tails:
            tail.skip_what_is_there()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for tail in self._tails:
            self._read(tail, last=True)
            tail.close()

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            for tail in self._tails:
                self._read(tail)

    def _read(self, tail: "_Tail", *, last: bool = False) -> None:
        try:
            while lines := tail.lines():
                self._take(tail, lines)
            if last and (rest := tail.rest()):
                self._take(tail, [rest], is_torn=True)
        except OSError:
            self._counters["errors"] += 1

    def _take(self, tail: "_Tail", lines: list[bytes], *, is_torn: bool = False) -> None:
        tail.format = tail.format or self._format or detect(lines[:SAMPLE_LINES])
        rows: list[Row] = []
        for number, line in enumerate(lines, tail.line_number - len(lines) + 1):
            if not line.strip():
                continue
            try:
                row = row_of(tail.format or _ANY, line, self._clock())
            except BadLine as error:
                self._refuse(tail, number, error, is_torn)
                continue
            self._counters["spans" if row else "other"] += 1
            rows += [row] if row else []
        if rows:
            self._emit("spans", rows)

    def _refuse(self, tail: "_Tail", number: int, error: BadLine, is_torn: bool) -> None:
        self._counters["torn" if is_torn else "bad"] += 1
        if len(self.bad) < SHOWN:
            self.bad.append((str(tail.path), number, str(error)))


_ANY = LogFormat("none detected yet", name=())


class _Tail:
    """One file that is followed: what was read of it, and the line that isn't complete yet."""

    def __init__(self, path: Path, from_start: bool) -> None:
        self.path = path
        self.format: LogFormat | None = None
        self.line_number = 0
        self._from_start = from_start
        self._file: io.FileIO | None = None
        self._rest = b""

    def skip_what_is_there(self) -> None:
        """Start at the end of the file, counting the lines before; a file that comes later is read from its start."""
        with suppress(OSError):
            self._open()
            while not self._from_start and self._file and (chunk := self._file.read(READ_BYTES)):
                self.line_number += chunk.count(b"\n")
                self._rest = chunk.rpartition(b"\n")[2] if b"\n" in chunk else self._rest + chunk

    def lines(self) -> list[bytes]:
        """Return the next complete lines; none when there is nothing new."""
        chunk = self._chunk()
        *lines, self._rest = (self._rest + chunk).split(b"\n") if chunk else [self._rest]
        self.line_number += len(lines)
        return lines

    def rest(self) -> bytes:
        """Return the last line, which has no end, and count it."""
        rest, self._rest = self._rest, b""
        self.line_number += bool(rest)
        return rest

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _chunk(self) -> bytes:
        if self._file is None and not self._open():
            return b""
        assert self._file is not None
        chunk = self._file.read(READ_BYTES)
        if chunk:
            return chunk
        return self._after_the_end()

    def _after_the_end(self) -> bytes:
        """Look whether the file was truncated, or rotated away, and go on in what is there now."""
        assert self._file is not None
        held = os.fstat(self._file.fileno())
        if held.st_size < self._file.tell():
            self._restart()
            return self._file.read(READ_BYTES)
        try:
            named = self.path.stat()
        except FileNotFoundError:  # between the rename and the new file
            return b""
        if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino):
            return b""
        self.close()
        ending, self._rest = self._rest, b""
        self.line_number = -1 if ending else 0
        opened = self._open()
        fresh = self._file.read(READ_BYTES) if opened and self._file else b""
        return ending + b"\n" + fresh if ending else fresh

    def _restart(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        self._rest, self.line_number = b"", 0

    def _open(self) -> bool:
        try:
            self._file = self.path.open("rb", buffering=0)
        except FileNotFoundError:
            return False
        return True
