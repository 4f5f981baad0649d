"""The process that sends the load: ``python -m perfnb.load.worker``.

Its first line of input names the recording and the requests; each further one is a block to send or the order to halt.
It stays alive between blocks, so that the next one starts at once. Answers are kept as raw bytes with their times and
read after the block's last request has ended; then the rows are written, and then the block is told.

Source: research on clients: aiohttp with uvloop and bytes parsed afterwards stays within a millisecond of the truth at
200 streams; lateness is measured against a schedule fixed beforehand (coordinated omission, G. Tene)
"""

import asyncio
import contextlib
import gc
import os
import secrets
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from perfnb.load.block import Block, BlockReport, Entry, Progress
from perfnb.load.health import Health
from perfnb.prompts.digest import Digester
from perfnb.recording.journal import Row
from perfnb.recording.recording import Recording
from perfnb.sources.traffic.client import client, opened, send
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.http_traffic import request_row
from perfnb.sources.worker import REPORT_EVERY_S, serve
from perfnb.target import Request

MOST_OPEN = 2000
"""Requests open at once; beyond it one is not sent, which voids the block."""
CAPTURE_BYTES = 2 * 2**20
CAPTURED_IN_ALL_BYTES = 256 * 2**20
LAG_EVERY_S = 0.01
CONTROL_EVERY_S = 0.25
LEAD_S = 0.02
"""Time to get going before the first request is due."""

Report = Callable[[dict[str, Any]], None]
Captured = list[tuple[Exchange, Entry]]


class Run:
    """A block being sent; times are readings of ``time.perf_counter()``."""

    def __init__(self, block: Block, requests: list[Request], control: Request | None) -> None:
        self.captured: Captured = []
        self.late_ms: list[float] = []
        self.lag_ms: list[float] = []
        self.unsent = 0
        self.ended = 0
        self.failed = 0
        self.is_complete = False
        self._block = block
        self._requests = requests
        self._control = control
        self._open: set[asyncio.Task[None]] = set()
        self._capture_bytes = min(CAPTURE_BYTES, CAPTURED_IN_ALL_BYTES // max(1, len(block.entries)))

    @property
    def progress(self) -> Progress:
        """Return how far it is."""
        return Progress(self._block.number, len(self.late_ms), self.ended, self.failed)

    async def send(self, session: aiohttp.ClientSession, control_session: aiohttp.ClientSession) -> None:
        """Send every request at its time and wait for all to end; being cancelled ends them at once."""
        started_ns, started = time.time_ns() + round(LEAD_S * 1e9), time.perf_counter() + LEAD_S
        beside = [asyncio.create_task(self._watch_lag())]
        if self._control is not None:
            beside.append(asyncio.create_task(self._ask_control(control_session, self._control)))
        try:
            for entry in self._block.entries:
                await _until(started + entry.at_s)
                self._start(session, entry, started_ns + round(entry.at_s * 1e9), started + entry.at_s)
            while self._open:
                await asyncio.wait(self._open)
            self.is_complete = True
        finally:
            for task in (*self._open, *beside):
                task.cancel()
            await asyncio.gather(*self._open, *beside, return_exceptions=True)

    def _start(self, session: aiohttp.ClientSession, entry: Entry, started_ns: int, started: float) -> None:
        if len(self._open) >= MOST_OPEN:
            self.unsent += 1
            return
        task = asyncio.create_task(self._send(session, entry, started_ns, started))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _send(self, session: aiohttp.ClientSession, entry: Entry, started_ns: int, started: float) -> None:
        self.late_ms.append((time.perf_counter() - started) * 1e3)
        await self._exchange(session, self._requests[entry.index], entry, started_ns, started)

    async def _exchange(
        self, session: aiohttp.ClientSession, request: Request, entry: Entry, started_ns: int, started: float
    ) -> None:
        exchange = opened(request, started_ns, started)
        parent = f"00-{entry.trace_id}-{secrets.token_hex(8)}-01"
        try:
            await send(session, request, exchange, self._capture_bytes, traceparent=parent)
        finally:
            self.captured.append((exchange, entry))
            if entry.phase != "control" and exchange.end != "unfinished":
                self.ended += 1
                self.failed += has_failed(exchange)

    async def _watch_lag(self) -> None:
        """Note how much later than asked the event loop wakes up."""
        while True:
            due = time.perf_counter() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self.lag_ms.append(max(0.0, (time.perf_counter() - due) * 1e3))

    async def _ask_control(self, session: aiohttp.ClientSession, request: Request) -> None:
        """Send the control request four times a second, one at a time, until cancelled."""
        arms = [entry.arm for entry in self._block.entries if entry.phase == "measure"]
        arm = arms[0] if arms else None
        while True:
            start = time.perf_counter()
            entry = Entry(0.0, 0, "control", secrets.token_hex(16), arm)
            await self._exchange(session, request, entry, time.time_ns(), start)
            await _until(start + CONTROL_EVERY_S)


def has_failed(exchange: Exchange) -> bool:
    """Tell whether no usable answer came: no answer, one that broke off, a 429 or 5xx."""
    return exchange.end != "complete" or exchange.status is None or exchange.status >= 500 or exchange.status == 429


async def _until(due: float) -> None:
    """Sleep to a moment, not for a time, so that lateness does not add up; lets others run in any case."""
    await asyncio.sleep(0)
    while (left := due - time.perf_counter()) > 0:
        await asyncio.sleep(left)


class Worker:
    """Takes orders, sends blocks, writes rows."""

    def __init__(self) -> None:
        self._blocks: asyncio.Queue[Block] = asyncio.Queue()
        self._sending: asyncio.Task[None] | None = None

    def hear(self, order: dict[str, Any]) -> None:
        """Take an order: ``{"block": …}`` is queued, ``{"halt": true}`` ends what is under way."""
        if "block" in order:
            self._blocks.put_nowait(Block.from_order(order["block"]))
        elif self._sending is not None:
            self._sending.cancel()

    async def run(self, settings: Mapping[str, Any], report: Report, stop: asyncio.Event) -> None:
        """Send the blocks that are ordered until ``stop``."""
        requests = [Request(**request) for request in settings["requests"]]
        control = Request(**settings["control"]) if settings.get("control") else None
        recording = Recording.open(Path(settings["recording"]))
        with recording.writer() as writer:
            digester = Digester(recording.key, recording.content)
            async with client() as session, client() as control_session:
                report({"ready": {"pid": os.getpid()}, "counters": {"blocks": 0, "rows": 0, "errors": 0}})
                stopping = asyncio.ensure_future(stop.wait())
                while (block := await self._next(stopping)) is not None:
                    run = Run(block, requests, control)
                    begun = time.time_ns()
                    busy = await self._send(run, session, control_session, report, stopping)
                    rows = (as_row(exchange, entry, block.number, digester) for exchange, entry in run.captured)
                    report({"block": _told(run, block, begun, busy, writer.write("http_requests", rows)).as_dict()})

    async def _next(self, stopping: asyncio.Future[Any]) -> Block | None:
        waiting = asyncio.ensure_future(self._blocks.get())
        await asyncio.wait([waiting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            waiting.cancel()
            return None
        return waiting.result()

    async def _send(
        self,
        run: Run,
        session: aiohttp.ClientSession,
        control_session: aiohttp.ClientSession,
        report: Report,
        stopping: asyncio.Future[Any],
    ) -> float:
        """Send a block, telling how far it is; returns the share of one processor this took."""
        gc.collect()
        gc.disable()  # a collection would stand in some request's time
        wall, processor = time.perf_counter(), time.process_time()
        self._sending = sending = asyncio.create_task(run.send(session, control_session))
        while not sending.done():
            await asyncio.wait([sending, stopping], timeout=REPORT_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            report({"progress": vars(run.progress)})
            if stopping.done():
                sending.cancel()
                await asyncio.wait([sending])
        self._sending = None
        gc.enable()
        with contextlib.suppress(asyncio.CancelledError):
            sending.result()
        return (time.process_time() - processor) / max(1e-9, time.perf_counter() - wall)


def as_row(exchange: Exchange, entry: Entry, number: int, digester: Digester) -> Row:
    """Return the request as a row of ``http_requests``; its times count from when it was meant to be sent."""
    row = request_row(Exchange.decoded(exchange.encoded()), digester, "load", phase=entry.phase)
    return {**row, "arm": entry.arm, "block": number}


def _told(run: Run, block: Block, begun: int, busy: float, rows: int) -> BlockReport:
    progress = run.progress
    return BlockReport(
        number=block.number,
        sent=progress.sent,
        ended=progress.ended,
        failed=progress.failed,
        rows=rows,
        started_ns=begun,
        ended_ns=time.time_ns(),
        median_ms=_median_ms(run.captured),
        is_complete=run.is_complete,
        health=Health.of(run.late_ms, run.lag_ms, busy=busy, unsent=run.unsent),
    )


def _median_ms(captured: Iterable[tuple[Exchange, Entry]]) -> float | None:
    times = [
        (exchange.ended - exchange.started) * 1e3
        for exchange, entry in captured
        if entry.phase == "measure" and exchange.ended is not None and not has_failed(exchange)
    ]
    return statistics.median(times) if times else None


if __name__ == "__main__":
    worker = Worker()
    serve(worker.run, worker.hear)
