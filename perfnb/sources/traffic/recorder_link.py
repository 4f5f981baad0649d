"""The pass-through's end of the recorder: hands exchanges over without ever waiting, and restarts a recorder that died.

What can't be handed over (the recorder is dead, or does not keep up and the backlog is full) is dropped and counted,
and the timeline says so as soon as a recorder works again. The traffic goes on whatever happens here.
"""

import asyncio
import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from perfnb.errors import PerfnbError
from perfnb.recording.recording import Recording
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.recorder import EVENT, EXCHANGE, HEADER, source_event

BACKLOG_BYTES = 64 * 2**20
FLUSH_AFTER_S = 0.02
"""Exchanges wait this long to be handed over together: one wake-up of the recorder for many."""
FIRST_RESTART_S = 0.2
LONGEST_RESTART_S = 10.0
DRAIN_S = 7.0
PIPE_BYTES = 2**20
"""What Linux gives an ordinary user at most; the usual 64 kB would cost a wake-up of both sides for a dozen exchanges."""


class RecorderLink:
    """A recorder process and the way to it; ``arguments`` are those of :mod:`perfnb.sources.traffic.recorder`."""

    def __init__(self, arguments: Sequence[str], *, name: str, backlog_bytes: int = BACKLOG_BYTES) -> None:
        self.dropped = 0
        self.restarts = 0
        self._arguments = arguments
        self._name = name
        self._backlog = backlog_bytes
        self._seen = 0
        self._sent = 0
        self._untold = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._process: asyncio.subprocess.Process | None = None
        self._pipe: asyncio.WriteTransport | None = None
        self._told: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._flush_handle: asyncio.TimerHandle | None = None
        self._is_closing = False

    @property
    def counters(self) -> dict[str, int]:
        """Return exchanges seen, rows written, ``dropped``, ``errors`` and recorder restarts."""
        told = {key: self._before.get(key, 0) + self._told.get(key, 0) for key in ("rows", "unread", "unwritten")}
        return {
            "exchanges": self._seen,
            "rows": told["rows"],
            "dropped": self.dropped,
            "errors": told["unread"] + told["unwritten"],
            "recorder_restarts": self.restarts,
        }

    @property
    def pid(self) -> int | None:
        """Return the recorder's process id; None while there is none."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start a recorder; where that fails it is tried again later."""
        await self._spawn()
        self._watcher = asyncio.create_task(self._keep_running())

    def send(self, exchange: Exchange) -> None:
        """Hand over ``exchange``, or drop and count it; never waits, never raises."""
        self._seen += 1
        pipe = self._open_pipe()
        if pipe is None or self._waiting_bytes + pipe.get_write_buffer_size() > self._backlog:
            self._drop(1)
            return
        try:
            self._put(EXCHANGE, exchange.encoded())
        except Exception as error:  # whatever is wrong with it: traffic goes on
            self._drop(1)
            print(f"perfnb: an exchange could not be handed over: {type(error).__name__}", file=sys.stderr)
            return
        self._sent += 1
        if self._untold:
            self._tell(f"{self._not_recorded()}: the recorder did not keep up")

    async def close(self) -> None:
        """Hand over what is left and wait, some seconds at most, until it is written."""
        self._is_closing = True
        self._flush()
        process = self._process
        if self._pipe is not None:
            self._pipe.close()  # after what is still in its buffer
        if process is None:  # between two tries to start one
            self._watcher.cancel()
        await asyncio.wait([self._watcher], timeout=DRAIN_S)
        if not self._watcher.done():
            self._watcher.cancel()
            self._drop(self._sent - self._told.get("done", 0))
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        if self._untold:
            self._write_last_words()

    def _write_last_words(self) -> None:
        """Say what was lost without a recorder, which is gone."""
        event = self._event(self._not_recorded())
        with contextlib.suppress(OSError, PerfnbError):
            Recording.open(self._arguments[0]).writer().write("events", [event])

    def _open_pipe(self) -> asyncio.WriteTransport | None:
        return None if self._pipe is None or self._pipe.is_closing() else self._pipe

    def _drop(self, number: int) -> None:
        self.dropped += number
        self._untold += number

    def _not_recorded(self) -> str:
        return f"{self._untold} exchange{' was' if self._untold == 1 else 's were'} not recorded"

    def add_event(self, kind: str, title: str, body: Mapping[str, Any]) -> None:
        """Put one entry on the timeline; never waits."""
        row = {"time": time.time_ns(), "kind": kind, "title": title, "body": body}
        self._put(EVENT, orjson.dumps(row, default=str))

    def _tell(self, what: str) -> None:
        self._put(EVENT, orjson.dumps(self._event(what)))

    def _event(self, what: str) -> dict[str, Any]:
        dropped, self._untold = self._untold, 0
        return source_event(f"{self._name}: {what}", {"source": self._name, "dropped": dropped})

    def _put(self, kind: int, message: bytes) -> None:
        self._waiting += (HEADER.pack(kind, len(message)), message)
        self._waiting_bytes += len(message)
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        pipe = self._open_pipe()
        if pipe is not None and waiting:
            pipe.write(b"".join(waiting))

    async def _keep_running(self) -> None:
        pause = FIRST_RESTART_S
        while True:
            was_useful = await self._until_it_ends()
            if self._is_closing:
                return
            pause = FIRST_RESTART_S if was_useful else min(2 * pause, LONGEST_RESTART_S)
            await asyncio.sleep(pause)
            self.restarts += 1
            await self._spawn()
            self._tell(f"the recorder ended and was started again; {self._not_recorded()}")

    async def _spawn(self) -> None:
        self._sent, self._told = 0, {}
        command = [sys.executable, "-m", "perfnb.sources.traffic.recorder", *self._arguments]
        read_end, write_end = os.pipe()
        try:
            _widen(write_end)
            process = await asyncio.create_subprocess_exec(*command, stdin=read_end, stdout=asyncio.subprocess.PIPE)
            pipe = os.fdopen(write_end, "wb", 0)
            self._pipe, _ = await asyncio.get_running_loop().connect_write_pipe(asyncio.BaseProtocol, pipe)
            self._process = process
        except OSError as error:
            os.close(write_end)
            print(f"perfnb: no recorder could be started: {error}", file=sys.stderr)
        finally:
            os.close(read_end)

    async def _until_it_ends(self) -> bool:
        """Follow what the recorder tells until it ends; tell whether it wrote anything."""
        process = self._process
        if process is None or process.stdout is None:
            return False
        async for line in process.stdout:
            self._told = orjson.loads(line)
        await process.wait()
        self._process = None
        if (pipe := self._open_pipe()) is not None:
            pipe.abort()
        self._waiting, self._waiting_bytes = [], 0
        self._drop(self._sent - self._told.get("done", 0))
        for key, number in self._told.items():
            self._before[key] = self._before.get(key, 0) + number
        was_useful, self._told = self._told.get("rows", 0) > 0, {}
        return was_useful


def _widen(pipe: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
