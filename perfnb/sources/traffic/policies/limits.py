"""Make calls wait: so many under way, so many started in a window of time.

Source: B17 (100 per 60 s), B18, R46
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from perfnb.sources.traffic.policies.settings import Concurrency, RateLimit


class Window:
    """Starts at most so many calls in any window of time, first come, first served."""

    def __init__(self, settings: RateLimit, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._started: deque[float] = deque()
        self._turn = asyncio.Lock()

    async def wait(self) -> None:
        """Return once another call may start."""
        async with self._turn:
            while (wait_s := self._wait_s()) > 0:
                await asyncio.sleep(wait_s)
            self._started.append(self._clock())

    def _wait_s(self) -> float:
        if len(self._started) < self._settings.requests:
            return 0.0
        left_s = self._started[0] + self._settings.per_s - self._clock()
        if left_s <= 0:
            self._started.popleft()
        return max(0.0, left_s)


class Limits:
    """The waiting of one policy."""

    def __init__(self, concurrency: Concurrency | None, rate: RateLimit | None) -> None:
        self._places = asyncio.Semaphore(concurrency.limit) if concurrency else None
        self._window = Window(rate) if rate else None

    @asynccontextmanager
    async def place(self, waited: Callable[[float], None]) -> AsyncIterator[None]:
        """Hold a place for one call; ``waited`` is told for how many milliseconds it had to wait."""
        if self._places is None and self._window is None:
            yield
            return
        start = time.perf_counter()
        async with AsyncExitStack() as stack:
            if self._places is not None:
                await stack.enter_async_context(self._places)
            if self._window is not None:
                await self._window.wait()
            waited((time.perf_counter() - start) * 1e3)
            yield
