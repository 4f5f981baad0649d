"""The probe: sends requests one at a time to a quiet app, so that all that happens meanwhile belongs to that request.

While a request is under way a light one is sent beside it, on a connection of its own, again and again: an app whose
event loop is blocked answers it late.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from perfnb.errors import PerfnbError
from perfnb.prompts.digest import Digester
from perfnb.recording.journal import Row
from perfnb.recording.recording import Recording
from perfnb.sources.traffic.client import checked, client, opened, send
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.http_traffic import request_row
from perfnb.sources.worker import REPORT_EVERY_S, WorkerSource, serve
from perfnb.target import Request

LAG_EVERY_S = 0.25
LAG_AFTER_S = 0.02
"""How long the request has the app to itself, so that it is under way when the first light one arrives."""
LAG_TIMEOUT_S = 30.0
LAG_LEFT_S = 2.0
"""How long a light request may take after its request was answered."""
CAPTURE_BYTES = 8 * 2**20

Record = Callable[[Exchange, str], None]
"""Takes an exchange and its phase: warm-up, measure or lag."""


class Probe(WorkerSource):
    """Warms up with the first request to each path, then sends all ``repeat`` times to measure; in a process of its own.

    ``lag_url`` is the light request (the app's health check; ``/`` at the request's own origin where it is None), and
    ``lag=False`` leaves it out. It sends no request more than that, and stops at once when it is left.
    """

    def __init__(
        self,
        recording: Path,
        requests: Sequence[Request],
        *,
        repeat: int = 5,
        pause_s: float = 0.2,
        lag_url: str | None = None,
        lag: bool = True,
    ) -> None:
        for request in requests:
            checked(request.url)
        settings = {"requests": [vars(request) | {"headers": dict(request.headers)} for request in requests]}
        given = {"repeat": repeat, "pause_s": pause_s, "lag_url": lag_url, "lag": lag}
        super().__init__("probe", "perfnb.sources.probe", recording, settings | given)

    def wait(self, timeout_s: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> bool:
        """Wait until all requests were sent and answered; tell whether they were."""
        end = None if timeout_s is None else clock() + timeout_s
        while self.is_alive and not self.counters.get("finished"):
            if end is not None and clock() >= end:
                break
            time.sleep(0.05)
        return bool(self.counters.get("finished"))


async def send_all(
    requests: Sequence[Request],
    record: Record,
    stop: asyncio.Event,
    *,
    repeat: int,
    pause_s: float,
    lag_url: str | None = None,
    lag: bool = True,
) -> None:
    """Send the requests one at a time; errors are recorded, never raised. Returns soon after ``stop``."""
    first_of_path = {(request.method, URL(request.url).path): request for request in reversed(requests)}
    passes = [("warm-up", request) for request in requests if request in first_of_path.values()]
    passes += [("measure", request) for _ in range(repeat) for request in requests]
    async with client() as session, client() as light_session:
        for number, (phase, request) in enumerate(passes):
            if number:
                await _unless(stop, asyncio.sleep(pause_s))
            if stop.is_set():
                return
            light = Request(lag_url or f"{URL(request.url).origin()}/", method="GET", timeout_s=LAG_TIMEOUT_S)
            answered = asyncio.Event()
            beside = asyncio.ensure_future(_send_beside(light_session, light, record, answered) if lag else _nothing())
            await _unless(stop, _send(session, request, phase, record))
            answered.set()
            await _unless(stop, beside, timeout_s=LAG_LEFT_S)


async def _send(session: aiohttp.ClientSession, request: Request, phase: str, record: Record) -> None:
    """Send one request, read its answer to the end or to its deadline, and record it."""
    exchange = opened(request, time.time_ns(), time.perf_counter())
    try:
        await send(session, request, exchange, CAPTURE_BYTES)
    finally:
        record(exchange, phase)


async def _send_beside(session: aiohttp.ClientSession, light: Request, record: Record, answered: asyncio.Event) -> None:
    """Send the light request every 250 ms on one connection until ``answered``."""
    await _unless(answered, asyncio.sleep(LAG_AFTER_S))
    while not answered.is_set():
        start = time.perf_counter()
        await _send(session, light, "lag", record)
        await _unless(answered, asyncio.sleep(start + LAG_EVERY_S - time.perf_counter()))


async def _nothing() -> None:
    """Be the light request of a probe that sends none."""


async def _unless(
    stop: asyncio.Event, work: Coroutine[Any, Any, None] | asyncio.Future[None], timeout_s: float | None = None
) -> None:
    """Do ``work`` to its end, to ``stop`` or for ``timeout_s``, whichever comes first."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=timeout_s)
    finally:
        for task in tasks:
            task.cancel()
        done, _ = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(done, Exception):
        raise done


class _Rows:
    """Writes what was recorded between requests, not while one is being timed."""

    def __init__(self, path: Path) -> None:
        recording = Recording.open(path)
        self.counters = {"requests": 0, "lag_requests": 0, "rows": 0, "errors": 0, "dropped": 0, "finished": 0}
        self._writer = recording.writer()
        self._digester = Digester(recording.key, recording.content)
        self._waiting: list[tuple[Exchange, str]] = []

    def record(self, exchange: Exchange, phase: str) -> None:
        """Keep ``exchange``; one that is not a light request has ended, so it is time to write."""
        self.counters["lag_requests" if phase == "lag" else "requests"] += 1
        self._waiting.append((exchange, phase))
        if phase != "lag":
            self.write()

    def write(self) -> None:
        """Write what was kept."""
        waiting, self._waiting = self._waiting, []
        rows = [self._row(exchange, phase) for exchange, phase in waiting]
        try:
            self.counters["rows"] += self._writer.write("http_requests", rows)
        except PerfnbError:
            self.counters["errors"] += len(rows)

    def close(self) -> None:
        """Write the rest and seal it."""
        self.write()
        self._writer.close()

    def _row(self, exchange: Exchange, phase: str) -> Row:
        return request_row(Exchange.decoded(exchange.encoded()), self._digester, "probe", phase=phase)


async def run(settings: Mapping[str, Any], report: Callable[[dict[str, Any]], None], stop: asyncio.Event) -> None:
    """Send what the settings name, then wait for ``stop``."""
    rows = _Rows(Path(settings["recording"]))
    requests = [Request(**request) for request in settings["requests"]]
    report({"ready": {"pid": os.getpid()}, "counters": rows.counters})
    options = {name: settings[name] for name in ("repeat", "pause_s", "lag_url", "lag")}
    sending = asyncio.create_task(send_all(requests, rows.record, stop, **options))
    while not stop.is_set():
        await asyncio.wait([sending], timeout=REPORT_EVERY_S)
        if sending.done():
            break
        report({"counters": rows.counters})
    await sending
    rows.close()
    rows.counters["finished"] = 0 if stop.is_set() else 1
    report({"counters": rows.counters})
    await stop.wait()


if __name__ == "__main__":
    serve(run)
