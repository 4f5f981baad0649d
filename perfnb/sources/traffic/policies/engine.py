"""The policy engine: stands before a pass-through's ``forward`` while a state is set, and only then.

A call is edited, perhaps answered from a cache, made to wait, sent with a deadline and again if need be. What can't be
read passes untouched: another method or path, a WebSocket, a body that is no JSON object, is encoded, sent in chunks or
larger than LARGEST_BODY_BYTES (limits and deadlines hold for those too). A policy that fails is left out of that call,
and the timeline says so once.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from perfnb.prompts.prompt import operation_of
from perfnb.sources.traffic import websocket
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.passthrough import CAPTURE_BYTES, PassThrough
from perfnb.sources.traffic.policies.arms import OFF, State
from perfnb.sources.traffic.policies.attempts import Attempts, too_late
from perfnb.sources.traffic.policies.body import Body, Unreadable
from perfnb.sources.traffic.policies.context_trim import trim_context
from perfnb.sources.traffic.policies.history_trim import trim_history
from perfnb.sources.traffic.policies.limits import Limits
from perfnb.sources.traffic.policies.output_cap import cap
from perfnb.sources.traffic.policies.route import route
from perfnb.sources.traffic.policies.settings import KINDS, Timeout
from perfnb.sources.traffic.policies.system_prompt import replace_system
from perfnb.sources.traffic.policies.tool_subset import keep_tools
from perfnb.sources.traffic.traceparent import caller

LARGEST_BODY_BYTES = CAPTURE_BYTES
ACTED_ON = ("chat", "responses", "text_completion", "embeddings")

Tell = Callable[[str, str, Mapping[str, Any]], None]
"""Puts kind, title and body on the timeline."""


@dataclass
class Call:
    """A call under way: ``data`` is None where its body is left to pass, ``body`` where it can't be read."""

    request: web.BaseRequest
    exchange: Exchange
    data: bytes | None = None
    body: Body | None = None


class Slot:
    """One policy at work, with what it remembers and who waits for it."""

    def __init__(self, policy: Mapping[str, Any]) -> None:
        self.policy = policy
        self.limits = Limits(policy.get("concurrency"), policy.get("rate_limit"))


class Engine:
    """Does to each call what the state says; :meth:`set` puts it before ``server`` or takes it away."""

    def __init__(self, server: PassThrough, tell: Tell, *, provider: str = "") -> None:
        self.state = State.of(OFF)
        self._server = server
        self._tell = tell
        self._slots: dict[str, Slot] = {}
        self._failed: set[str] = set()
        self._edits: Mapping[str, Callable[[Body, Any], None]] = {
            "route": route,
            "system_prompt": replace_system,
            "history_trim": trim_history,
            "context_trim": trim_context,
            "tool_subset": keep_tools,
            "output_cap": lambda body, settings: cap(body, settings, provider),
        }

    def set(self, state: State) -> None:
        """Do from the next call on what ``state`` says; a policy that stays keeps what it remembers."""
        before = self._slots
        self._slots = {name: self._slot(before.get(name), policy) for name, policy in state.slots.items()}
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
                return await self._send(call, slot)
        except TimeoutError:
            return self._late(call, timeout.total_s)

    async def _send(self, call: Call, slot: Slot) -> web.StreamResponse:
        exchange = call.exchange
        async with (
            slot.limits.place(lambda ms: exchange.notes.update(waited_ms=round(ms, 3))),
            Attempts(self._server, call.request, exchange, slot.policy, body=call.data) as attempts,
        ):
            return await attempts.answer()

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
        applied = []
        for name in KINDS:
            if name not in slot.policy or name not in self._edits:
                continue
            edited = call.body.copy()
            try:
                self._edits[name](edited, slot.policy[name])
            except Exception as error:  # whatever is wrong: the call goes on without this policy
                self.failed(name, error)
                continue
            applied += [name] if edited.encoded() != call.body.encoded() else []
            call.body = edited
        if applied:
            call.exchange.asked, call.data = call.data, call.body.encoded()
            call.exchange.notes["policies"] = applied

    def failed(self, name: str, error: Exception) -> None:
        """Say once for each state that a policy does not work."""
        if name not in self._failed:
            self._failed.add(name)
            title = f"LLM proxy: {name} failed ({type(error).__name__}); calls go on without it"
            self._tell("source", title, {"source": "LLM proxy", "policy": name, "error": type(error).__name__})

    def _late(self, call: Call, total_s: float | None) -> web.StreamResponse:
        call.exchange.end = "timeout"
        if call.request.writer.output_size:  # the answer has begun: the caller sees it break off
            self._server.end(call.exchange, "timeout")
            raise ConnectionResetError
        return too_late(f"took longer than {total_s} s")

    def _slot(self, known: Slot | None, policy: Mapping[str, Any]) -> Slot:
        return known if known is not None and known.policy == policy else Slot(policy)
