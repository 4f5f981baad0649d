"""Run a source in a process of its own, so that it neither slows the notebook nor is slowed by it.

The child is ``python -m MODULE``. It reads one line of JSON settings from its standard input and from then on takes the
end of that input as the order to stop: when the parent dies, even by kill -9, the child goes too. On its standard
output it writes JSON lines: ``{"ready": {...}}`` once it serves, then ``{"counters": {...}}`` from time to time. A worker
that takes orders is given them as further JSON lines.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

from perfnb.errors import NotReachable, PerfnbError
from perfnb.sources.base import Readiness

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
REPORT_EVERY_S = 0.5


class WorkerSource:
    """A source that runs as ``python -m MODULE`` and writes into the recording by itself."""

    def __init__(self, name: str, module: str, recording: Path, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.ready: dict[str, Any] = {}
        self._module = module
        self._settings = {"recording": str(recording), **settings}
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._counters: dict[str, int] = {}
        self._started = threading.Event()
        self._error: dict[str, str] = {}

    def probe(self) -> Readiness:
        """Tell that it works: a worker needs nothing but Python unless its module says otherwise."""
        return Readiness(self.name, True, "")

    @property
    def counters(self) -> Mapping[str, int]:
        """Return the worker's latest counters."""
        return self._counters

    @property
    def is_alive(self) -> bool:
        """Tell whether the worker still runs."""
        return self._process is not None and self._process.poll() is None

    def order(self, message: Mapping[str, Any]) -> None:
        """Hand the worker ``message``; raises NotReachable where it is gone."""
        try:
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise NotReachable(f"{self.name} has ended", hint=self._error.get("hint", "see the lines above")) from None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops its workers in order
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._settings) + "\n")
        self._process.stdin.flush()
        self._listener = threading.Thread(target=self._listen, name=f"{self.name} reports", daemon=True)
        self._listener.start()
        if not self._started.wait(START_TIMEOUT_S) or self._error or not self.ready:
            self.__exit__()
            message = self._error.get("message", f"{self.name} did not start within {START_TIMEOUT_S:.0f} s")
            raise NotReachable(message, hint=self._error.get("hint", "see the lines above"))
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._listener is not None:
            self._listener.join(STOP_TIMEOUT_S)  # the last counters are in

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._hear(json.loads(line))
        self._started.set()  # it ended; __enter__ looks at what it said

    def _hear(self, report: Mapping[str, Any]) -> None:
        self._counters.update(report.get("counters", {}))
        if "ready" in report:
            self.ready = report["ready"]
            self._started.set()
        if "error" in report:
            self._error = report["error"]
            self._started.set()


def serve(
    main: Callable[[Mapping[str, Any], Callable[[dict[str, Any]], None], asyncio.Event], Awaitable[None]],
    hear: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Be a worker: run ``main(settings, report, stop)`` on uvloop until standard input ends.

    ``main`` calls ``report({"ready": {...}})`` once it serves and returns soon after ``stop`` is set. ``hear`` is called
    in the loop with each order.
    """
    import uvloop

    settings = json.loads(sys.stdin.readline())

    def report(message: dict[str, Any]) -> None:
        try:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the parent is gone; standard input will tell
            pass

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=_wait_for_end_of_input, args=(loop, stop, hear), daemon=True).start()
        await main(settings, report, stop)

    try:
        uvloop.run(run())
    except PerfnbError as error:
        report({"error": {"message": error.message, "hint": error.hint}})
        os._exit(2)


def _wait_for_end_of_input(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, hear: Callable[[dict[str, Any]], None] | None
) -> None:
    while line := sys.stdin.readline():
        if hear is not None:
            loop.call_soon_threadsafe(hear, json.loads(line))
    loop.call_soon_threadsafe(stop.set)
