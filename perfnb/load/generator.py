"""The caller's end of the load worker: hands it blocks, hears how they go, halts it at once when told to."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perfnb.errors import NotReachable
from perfnb.load.block import Block, BlockReport, Progress
from perfnb.load.workload import Workload
from perfnb.sources.worker import WorkerSource

HEAR_EVERY_S = 0.1
HALT_S = 10.0
WRITE_S = 60.0
"""How long after its last request's deadline a block may take to be read and written."""

Watch = Callable[[Progress], bool]
"""Is told how far a block is about twice a second; says whether to go on."""


class Generator(WorkerSource):
    """A load worker for ``workload``'s requests; entering starts the process, leaving ends it and whatever it sends."""

    def __init__(self, recording: Path, workload: Workload) -> None:
        self._longest_s = max(request.timeout_s for request in workload.requests)
        self._told: queue.SimpleQueue[Progress | BlockReport] = queue.SimpleQueue()
        control = workload.control
        settings: dict[str, Any] = {
            "requests": [vars(request) | {"headers": dict(request.headers)} for request in workload.requests],
            "control": None if control is None else vars(control) | {"headers": dict(control.headers)},
        }
        super().__init__("load", "perfnb.load.worker", recording, settings)

    def run(
        self,
        block: Block,
        *,
        stop: threading.Event | None = None,
        watch: Watch = lambda progress: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> BlockReport:
        """Send ``block`` and return what came of it; halts within a moment once ``stop`` is set or ``watch`` says so.

        Raises NotReachable where the worker died.
        """
        try:
            return self._run(block, stop, watch, clock)
        except BaseException:  # whoever waited is interrupted: nothing may go on being sent
            with contextlib.suppress(NotReachable):
                self.order({"halt": True})
            raise

    def _run(self, block: Block, stop: threading.Event | None, watch: Watch, clock: Callable[[], float]) -> BlockReport:
        self.order(block.as_order())
        deadline = clock() + block.seconds + self._longest_s + WRITE_S
        halted_at: float | None = None
        while True:
            heard = self._hear_next()
            if isinstance(heard, BlockReport) and heard.number == block.number:
                return heard
            wants_halt = (stop is not None and stop.is_set()) or clock() > deadline
            wants_halt = wants_halt or (isinstance(heard, Progress) and not watch(heard))
            if halted_at is None and wants_halt:
                self.order({"halt": True})
                halted_at = clock()
            if not self.is_alive or (halted_at is not None and clock() > halted_at + HALT_S):
                why = self._error.get("message", "the load worker ended or hangs")
                raise NotReachable(why, hint=self._error.get("hint", "see the lines above; run the trial again"))

    def _hear_next(self) -> Progress | BlockReport | None:
        try:
            return self._told.get(timeout=HEAR_EVERY_S)
        except queue.Empty:
            return None

    def _hear(self, report: Mapping[str, Any]) -> None:
        super()._hear(report)
        if "progress" in report:
            self._told.put(Progress(**report["progress"]))
        if "block" in report:
            self._told.put(BlockReport.from_dict(report["block"]))
