"""What was said in a model call, from wherever its span or its log records carry it, turned into digests."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from perfnb.prompts.digest import Digester, scale_tokens
from perfnb.prompts.prompt import Tool, text_of
from perfnb.sources.otlp.dialects import Reading, as_json, read, table
from perfnb.sources.otlp.messages import as_list, messages_of, nested
from perfnb.sources.otlp.spans import Event

_PATHS = {"embeddings": "/v1/embeddings", "text_completion": "/v1/completions"}
_REQUEST_COLUMNS = (
    "request_digest", "prompt_digest", "tools_offered", "tool_schema_tokens", "inputs", "messages", "system_tokens",
    "history_messages", "history_tokens", "passages", "passage_tokens",
)  # fmt: skip


@dataclass
class Said:
    """Messages of one call, as OpenAI's protocol has them: asked, answered, and the tools on offer."""

    asked: list[Any] = field(default_factory=list)
    answered: list[dict[str, Any]] = field(default_factory=list)
    tools: list[Any] = field(default_factory=list)


def said(reading: Reading, events: Iterable[Event], operation: str) -> Said:
    """Return what a call's span carries: attributes first, then its events, then a generic input and output."""
    facts, contents = dict(reading.facts), dict(reading.contents)
    from_events = Said()
    for event in events:
        _hear(event, from_events, facts, contents)
    if operation == "embeddings":
        return Said(asked=_texts(facts, contents))
    return Said(
        _system(facts) + (_asked(facts, contents) or from_events.asked or messages_of(facts.get("input"))),
        _answered(facts, contents) or from_events.answered or messages_of(facts.get("output"), "assistant"),
        _tools(facts, contents),
    )


def _hear(event: Event, heard: Said, facts: dict[str, Any], contents: dict[str, Any]) -> None:
    """Add what one message event says; those that carry whole lists add to the facts instead."""
    if event.name not in _message_events():
        return
    role = event.name.removeprefix("gen_ai.").removesuffix(".message")
    if event.name == "gen_ai.choice":
        heard.answered += messages_of(event.attributes, "assistant")
    elif event.name.endswith(".message"):
        heard.asked += messages_of({"role": role, **event.attributes}, role)
    else:
        reading = read(event.attributes)
        for name, value in (reading.facts | reading.contents).items():
            (facts if name in reading.facts else contents).setdefault(name, value)


def _message_events() -> frozenset[str]:
    return frozenset(table()["events"]["messages"])


def _system(facts: Mapping[str, Any]) -> list[Any]:
    parts = as_json(facts.get("system"))
    if not parts:
        return []
    return messages_of({"role": "system", "parts": as_list(parts)}, "system")


def _asked(facts: Mapping[str, Any], contents: Mapping[str, Any]) -> list[Any]:
    if (given := facts.get("input_messages")) is not None:
        return messages_of(given)
    for prefix in ("llm.input_messages.", "gen_ai.prompt."):
        if found := nested(contents, prefix):
            return messages_of(found)
    for name in ("events", "all_messages_events"):
        if isinstance(events := as_json(contents.get(name)), list):
            return messages_of([each for each in events if not _is_choice(each)])
    return []


def _answered(facts: Mapping[str, Any], contents: Mapping[str, Any]) -> list[Any]:
    if (given := facts.get("output_messages")) is not None:
        return messages_of(given, "assistant")
    for prefix in ("llm.output_messages.", "gen_ai.completion."):
        if found := nested(contents, prefix):
            return messages_of(found, "assistant")
    if isinstance(events := as_json(contents.get("events")), list):
        return messages_of([each for each in events if _is_choice(each)], "assistant")
    text, calls = facts.get("response_text"), facts.get("response_tool_calls")
    return messages_of({"content": text, "tool_calls": calls}, "assistant") if text or calls else []


def _is_choice(event: Any) -> bool:
    return isinstance(event, Mapping) and event.get("event.name") == "gen_ai.choice"


def _tools(facts: Mapping[str, Any], contents: Mapping[str, Any]) -> list[Any]:
    given = as_json(facts.get("tools"))
    if given is None:
        found = nested(contents, "llm.tools.") or nested(contents, "llm.request.functions.")
        given = [each.get("tool", each) if isinstance(each, dict) else each for each in found]
        given = [each.get("json_schema", each) if isinstance(each, dict) else each for each in given]
    return [as_json(each) for each in as_list(given)]


def _texts(facts: Mapping[str, Any], contents: Mapping[str, Any]) -> list[str]:
    """Return the texts that were embedded."""
    found = nested(contents, "embedding.embeddings.")
    texts = [each.get("embedding", {}).get("text") for each in found if isinstance(each, dict)]
    if not any(texts):
        given = as_json(facts.get("input"))
        given = given.get("input", given.get("values")) if isinstance(given, Mapping) else given
        texts = [as_json(each) for each in as_list(given)]
    if not any(texts):
        texts = [text_of(message["content"])[0] for message in messages_of(facts.get("input_messages"))]
    return [text for text in texts if isinstance(text, str)]


def columns(
    spoken: Said, facts: Mapping[str, Any], operation: str, input_tokens: int | None, digester: Digester
) -> dict[str, Any]:
    """Return the ``llm_calls`` columns that a call's messages tell; none of them where nothing was captured."""
    found: dict[str, Any] = {}
    if spoken.asked:
        body = _body(spoken, facts, operation)
        digested = digester.request(body, _PATHS.get(operation, "/v1/chat/completions"))
        if input_tokens:
            digested = scale_tokens(digested, input_tokens)
        found |= {name: digested[name] for name in _REQUEST_COLUMNS}
    if spoken.answered:
        text = "\n".join(filter(None, (text_of(message["content"])[0] for message in spoken.answered)))
        calls = [call for message in spoken.answered for call in message.get("tool_calls", [])]
        found |= digester.answer(text, [_tool(call) for call in calls])
    return found


def _body(spoken: Said, facts: Mapping[str, Any], operation: str) -> dict[str, Any]:
    key = {"embeddings": "input", "text_completion": "prompt"}.get(operation, "messages")
    asked = [text_of(each["content"])[0] for each in spoken.asked] if key == "prompt" else spoken.asked
    settings = {name: facts[fact] for name, fact in (("max_tokens",) * 2, ("temperature",) * 2) if fact in facts}
    return {
        "model": facts.get("request_model"),
        key: asked,
        **settings,
        **({"tools": spoken.tools} if spoken.tools else {}),
    }


def _tool(call: Mapping[str, Any]) -> Tool:
    function = call["function"]
    return Tool(function["name"], function["arguments"], call["id"])
