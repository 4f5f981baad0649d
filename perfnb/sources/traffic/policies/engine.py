"""The policy engine: stands before a pass-through's ``forward`` while a state is set, and only then.

A call is edited, perhaps answered from a cache, made to wait, sent with a deadline and again if need be. What can't be
read passes untouched: another method or path, a WebSocket, a body that is no JSON object, is encoded, sent in chunks or
larger than LARGEST_BODY_BYTES (limits and deadlines hold for those too). A policy that fails is left out of that call,
and the timeline says so once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from aiohttp import web
from multidict import CIMultiDict

from perfnb.errors import PerfnbError
from perfnb.prompts.prompt import operation_of
from perfnb.sources.traffic import websocket
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.passthrough import CAPTURE_BYTES, PassThrough
from perfnb.sources.traffic.policies import embedding_cache
from perfnb.sources.traffic.policies.arms import OFF, State
from perfnb.sources.traffic.policies.asking import embedding
from perfnb.sources.traffic.policies.attempts import Attempts, too_late
from perfnb.sources.traffic.policies.body import Body, Unreadable
from perfnb.sources.traffic.policies.call import Call
from perfnb.sources.traffic.policies.edits import edited, edits
from perfnb.sources.traffic.policies.embedding_cache import EmbeddingStore, Texts
from perfnb.sources.traffic.policies.limits import Limits
from perfnb.sources.traffic.policies.response_cache import AnswerCache, Embed, Kept
from perfnb.sources.traffic.policies.settings import Timeout
from perfnb.sources.traffic.traceparent import caller
from perfnb.sources.traffic.verbatim import VerbatimAnswer

LARGEST_BODY_BYTES = CAPTURE_BYTES
ACTED_ON = ("chat", "responses", "text_completion", "embeddings")

Tell = Callable[[str, str, Mapping[str, Any]], None]
"""Puts kind, title and body on the timeline."""

T = TypeVar("T")


class Slot:
    """One policy at work, with what it remembers and who waits for it."""

    def __init__(self, policy: Mapping[str, Any], secret: bytes, embed: Embed) -> None:
        self.policy = policy
        self.limits = Limits(policy.get("concurrency"), policy.get("rate_limit"))
        self.answers = AnswerCache(cache, secret, embed) if (cache := policy.get("response_cache")) else None
        self.embeddings = EmbeddingStore(cache, secret) if (cache := policy.get("embedding_cache")) else None

    async def close(self) -> None:
        """Let go of what its caches hold."""
        for cache in (self.answers, self.embeddings):
            if cache is not None:
                await cache.close()


class Engine:
    """Does to each call what the state says; :meth:`set` puts it before ``server`` or takes it away.

    ``secret`` keys the digests under which callers and questions are known to caches.
    """

    def __init__(self, server: PassThrough, tell: Tell, *, secret: bytes, provider: str = "") -> None:
        self.state = State.of(OFF)
        self._server = server
        self._tell = tell
        self._secret = secret
        self._edits = edits(provider)
        self._slots: dict[str, Slot] = {}
        self._failed: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def set(self, state: State) -> None:
        """Do from the next call on what ``state`` says; a policy that stays keeps what it remembers."""
        before = self._slots
        self._slots = {name: self._slot(before.get(name), policy) for name, policy in state.slots.items()}
        for gone in [slot for slot in before.values() if slot not in self._slots.values()]:
            task = asyncio.ensure_future(gone.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self.state = state
        self._failed.clear()
        self._server.forward = self._server.pass_on if state.is_off else self.forward

    async def forward(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Pass one request on as its arm's policy says."""
        state = self.state
        trace_id, _ = caller(exchange.request_headers.get("traceparent", ""))
        exchange.arm = state.arm(trace_id)
        slot = self._slots[state.slot(trace_id)]
        is_call = request.method == "POST" and operation_of(exchange.path) in ACTED_ON
        if not slot.policy or not is_call or websocket.is_asked(request):
            return await self._server.pass_on(request, exchange)
        return await self._act(await self._read(request, exchange), slot)

    async def _act(self, call: Call, slot: Slot) -> web.StreamResponse:
        timeout = slot.policy.get("timeout") or Timeout()
        try:
            async with asyncio.timeout(timeout.total_s):
                self._edit(call, slot)
                return await self._answer(call, slot)
        except TimeoutError:
            return self._late(call, timeout.total_s)

    async def _answer(self, call: Call, slot: Slot) -> web.StreamResponse:
        is_embedding = operation_of(call.exchange.path) == "embeddings"
        if slot.embeddings is not None and is_embedding:
            return await self._from_embeddings(call, slot, slot.embeddings)
        if slot.answers is not None and not is_embedding:
            return await self._from_answers(call, slot, slot.answers)
        return await self._send(call, slot)

    async def _send(self, call: Call, slot: Slot) -> web.StreamResponse:
        async with self._place(call, slot), self._attempts(call, slot) as attempts:
            return await attempts.answer()

    async def _from_answers(self, call: Call, slot: Slot, cache: AnswerCache) -> web.StreamResponse:
        asked, kept = await self._tried("response_cache", cache.find(call)) or (None, None)
        if kept is not None:
            return await self._replay(call, kept)
        answer = await self._send(call, slot)
        if asked is not None:
            await self._tried("response_cache", cache.keep(asked, call.exchange))
        return answer

    async def _from_embeddings(self, call: Call, slot: Slot, cache: EmbeddingStore) -> web.StreamResponse:
        texts = await self._tried("embedding_cache", cache.find(call))
        if texts is None or call.body is None or call.data is None:
            return await self._send(call, slot)
        if not texts.missing:
            body = embedding_cache.whole_answer(texts, call.body.values.get("model"))
            return await self._replay(call, Kept({"content-type": "application/json"}, (body,)))
        if len(texts.missing) < len(texts.texts):
            call.exchange.notes["cached_inputs"] = len(texts.texts) - len(texts.missing)
            return await self._send_missing(call, slot, cache, texts)
        answer = await self._send(call, slot)
        await self._tried("embedding_cache", cache.keep(texts, texts.missing, call.exchange))
        return answer

    async def _send_missing(self, call: Call, slot: Slot, cache: EmbeddingStore, texts: Texts) -> web.StreamResponse:
        """Send only the texts that are not known, and put the others into the answer."""
        assert call.body is not None
        assert call.data is not None
        call.body.set("input", [texts.texts[number] for number in texts.missing])
        call.exchange.asked = call.exchange.asked or call.data
        call.data = call.body.encoded()
        async with self._place(call, slot), self._attempts(call, slot, {"Accept-Encoding": "identity"}) as attempts:
            status, headers, data = await attempts.whole()
        await self._tried("embedding_cache", cache.keep(texts, texts.missing, call.exchange))
        data = embedding_cache.merged(texts, call.exchange) or data
        return web.Response(status=status, headers=headers, body=data)

    async def _replay(self, call: Call, kept: Kept) -> web.StreamResponse:
        """Give the caller an answer that was kept: a stream as a stream."""
        exchange = call.exchange
        exchange.sent(call.data or b"", CAPTURE_BYTES)
        exchange.answered_by, exchange.status, exchange.answered = "cache", 200, time.perf_counter()
        exchange.response_headers = dict(kept.headers)
        headers = CIMultiDict(kept.headers)
        is_stream = headers.get("content-type", "").startswith("text/event-stream")
        pieces: Iterable[bytes] = kept.pieces if is_stream else [b"".join(kept.pieces)]
        if not is_stream:
            headers["content-length"] = str(sum(map(len, kept.pieces)))
        answer = VerbatimAnswer(status=200, headers=headers)
        await answer.prepare(call.request)
        for piece in pieces:
            await answer.write(self._server.noted(piece, exchange))
        await answer.write_eof()
        return answer

    async def _read(self, request: web.BaseRequest, exchange: Exchange) -> Call:
        call = Call(request, exchange)
        if request.content_length is None or request.content_length > LARGEST_BODY_BYTES:
            return call
        await self._server.invite(request)
        try:
            call.data = await request.content.read()
        except (web.PayloadAccessError, web.RequestPayloadError) as error:
            raise ConnectionResetError from error
        if "Content-Encoding" not in request.headers:
            try:
                call.body = Body.read(call.data, exchange.path)
            except Unreadable:
                call.body = None
        return call

    def _edit(self, call: Call, slot: Slot) -> None:
        if call.body is None or call.data is None:
            return
        call.body, applied = edited(call.body, slot.policy, self._edits, self._report)
        if applied:
            call.exchange.asked, call.data = call.data, call.body.encoded()
            call.exchange.notes["policies"] = applied

    def _place(self, call: Call, slot: Slot) -> Any:
        return slot.limits.place(lambda ms: call.exchange.notes.update(waited_ms=round(ms, 3)))

    def _attempts(self, call: Call, slot: Slot, headers: Mapping[str, str] | None = None) -> Attempts:
        return Attempts(self._server, call.request, call.exchange, slot.policy, body=call.data, headers=headers)

    async def _tried(self, name: str, work: Awaitable[T]) -> T | None:
        """Return what ``work`` gives; where it fails the call goes on without it."""
        try:
            return await work
        except Exception as error:
            self._report(name, error)
            return None

    def _report(self, name: str, error: Exception) -> None:
        """Say once for each state that a policy does not work."""
        if name not in self._failed:
            self._failed.add(name)
            why = str(error) if isinstance(error, PerfnbError) else type(error).__name__
            title = f"LLM proxy: {name} failed ({why}); calls go on without it"
            self._tell("source", title, {"source": "LLM proxy", "policy": name, "error": type(error).__name__})

    def _late(self, call: Call, total_s: float | None) -> web.StreamResponse:
        call.exchange.end = "timeout"
        if call.request.writer.output_size:  # the answer has begun: the caller sees it break off
            self._server.end(call.exchange, "timeout")
            raise ConnectionResetError
        return too_late(f"took longer than {total_s} s")

    def _slot(self, known: Slot | None, policy: Mapping[str, Any]) -> Slot:
        if known is not None and known.policy == policy:
            return known
        return Slot(policy, self._secret, lambda call, model, text: embedding(self._server, call, model, text))
