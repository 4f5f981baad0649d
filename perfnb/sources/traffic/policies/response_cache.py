"""Answer a question from the proxy's memory that the provider has answered before.

What counts as the same question: model, all parameters, system prompt, tools and messages, from the same caller (a keyed
digest of Authorization and the like), asked for in the same form (streamed or not, encoding). In semantic mode all that
but the last user message must be the same, the end user too, and that message may differ in words: its embedding must
be near enough. The whole answer is kept, and a stream is replayed as one. Only complete successful answers are kept.

Refused, because an answer given before would not do: several answers asked for, or a temperature above 1 (variety is
wanted); tools that the provider runs itself, such as web search (the world changes); what the provider is to keep or to
do in the background; sound (it expires); and callers that say ``Cache-Control: no-cache`` or ``no-store``.

Source: A9, A10, B26, C49, E48, R18; X15 (the key must hold model and parameters), X28 (false hits)
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from perfnb.prompts.digest import VOLATILE
from perfnb.prompts.prompt import as_json, text_of
from perfnb.sources.traffic.encoding import UnknownEncoding, plain
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.llm_answer import streamed_answer, whole_answer
from perfnb.sources.traffic.policies import nearness
from perfnb.sources.traffic.policies.call import Call, digest
from perfnb.sources.traffic.policies.settings import ResponseCache
from perfnb.sources.traffic.policies.store import Store, store

LARGEST_ANSWER_BYTES = 256 * 2**10
_OPERATIONS = ("chat", "responses", "text_completion")
_IGNORED = VOLATILE - {"stream", "stream_options"}
_USERS = ("user", "safety_identifier")
_OWN_TOOLS = ("function", "custom", None)
_FORM = ("accept-encoding", "accept")

Embed = Callable[[Call, str, str], Awaitable[bytes]]
"""Returns the embedding of a text by a model, as 32-bit floats, asked for in the name of a call's caller."""


@dataclass
class Question:
    """What a call asks, as the cache knows it; ``vector`` is the last message's, in semantic mode."""

    key: str
    scope: str = ""
    vector: bytes = b""


@dataclass(frozen=True)
class Kept:
    """An answer as it came: its form, and its body in the pieces of the stream."""

    headers: Mapping[str, str]
    pieces: tuple[bytes, ...]

    def encoded(self) -> bytes:
        """Return it as one value."""
        head = json.dumps([dict(self.headers), [len(piece) for piece in self.pieces]]).encode()
        return b"".join([len(head).to_bytes(4, "little"), head, *self.pieces])

    @classmethod
    def decoded(cls, value: bytes) -> "Kept":
        """Return what :meth:`encoded` gave."""
        at = 4 + int.from_bytes(value[:4], "little")
        headers, sizes = json.loads(value[4:at])
        pieces = []
        for size in sizes:
            pieces.append(value[at : at + size])
            at += size
        return cls(headers, tuple(pieces))


class AnswerCache:
    """The cache of one policy."""

    def __init__(self, settings: ResponseCache, secret: bytes, embed: Embed) -> None:
        self._settings = settings
        self._secret = secret
        self._embed = embed
        self._store: Store = store(settings.entries, settings.ttl_s, settings.redis)
        self._indexes: Store = store(settings.entries, settings.ttl_s, settings.redis)  # of questions, by scope

    async def close(self) -> None:
        """Let go of connections."""
        await self._store.close()
        await self._indexes.close()

    async def find(self, call: Call) -> tuple[Question | None, Kept | None]:
        """Return what the call asks (None where it is refused) and the answer known for it."""
        if call.body is None or call.body.operation not in _OPERATIONS or refusal(call):
            return None, None
        asked = Question(self._key(call, call.body.values))
        value = await self._store.get(asked.key)
        if value is None and self._settings.mode == "semantic":
            value = await self._find_near(call, asked)
        return asked, Kept.decoded(value) if value else None

    async def keep(self, asked: Question, exchange: Exchange) -> None:
        """Keep the answer in ``exchange`` where it is whole and good."""
        if not is_whole(exchange):
            return
        names = ("content-type", "content-encoding")
        headers = {name: exchange.response_headers[name] for name in names if name in exchange.response_headers}
        await self._store.put(asked.key, Kept(headers, tuple(exchange.answer)).encoded())
        if asked.vector:
            index = await self._indexes.get(asked.scope) or b""
            await self._indexes.put(asked.scope, nearness.added(index, asked.key, asked.vector, self._settings.entries))

    async def _find_near(self, call: Call, asked: Question) -> bytes | None:
        assert call.body is not None
        question = last_question(call.body.values)
        if question is None:
            return None
        text, rest = question
        users = {name: str(call.body.values[name]) for name in _USERS if name in call.body.values}
        asked.scope = "near:" + self._key(call, rest | {"perfnb": [self._settings.embedding_model, users]})
        asked.vector = await self._embed(call, self._settings.embedding_model, text)
        index = await self._indexes.get(asked.scope)
        near = nearness.nearest(index, asked.vector) if index else None
        if near is None or near[1] < self._settings.threshold:
            return None
        call.exchange.notes["similarity"] = round(near[1], 4)
        return await self._store.get(near[0])

    def _key(self, call: Call, values: Mapping[str, Any]) -> str:
        asked = {name: value for name, value in values.items() if name not in _IGNORED}
        form = {name: call.request.headers[name] for name in _FORM if name in call.request.headers}
        place = f"{call.exchange.path}?{call.exchange.query}"
        return digest(self._secret, place, call.who, form, as_json(asked))


def refusal(call: Call) -> str:
    """Return why a kept answer would not do for this call; empty where it would."""
    assert call.body is not None
    values = call.body.values
    if any(_number(values.get(name)) > 1 for name in ("n", "best_of", "temperature")):
        return "variety is wanted"
    tools = values.get("tools")
    kinds = [tool.get("type") for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, list) else []
    if any(kind not in _OWN_TOOLS for kind in kinds) or values.get("web_search_options"):
        return "the provider runs tools"
    is_kept = values.get("store") is True or values.get("background") or values.get("previous_response_id")
    if is_kept or values.get("conversation"):
        return "the provider keeps it"
    if "audio" in (values.get("modalities") or ()):
        return "sound"
    asked = call.request.headers.get("Cache-Control", "").lower()
    return "the caller wants a fresh one" if "no-cache" in asked or "no-store" in asked else ""


def is_whole(exchange: Exchange) -> bool:
    """Tell whether an exchange holds a complete successful answer, small enough to keep."""
    is_success = exchange.end == "complete" and exchange.status == 200 and not exchange.is_cut
    if not is_success or not 0 < exchange.response_bytes <= LARGEST_ANSWER_BYTES:
        return False
    headers = exchange.response_headers
    is_stream = headers.get("content-type", "").startswith("text/event-stream")
    try:
        pieces = list(plain([(0.0, piece) for piece in exchange.answer], headers.get("content-encoding", "")))
    except UnknownEncoding:
        return False
    answer = streamed_answer(pieces) if is_stream else whole_answer(b"".join(piece for _, piece in pieces))
    is_said = bool(answer.texts or answer.calls) and answer.finish_reason in ("stop", "length", "tool_calls")
    return is_said and not answer.error and (answer.is_done or not is_stream)


def last_question(values: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the text of the last message, if it is a user's and all text, and the values without it."""
    for name in ("messages", "input", "prompt"):
        given = values.get(name)
        if isinstance(given, str) and name != "messages":
            return (given, {**values, name: ""}) if given.strip() else None
        if isinstance(given, list) and given and isinstance(given[-1], Mapping) and given[-1].get("role") == "user":
            text, others = text_of(given[-1].get("content"))
            rest = {**values, name: [*given[:-1], {**given[-1], "content": ""}]}
            return (text, rest) if text.strip() and not others and not _has_results(given[-1]) else None
    return None


def _has_results(message: Mapping[str, Any]) -> bool:
    return b'"tool_result"' in orjson.dumps(message.get("content"), default=str)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
