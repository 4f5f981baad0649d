"""The shapes of the protocol: how one reply looks whole and as a stream, in chat, completions and responses."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from perfnb.demo.provider.bill import Usage

Event = tuple[str, dict[str, Any]]
"""Name of a server-sent event (empty for none) and its data."""


@dataclass(frozen=True)
class Reply:
    """What the model says to one call: pieces of text, or tool calls as name and arguments."""

    id: str
    model: str
    pieces: Sequence[str]
    calls: Sequence[Mapping[str, str]]
    usage: Usage
    finish_reason: str

    @property
    def text(self) -> str:
        """Return the answer in one piece."""
        return "".join(self.pieces)


class Dialect(Protocol):
    """One endpoint's way to say a reply: whole, or as what opens a stream, each token of it, and what closes it."""

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""

    def opening(self, reply: Reply) -> Iterator[Event]:
        """Yield what a stream starts with, before any content."""

    def tokens(self, reply: Reply) -> Iterator[Event]:
        """Yield one event for each token."""

    def closing(self, reply: Reply, with_usage: bool) -> Iterator[Event]:
        """Yield what a stream ends with."""


class Chat:
    """``/v1/chat/completions``."""

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return a chat completion."""
        message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
        if reply.calls:
            message["tool_calls"] = [_tool_call(reply, at) for at in range(len(reply.calls))]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
        return _head(reply, "chat.completion") | {"choices": [choice], "usage": reply.usage.for_chat()}

    def opening(self, reply: Reply) -> Iterator[Event]:
        """Yield the chunk that names the role and has no content."""
        yield self._chunk(reply, {"role": "assistant", "content": "", "refusal": None})

    def tokens(self, reply: Reply) -> Iterator[Event]:
        """Yield a chunk for each piece of text; a tool call comes as its name, then its arguments."""
        for piece in reply.pieces:
            yield self._chunk(reply, {"content": piece})
        for at, call in enumerate(reply.calls):
            yield self._chunk(reply, {"tool_calls": [{"index": at, **_tool_call(reply, at, arguments="")}]})
            for part in _cut(call["arguments"], 4):
                yield self._chunk(reply, {"tool_calls": [{"index": at, "function": {"arguments": part}}]})

    def closing(self, reply: Reply, with_usage: bool) -> Iterator[Event]:
        """Yield the chunk with the reason to finish, and one with the usage if it was asked for."""
        yield self._chunk(reply, {}, reply.finish_reason)
        if with_usage:
            head = _head(reply, "chat.completion.chunk")
            yield "", head | {"choices": [], "usage": reply.usage.for_chat()}

    def _chunk(self, reply: Reply, delta: dict[str, Any], finish_reason: str | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return "", _head(reply, "chat.completion.chunk") | {"choices": [choice]}


class Completion:
    """``/v1/completions``."""

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return a text completion."""
        return self._body(reply, reply.text, reply.finish_reason) | {"usage": reply.usage.for_chat()}

    def opening(self, reply: Reply) -> Iterator[Event]:
        """Yield nothing: a completion starts with its text."""
        yield from ()

    def tokens(self, reply: Reply) -> Iterator[Event]:
        """Yield a chunk for each piece."""
        for piece in reply.pieces:
            yield "", self._body(reply, piece, None)

    def closing(self, reply: Reply, with_usage: bool) -> Iterator[Event]:
        """Yield the reason to finish, and the usage if it was asked for."""
        yield "", self._body(reply, "", reply.finish_reason)
        if with_usage:
            yield "", _head(reply, "text_completion") | {"choices": [], "usage": reply.usage.for_chat()}

    def _body(self, reply: Reply, text: str, finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
        return _head(reply, "text_completion") | {"choices": [choice]}


class Responses:
    """``/v1/responses``: text in, text out."""

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return a finished response."""
        return self._response(reply, "completed", [self._item(reply, reply.text)]) | {
            "usage": reply.usage.for_responses()
        }

    def opening(self, reply: Reply) -> Iterator[Event]:
        """Yield that the response is made, and its empty item and part."""
        yield self._event("response.created", 0, response=self._response(reply, "in_progress", []))
        yield self._event("response.output_item.added", 1, output_index=0, item=self._item(reply, None))
        yield self._event("response.content_part.added", 2, part=_part(""), **self._place(reply))

    def tokens(self, reply: Reply) -> Iterator[Event]:
        """Yield a delta for each piece."""
        for at, piece in enumerate(reply.pieces):
            yield self._event("response.output_text.delta", 3 + at, delta=piece, logprobs=[], **self._place(reply))

    def closing(self, reply: Reply, with_usage: bool) -> Iterator[Event]:
        """Yield the whole text, and the finished response, which always has its usage."""
        at = 3 + len(reply.pieces)
        yield self._event("response.output_text.done", at, text=reply.text, logprobs=[], **self._place(reply))
        item = self._item(reply, reply.text)
        yield self._event("response.output_item.done", at + 1, output_index=0, item=item)
        yield self._event("response.completed", at + 2, response=self.whole(reply))

    def _event(self, kind: str, number: int, **data: Any) -> Event:
        return kind, {"type": kind, "sequence_number": number, **data}

    def _place(self, reply: Reply) -> dict[str, Any]:
        return {"item_id": f"msg_{reply.id}", "output_index": 0, "content_index": 0}

    def _item(self, reply: Reply, text: str | None) -> dict[str, Any]:
        status = "in_progress" if text is None else "completed"
        content = [] if text is None else [_part(text)]
        return {"id": f"msg_{reply.id}", "type": "message", "role": "assistant", "status": status, "content": content}

    def _response(self, reply: Reply, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"resp_{reply.id}",
            "object": "response",
            "created_at": int(time.time()),
            "status": status,
            "model": reply.model,
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None,
        }


def _head(reply: Reply, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{reply.id}",
        "object": kind,
        "created": int(time.time()),
        "model": reply.model,
        "system_fingerprint": "fp_simulated",
        "service_tier": "default",
    }


def _tool_call(reply: Reply, at: int, arguments: str | None = None) -> dict[str, Any]:
    call = reply.calls[at]
    function = {"name": call["name"], "arguments": call["arguments"] if arguments is None else arguments}
    return {"id": f"call_{reply.id}_{at}", "type": "function", "function": function}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _cut(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size))
