"""Read a request body of any known protocol into one shape: messages, tools and settings."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

Operation = Literal["chat", "text_completion", "responses", "embeddings", "models", "moderation", "other"]

_ENDINGS: tuple[tuple[str, Operation], ...] = (
    ("/chat/completions", "chat"),
    ("/messages", "chat"),
    ("/responses", "responses"),
    ("/completions", "text_completion"),
    ("/embeddings", "embeddings"),
    ("/models", "models"),
    ("/moderations", "moderation"),
)
_CAPS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "max_tokens_to_sample")
_CONVERSATION_KEYS = ("conversation_id", "session_id", "thread_id", "chat_id")
_LARGEST = 2**63 - 1
_PLAIN = {"role", "content"}


class Tool(NamedTuple):
    """One call of a tool: its name, its arguments as JSON text and its id."""

    name: str
    arguments: str = ""
    id: str = ""


class Message(NamedTuple):
    """One message of a prompt.

    Attributes:
        role: system, developer, user, assistant, tool, prompt (text completions) or input (embeddings).
        other_parts: Images, sounds and files in it: counted, never read.
        answers: Id of the tool call it answers.
        extra_tokens: Tokens that have no text (an input given as token numbers).
    """

    role: str
    text: str
    other_parts: int = 0
    tool_calls: tuple[Tool, ...] = ()
    answers: str = ""
    extra_tokens: int = 0


@dataclass(frozen=True)
class Prompt:
    """A request body in one shape; ``said`` is the part of the body the messages came from, ``settings`` are columns."""

    operation: Operation
    messages: tuple[Message, ...] = ()
    tools: tuple[str, ...] = ()
    said: Any = None
    schemas: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    conversation: str = ""


def operation_of(path: str) -> Operation:
    """Return what a request to ``path`` asks for, by the end of the path."""
    path = path.partition("?")[0].rstrip("/")
    if "/models/" in path:
        return "models"
    return next((operation for ending, operation in _ENDINGS if path.endswith(ending)), "other")


def read_prompt(body: Mapping[str, Any], path: str) -> Prompt:
    """Return the prompt in ``body``; what is not understood is left out, nothing is raised."""
    operation = operation_of(path)
    schemas = [entry for key in ("tools", "functions") for entry in _entries(body.get(key))]
    said = {key: body[key] for key in ("system", "instructions", "messages", "input", "prompt") if body.get(key)}
    is_known = operation in ("chat", "text_completion", "responses", "embeddings")
    return Prompt(
        operation,
        tuple(_messages(body, operation)) if is_known else (),
        tuple(_tool_name(schema) for schema in schemas),
        said if is_known else None,
        schemas or None,
        _settings(body, path, schemas),
        _conversation(body),
    )


def text_of(content: Any) -> tuple[str, int]:
    """Return the text in a message's ``content`` and how many other parts (images, sounds, files) it has."""
    if isinstance(content, str):
        return content, 0
    if isinstance(content, Mapping):
        content = [content]
    texts, others = [], 0
    for part in _entries(content):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping):
            text, inner = _part(part)
            texts += [text] if text else []
            others += inner
    return "\n".join(texts), others


def _part(part: Mapping[str, Any]) -> tuple[str, int]:
    for key in ("text", "refusal", "thinking", "summary_text"):
        if isinstance(part.get(key), str):
            return part[key], 0
    if part.get("type") == "tool_result":
        return text_of(part.get("content"))
    return "", 0 if part.get("type") in ("tool_use", "redacted_thinking", "reasoning") else 1


def _messages(body: Mapping[str, Any], operation: Operation) -> Iterator[Message]:
    for key in ("system", "instructions"):
        if body.get(key):
            yield Message("system", *text_of(body[key]))
    if operation == "embeddings":
        yield from _texts("input", body.get("input"))
    elif operation == "text_completion":
        yield from _texts("prompt", body.get("prompt"))
    elif operation == "responses" and isinstance(body.get("input"), str):
        yield Message("user", body["input"])
    else:
        for item in _entries(body.get("input" if operation == "responses" else "messages")):
            if isinstance(item, Mapping):
                yield _message(item)


def _texts(role: str, given: Any) -> Iterator[Message]:
    """Read a text, token numbers, or a list of either."""
    entries = _entries(given) if isinstance(given, list) else [given]
    if entries and all(isinstance(entry, int) for entry in entries):
        entries = [entries]
    for entry in entries:
        if isinstance(entry, str):
            yield Message(role, entry)
        elif isinstance(entry, list):
            yield Message(role, "", extra_tokens=len(entry))
        elif isinstance(entry, Mapping):
            yield Message(role, *text_of(entry.get("content", entry)))


def _message(item: Mapping[str, Any]) -> Message:
    if item.keys() == _PLAIN and isinstance(
        item["content"], str
    ):  # most messages, and the rest takes ten times as long
        return Message(_str(item["role"]) or "user", item["content"])
    kind = item.get("type")
    if kind == "function_call":
        return Message("assistant", "", tool_calls=(_tool(item, item.get("call_id")),))
    if kind == "function_call_output":
        return Message("tool", *text_of(item.get("output")), answers=_str(item.get("call_id")))
    if kind == "reasoning":
        return Message("assistant", *text_of(item.get("summary")))
    content = item.get("content")
    text, others = text_of(content)
    blocks = [block for block in _entries(content) if isinstance(block, Mapping)]
    results = [block for block in blocks if block.get("type") == "tool_result"]
    calls = [_tool(block, block.get("id")) for block in blocks if block.get("type") == "tool_use"]
    calls += [_tool(call, call.get("id")) for call in _entries(item.get("tool_calls")) if isinstance(call, Mapping)]
    if isinstance(item.get("function_call"), Mapping):
        calls.append(_tool(item, None))
    is_result = bool(results) and len(results) == len(blocks)  # Anthropic sends tool results as the user's
    role = "tool" if is_result or item.get("role") == "function" else _str(item.get("role")) or "user"
    answers = _str(results[0].get("tool_use_id")) if is_result else _str(item.get("tool_call_id"))
    return Message(role, text, others, tuple(calls), answers)


def _tool(call: Mapping[str, Any], call_id: Any) -> Tool:
    function = next(
        (call[key] for key in ("function", "function_call", "custom") if isinstance(call.get(key), Mapping)), call
    )
    given = function.get("arguments", function.get("input", ""))
    arguments = given if isinstance(given, str) else as_json(given)
    return Tool(_str(function.get("name")), arguments, _str(call_id))


def _tool_name(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return ""
    inner = schema.get("function")
    return _str((inner if isinstance(inner, Mapping) else schema).get("name")) or _str(schema.get("type"))


def _settings(body: Mapping[str, Any], path: str, schemas: Sequence[Any]) -> dict[str, Any]:
    """Return the columns that are plain settings."""
    cap = next((number for key in _CAPS if (number := whole(body.get(key))) is not None), None)
    temperature = body.get("temperature")
    is_number = (
        isinstance(temperature, int | float) and not isinstance(temperature, bool) and abs(temperature) < _LARGEST
    )
    return {
        "request_model": _str(body.get("model")) or _deployment(path),
        "stream": body.get("stream") is True,
        "max_tokens": cap,
        "temperature": float(temperature) if is_number else None,  # type: ignore[arg-type]
        "service_tier": _str(body.get("service_tier")) or None,
        "attributes": _details(body, schemas),
    }


def _details(body: Mapping[str, Any], schemas: Sequence[Any]) -> dict[str, Any]:
    """Return settings that have no column of their own: names and numbers, never texts."""
    details: dict[str, Any] = {}
    if schemas:
        details["tools"] = [_tool_name(schema) for schema in schemas]
    reasoning, thinking = body.get("reasoning"), body.get("thinking")
    effort = body.get("reasoning_effort") or (reasoning.get("effort") if isinstance(reasoning, Mapping) else None)
    if isinstance(effort, str):
        details["reasoning_effort"] = effort
    if isinstance(thinking, Mapping) and whole(thinking.get("budget_tokens")) is not None:
        details["thinking_budget_tokens"] = thinking["budget_tokens"]
    if isinstance(body.get("parallel_tool_calls"), bool):
        details["parallel_tool_calls"] = body["parallel_tool_calls"]
    if (choices := whole(body.get("n"))) not in (None, 1):
        details["n"] = choices
    shape = body.get("response_format")
    if isinstance(shape, Mapping) and isinstance(shape.get("type"), str):
        details["response_format"] = shape["type"]
    if body.get("previous_response_id") or body.get("conversation"):
        details["previous_response"] = True
    return details


def _conversation(body: Mapping[str, Any]) -> str:
    conversation, metadata = body.get("conversation"), body.get("metadata")
    if isinstance(conversation, Mapping):
        conversation = conversation.get("id")
    if isinstance(conversation, str):
        return conversation
    if isinstance(metadata, Mapping):
        return next((str(metadata[key]) for key in _CONVERSATION_KEYS if metadata.get(key)), "")
    return ""


def _deployment(path: str) -> str | None:
    """Return the deployment in an Azure path, which names the model there."""
    _, _, rest = path.partition("/deployments/")
    return rest.partition("/")[0] or None


def as_json(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys; takes what orjson refuses (lone surrogates, very large integers)."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        return json.dumps(value, sort_keys=True, default=str)


def whole(value: Any) -> int | None:
    """Return ``value`` where it is a whole number that a 64-bit column can hold, else None."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST:
        value = int(value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and abs(value) <= _LARGEST else None


def _entries(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""
