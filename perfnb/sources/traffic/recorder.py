"""The recorder: a process that reads captured exchanges from its standard input and writes rows into the recording.

Run as ``python -m perfnb.sources.traffic.recorder RECORDING llm|http SOURCE …``. Messages are a kind, a length and that many
bytes. On its standard output it tells from time to time how many exchanges it has dealt with. It ends when its input
ends, after the last message: a pass-through that was killed loses nothing it handed over. It runs at a lower priority
than the traffic.
"""

import contextlib
import os
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from perfnb.errors import PerfnbError
from perfnb.prompts.digest import Digester
from perfnb.recording.journal import Row, Writer
from perfnb.recording.manifest import MANIFEST
from perfnb.recording.recording import Recording
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.http_traffic import request_row, timing
from perfnb.sources.traffic.llm_traffic import bare_row, call_row

EXCHANGE, EVENT = 0, 1
HEADER = struct.Struct("<BI")
READ_BYTES = 2**20
REPORT_EVERY_S = 0.25
NICENESS = 10
"""Next to a process at 0 it gets a tenth of a core: still some hundred exchanges a second."""

GROUP = 16
REST = 3
"""How long it rests for each second of work while it is not behind: a burst of traffic keeps three quarters of a core."""
HURRY_AT_BYTES = 16 * 2**20
FULL_AT_BYTES = 32 * 2**20

Messages = list[tuple[int, memoryview]]
ToRow = Callable[[Exchange, bool], tuple[str, Row]]
"""Makes a row and says of which table; with True a bare one, of times alone."""


class Recorder:
    """Writes rows; what can't be written is counted, told on the timeline once writing works again, and forgotten."""

    def __init__(self, path: Path, to_row: ToRow) -> None:
        self.counters = {"done": 0, "rows": 0, "unread": 0, "unwritten": 0}
        self._path = path
        self._to_row = to_row
        self._writer = Writer(path)
        self._untold = 0
        self._reason = ""

    def take(self, messages: Messages) -> None:
        """Write the rows of ``messages``, one write a table."""
        rows: dict[str, list[Row]] = {}
        for kind, message in messages:
            if kind == EVENT:
                rows.setdefault("events", []).append(orjson.loads(message))
            else:
                table, row = self._row(Exchange.decoded(message))
                rows.setdefault(table, []).append(row)
                self.counters["done"] += 1
        for table, batch in rows.items():
            self._write(table, batch)

    def close(self) -> None:
        """Seal what was written."""
        with contextlib.suppress(OSError, PerfnbError):
            if (self._path / MANIFEST).exists():
                self._writer.close()

    def _row(self, exchange: Exchange) -> tuple[str, Row]:
        try:
            return self._to_row(exchange, False)
        except Exception as error:  # a body no one thought of must not cost the row
            self.counters["unread"] += 1
            print(f"perfnb: an exchange could not be read: {type(error).__name__}", file=sys.stderr)
            return self._to_row(exchange, True)

    def _write(self, table: str, rows: list[Row]) -> None:
        try:
            if not (self._path / MANIFEST).exists():  # else rows would go into a file that was deleted
                raise FileNotFoundError(f"{self._path} is gone")
            self._writer.write(table, rows)
        except (OSError, PerfnbError) as error:
            self.counters["unwritten"] += len(rows)
            self._untold += len(rows)
            self._reason = str(error)
            self._writer = Writer(self._path)
            return
        if table == "events":
            return
        self.counters["rows"] += len(rows)
        if self._untold:
            lost, self._untold = self._untold, 0
            self._write("events", [source_event(f"{lost} rows could not be written: {self._reason}", {"lost": lost})])


def source_event(title: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the timeline about a source."""
    return {"time": time.time_ns(), "kind": "source", "title": title, "body": dict(body)}


def to_row(kind: str, source: str, digester: Digester) -> ToRow:
    """Return the function that makes rows: ``llm`` (``source`` is the provider) or ``http`` (``source`` as in the table)."""
    if kind == "llm":
        return lambda exchange, is_bare: (
            "llm_calls", bare_row(exchange, source) if is_bare else call_row(exchange, digester, source)
        )  # fmt: skip
    return lambda exchange, is_bare: (
        "http_requests", timing(exchange, source) if is_bare else request_row(exchange, digester, source)
    )  # fmt: skip


def batches(fd: int, *, read: Callable[[int, int], bytes] = os.read) -> Iterator[Messages]:
    """Yield the whole messages in what each read gave; half a message at the end of input is left out."""
    parts: list[bytes] = []
    have, need = 0, HEADER.size
    while data := read(fd, READ_BYTES):
        parts.append(data)
        have += len(data)
        if have < need:  # joining a long message once, not at every read
            continue
        view, at, messages = memoryview(b"".join(parts)), 0, []
        need = HEADER.size
        while have - at >= HEADER.size:
            kind, length = HEADER.unpack_from(view, at)
            need = HEADER.size + length
            if have - at < need:
                break
            messages.append((kind, view[at + HEADER.size : at + need]))
            at, need = at + need, HEADER.size
        parts, have = [bytes(view[at:])], have - at
        if messages:
            yield messages


class Inbox:
    """Reads messages in a thread, so that the recorder can take its time while the traffic is busy."""

    def __init__(self, incoming: Iterable[Messages]) -> None:
        self.has_ended = False
        self._came = 0  # changed by the thread alone
        self._taken = 0
        self._groups: queue.SimpleQueue[Messages] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(incoming,), name="inbox", daemon=True).start()

    @property
    def is_pressing(self) -> bool:
        """Tell whether it is time to hurry: much is waiting, or nothing more will come."""
        return self.has_ended or self._came - self._taken > HURRY_AT_BYTES

    @property
    def is_empty(self) -> bool:
        """Tell whether all that came was taken."""
        return self._groups.empty()

    def __iter__(self) -> Iterator[Messages]:
        while messages := self._groups.get():
            self._taken += sum(len(message) for _, message in messages)
            yield messages

    def _read(self, incoming: Iterable[Messages]) -> None:
        for messages in incoming:
            for start in range(0, len(messages), GROUP):
                group = messages[start : start + GROUP]
                self._came += sum(len(message) for _, message in group)
                self._groups.put(group)
            while (
                self._came - self._taken > FULL_AT_BYTES
            ):  # now the pipe fills, and then the pass-through's own backlog
                time.sleep(0.05)
        self.has_ended = True
        self._groups.put([])


def main(path: str, kind: str, source: str) -> None:
    """Record until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who started this; then the input ends
    recording = Recording.open(path)
    recorder = Recorder(Path(path), to_row(kind, source, Digester(recording.key, recording.content)))
    os.nice(NICENESS)
    inbox = Inbox(batches(0))
    reported = 0.0
    for messages in inbox:
        start = time.monotonic()
        recorder.take(messages)
        now = time.monotonic()
        if inbox.is_empty or now - reported > REPORT_EVERY_S:
            reported = now
            _report(recorder)
        if not inbox.is_pressing:
            time.sleep(REST * (now - start))
    recorder.close()
    _report(recorder)


def _report(recorder: Recorder) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, orjson.dumps(recorder.counters, option=orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except PerfnbError as error:
        sys.exit(f"perfnb: {error}")
