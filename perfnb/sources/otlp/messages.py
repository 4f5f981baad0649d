"""One message in any dialect's shape, as OpenAI's chat protocol has it.

Seen in the wild: OpenAI, Anthropic and Bedrock messages, OpenTelemetry's parts, OpenInference's and OpenLLMetry's
indexed attributes once nested again, the AI SDK's content parts.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from perfnb.prompts.prompt import as_json as json_text
from perfnb.sources.otlp.dialects import as_json

Object = Mapping[str, Any]

_ROLES = {"human": "user", "ai": "assistant", "model": "assistant", "function": "tool", "bot": "assistant"}
_CALLS = ("tool_call", "tool_use", "tool-call", "function_call", "server_tool_call")
_RESULTS = ("tool_call_response", "tool_result", "tool-result", "function_call_output", "server_tool_call_response")


def messages_of(given: Any, role: str = "user") -> list[dict[str, Any]]:
    """Return what ``given`` says as OpenAI messages: a JSON text, one message, a list of them, or a request body.

    ``role`` is that of a message that doesn't tell. Results of tools become messages of their own.
    """
    given = as_json(given)
    if isinstance(given, str):
        return [{"role": role, "content": given}] if given else []
    if isinstance(given, list):
        return [message for each in given for message in messages_of(each, role)]
    if not isinstance(given, Mapping):
        return []
    for key in ("messages", "choices", "candidates"):
        if isinstance(as_json(given.get(key)), list):
            return [*_system(given), *messages_of(as_json(given[key]), role)]
    return _message(given, role)


def _system(body: Object) -> list[dict[str, Any]]:
    system = body.get("system") or body.get("instructions")
    return messages_of(system, "system") if system else []


def _message(given: Object, role: str) -> list[dict[str, Any]]:
    inner = as_json(given.get("message"))
    if isinstance(inner, Mapping):
        return _message({**given, **inner, "message": None}, role)
    own = str(given.get("role") or role).lower()
    own = _ROLES.get(own, own)
    message: dict[str, Any] = {"role": own, "content": [], "tool_calls": _tool_calls(given.get("tool_calls"))}
    results: list[dict[str, Any]] = []
    for part in _parts(given, inner):
        _put(part, message, results)
    answers = given.get("tool_call_id") or (given.get("id") if own == "tool" else None)
    if answers:
        message["tool_call_id"] = str(answers)
    return [_plain(message), *results] if message["content"] or message["tool_calls"] or not results else results


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message of one text and nothing else as its role and the text: most are, and are read far sooner so."""
    content = message["content"]
    if message["tool_calls"] or "tool_call_id" in message or len(content) != 1 or content[0]["type"] != "text":
        return message
    return {"role": message["role"], "content": content[0]["text"]}


def _parts(given: Object, inner: Any) -> list[Any]:
    """Return a message's parts, wherever this dialect keeps them."""
    if isinstance(inner, (str, list)):
        return as_list(inner)
    for key in ("parts", "contents", "content", "text", "prompt", "input", "output", "kwargs"):
        if given.get(key) not in (None, "", []):
            return as_list(as_json(given[key]) if key != "text" else given[key])
    return [given] if str(given.get("type")) in _CALLS + _RESULTS else []


def _put(part: Any, message: dict[str, Any], results: list[dict[str, Any]]) -> None:
    if isinstance(part, str):
        message["content"].append({"type": "text", "text": part})
        return
    if not isinstance(part, Mapping):
        return
    wrapped = part.get("message_content")
    part = wrapped if isinstance(wrapped, Mapping) else part
    kind = str(part.get("type") or "")
    if kind in _CALLS or isinstance(part.get("toolUse"), Mapping):
        message["tool_calls"] += _tool_calls([part.get("toolUse") or part])
    elif kind in _RESULTS or isinstance(part.get("toolResult"), Mapping):
        results.append(_result(part.get("toolResult") or part))
    else:
        message["content"].append(_content(part, kind))


def _content(part: Object, kind: str) -> dict[str, Any]:
    text = next(
        (part[key] for key in ("text", "content", "thinking", "refusal") if isinstance(part.get(key), str)), None
    )
    if text is None or kind in ("blob", "file", "uri", "image", "image_url"):
        return {"type": kind or "other"}
    return {"type": "text", "text": text}


def _result(part: Object) -> dict[str, Any]:
    names = ("response", "result", "output", "content", "server_tool_call_response")
    value = next((part[key] for key in names if part.get(key) is not None), "")
    ids = ("id", "tool_use_id", "toolCallId", "toolUseId", "call_id")
    answers = next((str(part[key]) for key in ids if part.get(key)), "")
    return {"role": "tool", "content": value if isinstance(value, str) else json_text(value), "tool_call_id": answers}


def _tool_calls(given: Any) -> list[dict[str, Any]]:
    calls = []
    for each in as_list(as_json(given)):
        call = as_json(each)
        call = call.get("tool_call", call) if isinstance(call, Mapping) else call
        if isinstance(call, Mapping):
            calls.append(_tool_call(call))
    return calls


def _tool_call(call: Object) -> dict[str, Any]:
    function = call.get("function")
    function = function if isinstance(function, Mapping) else call
    arguments = next((function[key] for key in ("arguments", "args", "input") if function.get(key) is not None), "")
    ids = ("id", "toolCallId", "toolUseId", "call_id", "tool_call_id")
    return {
        "id": next((str(call[key]) for key in ids if call.get(key)), ""),
        "function": {
            "name": str(function.get("name") or function.get("toolName") or ""),
            "arguments": _canonical(arguments),
        },
    }


def _canonical(arguments: Any) -> str:
    """Return arguments as JSON that is the same whether a dialect sends text or data."""
    arguments = as_json(arguments)
    return arguments if isinstance(arguments, str) else json_text(arguments)


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, nothing as none, and anything else as one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def nested(attributes: Mapping[str, Any], prefix: str) -> list[Any]:
    """Return attributes ``PREFIX.N.a.b`` as a list of objects, in order of N."""
    root: dict[str, Any] = {}
    for name, value in attributes.items():
        if name.startswith(prefix):
            _set(root, name.removeprefix(prefix).split("."), value)
    return _lists(root) if root else []


def _set(root: dict[str, Any], path: Iterable[str], value: Any) -> None:
    *parents, last = path
    for part in parents:
        following = root.setdefault(part, {})
        if not isinstance(following, dict):
            return
        root = following
    root[last] = value


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(each) for key, each in value.items()}
