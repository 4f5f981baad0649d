"""Read a model's answer, streamed or whole, of any known protocol: OpenAI's, Anthropic's and what is like them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from perfnb.prompts.prompt import Tool, as_json
from perfnb.sources.traffic.sse import DONE, Event, events

_FINISHED = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
}
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")


@dataclass
class Answer:
    """What an answer said.

    Attributes:
        first, last: When the first and the last event came that carried content, reasoning or a tool call; None for an
            answer that was no stream or said nothing.
        finish_reason: stop, length, tool_calls, or the provider's word.
        usage: The provider's usage object; empty where it sent none.
        is_done: Whether a stream said that it is complete: a caller that leaves then misses nothing.
        error: The provider's code or type of an error in the body; empty where there is none.
    """

    texts: list[str] = field(default_factory=list)
    reasoning_characters: int = 0
    calls: dict[Any, list[str]] = field(default_factory=dict)
    model: str | None = None
    finish_reason: str | None = None
    service_tier: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    first: float | None = None
    last: float | None = None
    is_done: bool = False
    said: int = 0

    @property
    def text(self) -> str:
        """Return the text, reasoning left out."""
        return "".join(self.texts)

    @property
    def tool_calls(self) -> list[Tool]:
        """Return the tools it calls."""
        return [Tool(name, arguments, call_id) for name, arguments, call_id in self.calls.values()]

    @property
    def characters(self) -> int:
        """Return how much was generated: text, reasoning that was shown, tool calls."""
        called = sum(len(name) + len(arguments) for name, arguments, _ in self.calls.values())
        return sum(map(len, self.texts)) + self.reasoning_characters + called

    def say(self, text: Any) -> None:
        """Add text; anything but a text is left out."""
        if isinstance(text, str) and text:
            self.texts.append(text)
            self.said += 1

    def think(self, text: Any) -> None:
        """Add reasoning, of which only the length is kept."""
        if isinstance(text, str) and text:
            self.reasoning_characters += len(text)
            self.said += 1

    def call(self, key: Any, name: Any = None, arguments: Any = None, call_id: Any = None) -> None:
        """Add a tool call, or the next part of the one under ``key``."""
        known = self.calls.setdefault(key, ["", "", ""])
        if isinstance(name, str) and name:
            known[0] = name
        if isinstance(arguments, str):
            known[1] += arguments
        elif arguments:
            known[1] += as_json(arguments)
        if isinstance(call_id, str) and call_id:
            known[2] = call_id
        self.said += 1

    def finish(self, reason: Any) -> None:
        """Note why it ended."""
        if isinstance(reason, str):
            self.finish_reason = _FINISHED.get(reason, reason)

    def about(self, body: Mapping[str, Any]) -> None:
        """Note the model, tier and usage where ``body`` tells them; a later usage replaces an earlier one key by key."""
        for name, key in (("model", "model"), ("service_tier", "service_tier")):
            if isinstance(body.get(key), str):
                setattr(self, name, body[key])
        if isinstance(body.get("usage"), dict):
            self.usage |= {key: value for key, value in body["usage"].items() if value is not None}
        groq = body.get("x_groq")
        if isinstance(groq, dict) and isinstance(groq.get("usage"), dict):
            self.usage |= groq["usage"]


def streamed_answer(pieces: Iterable[tuple[float, bytes]]) -> Answer:
    """Return what the event stream in ``pieces`` (time, bytes) said."""
    answer = Answer()
    for event in events(pieces):
        body = _json(event.data)
        if event.data == DONE:
            answer.is_done = True
        if not isinstance(body, dict):
            continue
        before = answer.said
        _read_event(answer, event, body)
        if answer.said > before:
            answer.first = event.time if answer.first is None else answer.first
            answer.last = event.time
    return answer


def whole_answer(data: bytes) -> Answer:
    """Return what the JSON body ``data`` said; an empty answer where it is no JSON."""
    answer, body = Answer(), _json(data)
    if isinstance(body, list):  # some gateways wrap an error in a list
        body = body[0] if body else None
    if isinstance(body, dict):
        _read_error(answer, body)
        answer.about(body)
        for index, choice in enumerate(_dicts(body.get("choices"))):
            _read_message(answer, choice.get("message") or choice, index)
            answer.finish(choice.get("finish_reason"))
        _read_output(answer, body)
        _read_blocks(answer, body)
    return answer


def event_says_something(event: Event, body: dict[str, Any]) -> bool:
    """Tell whether one event of a stream carries content, reasoning or a tool call."""
    answer = Answer()
    _read_event(answer, event, body)
    return answer.said > 0


def _read_event(answer: Answer, event: Event, body: dict[str, Any]) -> None:
    kind = body.get("type") if isinstance(body.get("type"), str) else ""
    _read_error(answer, body)
    if event.name == "error" and not answer.error:
        answer.error = kind or "error"
    if "choices" in body:
        answer.about(body)
        for index, choice in enumerate(_dicts(body["choices"])):
            _read_message(answer, choice.get("delta") or choice, choice.get("index", index))
            answer.finish(choice.get("finish_reason"))
    elif str(kind).startswith("response."):
        _read_response_event(answer, str(kind), body)
    else:
        _read_block_event(answer, str(kind), body)


def _read_message(answer: Answer, message: Any, choice: Any) -> None:
    """Read a chat message, or the part of one that a stream's event carries, or a text completion."""
    if not isinstance(message, dict):
        return
    content = message.get("content")
    for part in content if isinstance(content, list) else [content]:
        answer.say(part.get("text") if isinstance(part, dict) else part)
    answer.say(message.get("text"))
    answer.say(message.get("refusal"))
    for key in _REASONING_KEYS:
        if isinstance(message.get(key), str):
            answer.think(message[key])
            break
    for index, call in enumerate(_dicts(message.get("tool_calls"))):
        inner = call.get("function") or call.get("custom")
        if isinstance(inner, dict):
            arguments = inner.get("arguments", inner.get("input"))
            answer.call((choice, call.get("index", index)), inner.get("name"), arguments, call.get("id"))
    if isinstance(old := message.get("function_call"), dict):
        answer.call((choice, "function"), old.get("name"), old.get("arguments"))
    audio = message.get("audio")
    if isinstance(audio, dict) and (audio.get("data") or audio.get("transcript")):
        answer.say(audio.get("transcript"))
        answer.said += 1


def _read_output(answer: Answer, response: Mapping[str, Any]) -> None:
    """Read a whole body of the responses API."""
    for index, item in enumerate(_dicts(response.get("output"))):
        match item.get("type"):
            case "message":
                for part in _dicts(item.get("content")):
                    answer.say(part.get("text") or part.get("refusal"))
            case "reasoning":
                for part in [*_dicts(item.get("summary")), *_dicts(item.get("content"))]:
                    answer.think(part.get("text"))
            case "function_call" | "custom_tool_call":
                answer.call(index, item.get("name"), item.get("arguments", item.get("input")), item.get("call_id"))
    _read_status(answer, response)


def _read_status(answer: Answer, response: Mapping[str, Any]) -> None:
    match response.get("status"):
        case "completed":
            answer.finish("tool_calls" if answer.calls else "stop")
        case "incomplete":
            details = response.get("incomplete_details")
            answer.finish(details.get("reason") if isinstance(details, dict) else "incomplete")
        case "failed":
            answer.error = answer.error or "failed"


def _read_response_event(answer: Answer, kind: str, body: Mapping[str, Any]) -> None:
    """Read one event of a streamed answer of the responses API."""
    item, response, index = body.get("item"), body.get("response"), body.get("output_index")
    if kind.endswith(".delta"):
        if "reasoning" in kind:
            answer.think(body.get("delta"))
        elif "arguments" in kind or "custom_tool_call_input" in kind:
            answer.call(index, arguments=body.get("delta"))
        elif "audio" in kind and "transcript" not in kind:
            answer.said += 1
        else:
            answer.say(body.get("delta"))
    elif kind == "response.output_item.added" and isinstance(item, dict) and "call" in str(item.get("type")):
        answer.call(index, item.get("name"), call_id=item.get("call_id"))
    elif isinstance(response, dict):
        _read_error(answer, response)
        answer.about(response)
        answer.is_done = kind in ("response.completed", "response.incomplete", "response.failed")
        _read_status(answer, response)


def _read_blocks(answer: Answer, body: Mapping[str, Any]) -> None:
    """Read a whole body of Anthropic's messages API."""
    for index, block in enumerate(_dicts(body.get("content"))):
        match block.get("type"):
            case "text":
                answer.say(block.get("text"))
            case "thinking":
                answer.think(block.get("thinking"))
            case "tool_use" | "server_tool_use":
                answer.call(index, block.get("name"), block.get("input") or "{}", block.get("id"))
    answer.finish(body.get("stop_reason"))


def _read_block_event(answer: Answer, kind: str, body: Mapping[str, Any]) -> None:
    """Read one event of a streamed answer of Anthropic's messages API."""
    index, block, delta = body.get("index"), body.get("content_block"), body.get("delta")
    if kind == "message_start" and isinstance(body.get("message"), dict):
        answer.about(body["message"])
    elif kind == "content_block_start" and isinstance(block, dict):
        if str(block.get("type")).endswith("tool_use"):
            answer.call(index, block.get("name"), call_id=block.get("id"))
        else:
            answer.say(block.get("text"))
    elif kind == "content_block_delta" and isinstance(delta, dict):
        answer.say(delta.get("text"))
        answer.think(delta.get("thinking"))
        if delta.get("partial_json"):
            answer.call(index, arguments=delta["partial_json"])
    elif kind == "message_stop":
        answer.is_done = True
    elif kind == "message_delta":
        answer.about(body)
        answer.finish(delta.get("stop_reason") if isinstance(delta, dict) else None)


def _read_error(answer: Answer, body: Mapping[str, Any]) -> None:
    """Note the error ``body`` reports: its code, else its type; never its message, which may quote the prompt."""
    error = body.get("error")
    if isinstance(error, dict) and error:
        named = [error.get(key) for key in ("code", "type", "status")]
        answer.error = next((str(name) for name in named if isinstance(name, str | int) and name), "error")
    elif isinstance(error, str) and error:
        answer.error = "error"
    elif body.get("type") == "error":
        answer.error = body["code"] if isinstance(body.get("code"), str) else "error"


def _json(data: str | bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        return None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
