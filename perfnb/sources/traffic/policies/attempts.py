"""Ask the provider with a deadline, again after a passing failure, or twice at once: each attempt is recorded.

Source: C51, C52, E28, X46 (an overall deadline), X47 (layers of retries multiply: the client is told not to add its own);
J. Dean, L. A. Barroso, "The Tail at Scale" (hedged requests)
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.llm_answer import event_says_something
from perfnb.sources.traffic.llm_traffic import retry_after_ms
from perfnb.sources.traffic.passthrough import UPSTREAM_ERRORS, PassThrough, unreachable
from perfnb.sources.traffic.policies.settings import Hedge, Retry, Timeout
from perfnb.sources.traffic.sse import DONE, events
from perfnb.sources.traffic.verbatim import connect_ms

PASSING = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""Statuses that may be gone at the next try; a request that is wrong stays wrong."""
LONGEST_RETRY_AFTER_S = 60.0
_KEPT = ("Content-Type", "Content-Encoding", "Retry-After", "x-request-id")


@dataclass
class Attempt:
    """One way the request was sent: its exchange, and the answer's head with what was held back of its body."""

    exchange: Exchange
    upstream: aiohttp.ClientResponse | None = None
    held: list[bytes] = field(default_factory=list)
    error: Exception | None = None

    @property
    def may_pass(self) -> bool:
        """Tell whether another try may go better."""
        return self.upstream is None or self.upstream.status in PASSING

    def close(self) -> None:
        """End what is under way upstream."""
        if self.upstream is not None:
            self.upstream.close()


class Attempts:
    """The attempts at one request; leaving it gives the caller's exchange the attempt that counts."""

    def __init__(
        self,
        server: PassThrough,
        request: web.BaseRequest,
        exchange: Exchange,
        policy: Mapping[str, Any],
        *,
        body: bytes | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._server = server
        self._request = request
        self._exchange = exchange
        self._body = body
        self._headers = headers
        can_repeat = body is not None
        self._timeout: Timeout = policy.get("timeout") or Timeout()
        self._retry: Retry | None = policy.get("retry") if can_repeat else None
        self._hedge: Hedge | None = policy.get("hedge") if can_repeat else None
        self._open: list[Attempt] = []

    async def __aenter__(self) -> "Attempts":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open:  # the deadline passed or the caller left
            chosen, *others = self._open
            for other in others:
                self._give_up(other)
            self._choose(chosen)
            chosen.close()

    async def answer(self) -> web.StreamResponse:
        """Send the request as often as the policy says and pass an answer back."""
        attempt = await self._best()
        self._choose(attempt)
        changes = self._marks(attempt)
        if attempt.upstream is None:
            return self._failure(attempt.error or OSError("no answer"), changes)
        try:
            return await self._server.answer(self._request, attempt.upstream, self._exchange, attempt.held, changes)
        finally:
            attempt.close()

    async def whole(self) -> tuple[int, dict[str, str], bytes]:
        """Send the request and return status, type and the whole body of the answer."""
        attempt = await self._best()
        self._choose(attempt)
        if attempt.upstream is None:
            failure = self._failure(attempt.error or OSError("no answer"), self._marks(attempt))
            return failure.status, {"Content-Type": "application/json"}, bytes(failure.body)  # type: ignore[arg-type]
        try:
            rest = self._server.noted(await attempt.upstream.read(), self._exchange)
        except UPSTREAM_ERRORS as error:
            self._exchange.end, self._exchange.error = "broken", type(error).__name__
            raise ConnectionResetError from error
        finally:
            attempt.close()
        headers = {name: attempt.upstream.headers[name] for name in _KEPT if name in attempt.upstream.headers}
        return attempt.upstream.status, headers | self._marks(attempt), b"".join([*attempt.held, rest])

    def _choose(self, attempt: Attempt) -> None:
        """Make the caller's exchange this attempt's."""
        self._open.remove(attempt)
        self._server.forget(attempt.exchange)
        self._exchange.become(attempt.exchange)

    async def _best(self) -> Attempt:
        """Return the first attempt that went well, or the last."""
        number, last = 1, self._retry.attempts if self._retry else 1
        while True:
            attempt = await self._hedged(number)
            if number >= last or not attempt.may_pass:
                return attempt
            wait_s = self._wait_s(attempt, number)
            await self._read_to_its_end(attempt)
            await asyncio.sleep(wait_s)
            self._open.remove(attempt)
            self._server.end(attempt.exchange, attempt.exchange.end)
            number += 1

    async def _hedged(self, number: int) -> Attempt:
        if self._hedge is None:
            return await self._try(self._begin(number))
        tasks = [asyncio.ensure_future(self._try(self._begin(number)))]
        try:
            done, _ = await asyncio.wait(tasks, timeout=self._hedge.after_ms / 1e3)
            if not done:
                tasks.append(asyncio.ensure_future(self._try(self._begin(number, is_hedge=True))))
            chosen = await _first_good(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for other in [each for each in self._open if each is not chosen]:
            self._open.remove(other)
            self._give_up(other)
        return chosen

    def _begin(self, number: int, *, is_hedge: bool = False) -> Attempt:
        exchange = self._server.begin_attempt(self._exchange)
        if number == 1 and not is_hedge:  # what it waited before counts
            exchange.started, exchange.started_ns = self._exchange.started, self._exchange.started_ns
        exchange.notes |= ({"attempt": number} if self._retry else {}) | ({"hedge": True} if is_hedge else {})
        self._open.append(Attempt(exchange))
        return self._open[-1]

    async def _try(self, attempt: Attempt) -> Attempt:
        connect_ms.set(None)
        exchange = attempt.exchange
        try:
            async with asyncio.timeout(self._timeout.first_token_s):
                attempt.upstream = await self._server.ask(self._request, exchange, self._body, self._headers)
                if self._hedge or self._timeout.first_token_s:
                    await self._hear(attempt)
        except (TimeoutError, *UPSTREAM_ERRORS) as error:
            if isinstance(error, web.PayloadAccessError | web.RequestPayloadError):
                raise ConnectionResetError from error
            attempt.close()
            attempt.upstream, attempt.error = None, error
            is_late = isinstance(error, TimeoutError)
            exchange.end = "timeout" if is_late else "broken" if exchange.answered else "unreachable"
            exchange.error = "" if is_late else type(error).__name__
            exchange.ended = time.perf_counter()
        return attempt

    async def _hear(self, attempt: Attempt) -> None:
        """Hold the answer back until it says something."""
        assert attempt.upstream is not None
        content, headers = attempt.upstream.content, attempt.upstream.headers
        is_stream = (
            headers.get("Content-Type", "").startswith("text/event-stream") and "Content-Encoding" not in headers
        )
        while not content.at_eof() and (data := await content.readany()):
            attempt.held.append(self._server.noted(data, attempt.exchange))
            if not is_stream or _says_something(b"".join(attempt.held)):
                return

    async def _read_to_its_end(self, attempt: Attempt) -> None:
        """Read a failure's body, so that the recording tells its cause and the connection can be used again."""
        if attempt.upstream is None:
            return
        with contextlib.suppress(TimeoutError, *UPSTREAM_ERRORS):
            async with asyncio.timeout(2):
                self._server.noted(await attempt.upstream.read(), attempt.exchange)
        attempt.close()

    def _wait_s(self, attempt: Attempt, number: int) -> float:
        assert self._retry is not None
        asked_ms = retry_after_ms(attempt.exchange.response_headers, now=time.time())
        if asked_ms is not None:
            return min(asked_ms / 1e3, LONGEST_RETRY_AFTER_S)
        return float(self._retry.base_s * min(2**number, 10))

    def _give_up(self, attempt: Attempt) -> None:
        attempt.close()
        if attempt.error is None and not (attempt.exchange.status or 0) >= 400:
            attempt.exchange.end = "superseded"
        self._server.end(attempt.exchange, attempt.exchange.end)

    def _marks(self, attempt: Attempt) -> dict[str, str]:
        return {"x-should-retry": "false"} if self._retry and attempt.may_pass else {}

    def _failure(self, error: Exception, headers: Mapping[str, str]) -> web.Response:
        is_late = isinstance(error, TimeoutError)
        answer = too_late(f"said nothing for {self._timeout.first_token_s} s") if is_late else None
        answer = answer or unreachable(self._server.upstream, error)
        answer.headers.update(headers)
        return answer


def too_late(what: str) -> web.Response:
    """Return the answer a caller gets when the proxy's own deadline has passed."""
    error = {"message": f"the model {what} (a limit set in the proxy)", "type": "timeout"}
    return web.json_response({"error": error}, status=504)


async def _first_good(tasks: "Sequence[asyncio.Future[Attempt]]") -> Attempt:
    """Return the first attempt that went well, or the last to fail."""
    for coming in asyncio.as_completed(tasks):
        attempt = await coming
        if not attempt.may_pass:
            break
    return attempt


def _says_something(data: bytes) -> bool:
    for event in events([(0.0, data)]):
        if event.data == DONE or event.name == "error":
            return True
        with contextlib.suppress(ValueError):
            body = json.loads(event.data)
            if isinstance(body, dict) and ("error" in body or event_says_something(event, body)):
                return True
    return False
