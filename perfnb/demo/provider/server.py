"""The provider's endpoints over HTTP: chat completions, completions, responses, embeddings, moderations, models.

``POST /_control`` sets :class:`~perfnb.demo.provider.conditions.Conditions`, ``GET /_bill`` returns the provider's own
books in tokens and dollars, and ``POST /rerank`` stands for a slow service in the same house: it scores passages against a question.
"""

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any
from weakref import WeakSet

from aiohttp import web

from perfnb.demo.provider import vectors
from perfnb.demo.provider.bill import Bill, Call, Usage
from perfnb.demo.provider.conditions import Conditions, is_hit, is_marked
from perfnb.demo.provider.dialects import Chat, Completion, Dialect, Event, Reply, Responses
from perfnb.demo.provider.latency import SPEEDS, Timing, token_count
from perfnb.demo.provider.model import Model
from perfnb.demo.provider.pricing import price_list
from perfnb.demo.provider.problems import Problem, as_answers, messages_of, read_body, server_error
from perfnb.errors import WrongUse

RERANK_MS = 1500
MAX_BODY_BYTES = 64 * 2**20
MODELS = tuple(entry["model"] for entry in price_list())


class Provider:
    """The provider's state: its model, its books, and the conditions it works under."""

    def __init__(self, *, seed: int = 0, time_scale: float = 1, conditions: Conditions | None = None) -> None:
        self.model = Model(seed, time_scale)
        self.bill = Bill()
        self.conditions = conditions or Conditions()
        self._time_scale = time_scale
        self._set_at = 0.0
        self._number = 0
        self._failures: Counter[str] = Counter()
        self._transports: WeakSet[Any] = WeakSet()

    def app(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._count_connections, as_answers])
        app.add_routes(
            [
                web.post("/v1/chat/completions", lambda r: self._generate(r, Chat(), "messages")),
                web.post("/v1/completions", lambda r: self._generate(r, Completion(), "prompt")),
                web.post("/v1/responses", lambda r: self._generate(r, Responses(), "input")),
                web.post("/v1/embeddings", self._embeddings),
                web.post("/v1/moderations", self._moderations),
                web.get("/v1/models", self._models),
                web.post("/rerank", self._rerank),
                web.post("/_control", self._control),
                web.get("/_bill", self._show_bill),
            ]
        )
        return app

    @web.middleware
    async def _count_connections(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.transport not in self._transports:
            self._transports.add(request.transport)
            self.bill.connections += 1
        response: web.StreamResponse = await handler(request)
        return response

    async def _generate(self, request: web.Request, dialect: Dialect, field: str) -> web.StreamResponse:
        clock = _Clock()
        body = await read_body(request, field)
        messages = messages_of(body, field)
        number = await self._misfortune(request, body)
        reply, rng = self.model.reply(body, messages)
        timing = self._due(reply, rng, number)
        headers = {"x-request-id": f"req_{reply.id}", "openai-version": "2020-10-01"}
        try:
            if body.get("stream"):
                is_broken = is_hit(number, self.conditions.break_share)
                return await self._stream(request, dialect, body, reply, timing, clock, headers, is_broken)
            return await self._whole(request, dialect, reply, timing, clock, headers)
        except (asyncio.CancelledError, ConnectionError):  # the caller went away, and pays for what was said by then
            if not clock.is_booked:
                said = int(max(0.0, clock.now_ms() - timing.first_ms) / max(timing.per_token_ms, 0.001))
                usage = replace(reply.usage, output_tokens=min(said, reply.usage.output_tokens))
                self._book(request, replace(reply, usage=usage), timing, clock, clock.now_ms())
            raise

    async def _whole(
        self,
        request: web.Request,
        dialect: Dialect,
        reply: Reply,
        timing: Timing,
        clock: "_Clock",
        headers: Mapping[str, str],
    ) -> web.StreamResponse:
        spoken = reply.usage.output_tokens - reply.usage.reasoning_tokens
        due_ms = timing.total_ms(spoken)
        await clock.sleep_until(due_ms)
        self._book(request, reply, timing, clock, due_ms)
        answered = {**headers, "openai-processing-ms": f"{due_ms:.0f}"}
        return web.json_response(dialect.whole(reply), headers=answered)

    async def _stream(
        self,
        request: web.Request,
        dialect: Dialect,
        body: Mapping[str, Any],
        reply: Reply,
        timing: Timing,
        clock: "_Clock",
        headers: Mapping[str, str],
        is_broken: bool,
    ) -> web.StreamResponse:
        early = self.conditions.early_start
        headers_ms = 5 if early else timing.first_ms
        await clock.sleep_until(headers_ms)
        named = isinstance(dialect, Responses)
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
            | dict(headers)
            | {"openai-processing-ms": f"{headers_ms:.0f}"}
        )
        await response.prepare(request)
        await _send(response, dialect.opening(reply))
        tokens = list(dialect.tokens(reply))
        for at, event in enumerate(tokens[: len(tokens) // 2] if is_broken else tokens):
            await clock.sleep_until(timing.first_ms + at * timing.per_token_ms)
            if at == 0:
                clock.mark_first()
            await response.write(_line(event))
        last_ms = timing.total_ms(len(tokens))
        self._book(request, reply, timing, clock, last_ms, status=500 if is_broken else 200)
        if is_broken:
            await response.write(_line(("", server_error().body)))
            return response
        await _send(response, dialect.closing(reply, bool((body.get("stream_options") or {}).get("include_usage"))))
        if not named:
            await response.write(b"data: [DONE]\n\n")
        return response

    def _slowness(self) -> float:
        now = self.conditions
        return now.slow_factor if asyncio.get_running_loop().time() - self._set_at >= now.slow_after_s else 1

    def _due(self, reply: Reply, rng: random.Random, number: int) -> Timing:
        now = self.conditions
        timing = self.model.timing(reply, rng, self._slowness())
        late_ms = now.late_ms / self._time_scale if is_hit(number, now.late_share) else 0
        return Timing(timing.first_ms + late_ms, timing.per_token_ms)

    async def _misfortune(self, request: web.Request, body: Mapping[str, Any]) -> int:
        """Return the call's number; raises the error it is to meet, or never returns; most calls meet nothing."""
        self._number += 1
        now, number, model = self.conditions, self._number, body["model"]
        digest = hashlib.blake2b(json.dumps(body.get("messages"), sort_keys=True).encode()).hexdigest()
        try:
            if is_hit(number, now.stall_share):
                await asyncio.Event().wait()
            if is_hit(number, now.rate_limit_share):
                raise self._rate_limited(number)
            if is_hit(number, now.error_share):
                if is_hit(number * 7, 0.34) and request.transport is not None:
                    request.transport.abort()
                raise Problem(503, "The engine is currently overloaded, please try again later", "server_error")
            if is_marked(digest, now.refuse_share):
                raise Problem(
                    400, "This model can't take this input", "invalid_request_error", "context_length_exceeded"
                )
            if is_marked(digest, now.fail_share) and self._failures[digest] < now.fail_first:
                self._failures[digest] += 1
                raise server_error()
        except Problem as problem:
            self.bill.add(Call(request.path, model, problem.status, Usage(0)))
            raise
        return number

    def _rate_limited(self, number: int) -> Problem:
        low, high = self.conditions.retry_after_s
        wait_ms = random.Random(number).uniform(low, high) * 1000 / self._time_scale
        return Problem(
            429,
            f"Rate limit reached for requests. Please try again in {wait_ms:.0f}ms.",
            "requests",
            "rate_limit_exceeded",
            retry_after=f"{wait_ms / 1000:.3f}",
            retry_after_ms=f"{wait_ms:.0f}",
            x_ratelimit_limit_requests="500",
            x_ratelimit_remaining_requests="0",
            x_ratelimit_reset_requests=f"{wait_ms:.0f}ms",
        )

    def _book(
        self, request: web.Request, reply: Reply, timing: Timing, clock: "_Clock", last_due_ms: float, status: int = 200
    ) -> None:
        clock.is_booked = True
        now_ms = clock.now_ms()
        first_ms = clock.first_ms if clock.first_ms is not None else now_ms
        self.bill.add(
            Call(request.path, reply.model, status, reply.usage, timing.first_ms, last_due_ms, first_ms, now_ms)
        )

    async def _embeddings(self, request: web.Request) -> web.Response:
        clock = _Clock()
        body = await read_body(request, "input")
        texts = [body["input"]] if isinstance(body["input"], str) else list(body["input"])
        if not texts or not all(isinstance(text, str) for text in texts):
            raise Problem(400, "input must be a text or a list of texts", "invalid_request_error")
        size = int(body.get("dimensions") or vectors.DIMENSIONS)
        found = [vectors.embedding(text, size) for text in texts]
        tokens = sum(map(token_count, texts))
        due_ms = await self._plain_wait(clock, body["model"], tokens, request)
        data = [
            {
                "object": "embedding",
                "index": at,
                "embedding": vectors.as_base64(vector) if body.get("encoding_format") == "base64" else vector,
            }
            for at, vector in enumerate(found)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        answer = {"object": "list", "data": data, "model": body["model"], "usage": usage}
        return web.json_response(answer, headers={"openai-processing-ms": f"{due_ms:.0f}"})

    async def _moderations(self, request: web.Request) -> web.Response:
        clock = _Clock()
        body = await read_body(request, "input", default_model="sim-moderation")
        due_ms = await self._plain_wait(clock, "sim-moderation", token_count(str(body["input"])), request)
        categories = {"harassment": False, "hate": False, "violence": False}
        result = {"flagged": False, "categories": categories, "category_scores": dict.fromkeys(categories, 0.001)}
        answer = {"id": "modr-simulated", "model": "sim-moderation", "results": [result]}
        return web.json_response(answer, headers={"openai-processing-ms": f"{due_ms:.0f}"})

    async def _plain_wait(self, clock: "_Clock", model: str, tokens: int, request: web.Request) -> float:
        timing = self.model.plain_timing(model, tokens, self._slowness())
        await clock.sleep_until(timing.first_ms)
        now_ms = clock.now_ms()
        call = Call(request.path, model, 200, Usage(tokens), timing.first_ms, timing.first_ms, now_ms, now_ms)
        self.bill.add(call)
        return timing.first_ms

    async def _rerank(self, request: web.Request) -> web.Response:
        clock = _Clock()
        body = await request.json()
        terms = set(vectors.words(body["query"]))
        scores = [len(terms.intersection(vectors.words(text))) / (len(terms) or 1) for text in body["documents"]]
        await clock.sleep_until(RERANK_MS / self._time_scale)
        return web.json_response({"scores": scores})

    async def _models(self, request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "simulated"} for name in MODELS]
        return web.json_response({"object": "list", "data": data})

    async def _control(self, request: web.Request) -> web.Response:
        try:
            self.conditions = Conditions.of(await request.json())
        except WrongUse as error:
            raise Problem(400, str(error), "invalid_request_error") from None
        self._set_at = asyncio.get_running_loop().time()
        return web.json_response(asdict(self.conditions))

    async def _show_bill(self, request: web.Request) -> web.Response:
        speeds = {name: asdict(speed) for name, speed in SPEEDS.items()}
        return web.json_response(self.bill.as_dict() | {"time_scale": self._time_scale, "speeds": speeds})


class _Clock:
    """Counts from a call's arrival; sleeps to deadlines, so that lateness never adds up."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = self._loop.time()
        self.first_ms: float | None = None
        self.is_booked = False

    def now_ms(self) -> float:
        return (self._loop.time() - self._arrived) * 1000

    def mark_first(self) -> None:
        self.first_ms = self.now_ms()

    async def sleep_until(self, due_ms: float) -> None:
        left_ms = due_ms - self.now_ms()
        if left_ms > 0:
            await asyncio.sleep(left_ms / 1000)


def _line(event: Event) -> bytes:
    name, data = event
    text = f"data: {json.dumps(data, separators=(',', ':'))}\n\n"
    return (f"event: {name}\n{text}" if name else text).encode()


async def _send(response: web.StreamResponse, events: Iterable[Event]) -> None:
    for event in events:
        await response.write(_line(event))
