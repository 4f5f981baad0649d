"""The simulated provider with its door watched: who came when, and how many were inside at once."""

import asyncio
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from aiohttp import web
from openai import AsyncOpenAI

from perfnb.demo.provider.bill import Call
from perfnb.demo.provider.conditions import Conditions
from perfnb.demo.provider.server import Provider

T = TypeVar("T")
PATIENCE_S = 20  # how long a caller is held at the door for others before the test has failed


@dataclass
class Visit:
    path: str
    body: dict[str, Any]
    arrived_s: float
    left_s: float = 0
    status: int = 0
    asked_wait_s: float = 0

    @property
    def question(self) -> str:
        return str(self.body["messages"][-1]["content"])


@dataclass
class WatchedProvider:
    """``hold``: nobody is let in before so many wait at the door, then they go in together."""

    provider: Provider
    hold: int = 1
    root: str = ""
    visits: list[Visit] = field(default_factory=list)
    inside: int = 0
    most_inside: int = 0

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"

    @property
    def booked(self) -> list[Call]:
        return list(self.provider.bill.calls)

    def calls(self, ending: str = "chat/completions") -> list[Visit]:
        return [visit for visit in self.visits if visit.path.endswith(ending)]

    def run(self, use: Callable[[AsyncOpenAI], Awaitable[T]], **options: Any) -> T:
        """Run ``use`` with a client of this provider that does not try again."""

        async def main() -> T:
            given = {"max_retries": 0, "timeout": 2 * PATIENCE_S} | options
            async with AsyncOpenAI(base_url=self.base_url, api_key="simulated", **given) as client:
                return await use(client)

        return asyncio.run(main())

    @cached_property
    def app(self) -> web.Application:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # routes given as plain functions
            app = self.provider.app()
        app.middlewares.insert(0, self.watch)
        return app

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        self.door = asyncio.Barrier(self.hold)
        runner = web.AppRunner(self.app, handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.root = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await stop.wait()
        await runner.cleanup()

    @web.middleware
    async def watch(self, request: web.Request, handler: Any) -> web.StreamResponse:
        visit = Visit(request.path, await request.json(), time.monotonic())
        self.visits.append(visit)
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await asyncio.wait_for(self.door.wait(), PATIENCE_S)
            response: web.StreamResponse = await handler(request)
            visit.status = response.status
            visit.asked_wait_s = float(response.headers.get("retry-after", 0))
            return response
        finally:
            self.inside -= 1
            visit.left_s = time.monotonic()


@contextmanager
def watched_provider(*, hold: int = 1, time_scale: float = 50, **conditions: Any) -> Iterator[WatchedProvider]:
    """Yield the provider, served from a thread of its own."""
    made = WatchedProvider(Provider(seed=7, time_scale=time_scale, conditions=Conditions.of(conditions)), hold)
    assert made.app
    started, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(made.serve(started, stop),))
    thread.start()
    try:
        assert started.wait(PATIENCE_S)
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
        loop.close()
