"""What kind of work a span is, and what became of it."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from perfnb.sources.otlp.dialects import Reading, as_json, table
from perfnb.sources.otlp.spans import Event, Span

SERVER, CLIENT = 2, 3

LLM_OPERATIONS = frozenset({"chat", "text_completion", "embeddings"})

_INDEXED_DOCUMENT = re.compile(r"^(?:retrieval|reranker\.output)[._]documents\.(\d+)\.")
_HITS = {"hit": True, "true": True, "1": True, "miss": False, "false": False, "0": False, "none": False}
_MEASURED = ("input_tokens", "output_tokens", "first_token", "input_messages", "finish_reason")


@cache
def _kinds() -> list[tuple[str, dict[str, str]]]:
    return [
        (
            kind["attribute"],
            {name: operation for operation, names in kind.items() if operation != "attribute" for name in names},
        )
        for kind in table()["kind"]
    ]


def operation(span: Span, reading: Reading) -> str:
    """Return what is done: a model call (chat, text_completion, embeddings), rerank, retrieval, tool, agent, database,
    cache, http, server, rpc, message or step.

    What the emitter says comes first; a span that only looks like a model call, an agent's sum for instance, is none.
    """
    for attribute, values in _kinds():
        value = span.attributes.get(attribute)
        if value is not None:
            known = values.get(str(value).strip('"').partition(" ")[0])
            if known is not None:
                return known
    return _from_facts(span, reading.facts) or _from_protocol(span, reading)


def _from_facts(span: Span, facts: Mapping[str, Any]) -> str | None:
    if "tool_name" in facts or "tool_call_id" in facts:
        return "tool"
    if "agent_name" in facts:
        return "agent"
    has_model = "request_model" in facts or "response_model" in facts
    if has_model and any(name in facts for name in _MEASURED):
        return "chat"
    return None


def _from_protocol(span: Span, reading: Reading) -> str:
    facts, attributes = reading.facts, span.attributes
    if "db_system" in facts:
        return "retrieval" if _is_search(span, facts) else "database"
    if span.kind == SERVER:
        return "server"
    if "rpc.system" in attributes or "rpc.system.name" in attributes:
        return "rpc"
    if "messaging.system" in attributes:
        return "message"
    if span.kind == CLIENT and ("http_method" in facts or "http_path" in facts):
        return "http"
    return "cache" if "cache_hit" in facts and _is_cache(span) else "step"


def _is_cache(span: Span) -> bool:
    return "cache" in span.name.lower() or "cache.key" in span.attributes


def _is_search(span: Span, facts: Mapping[str, Any]) -> bool:
    stores = table()["vector_stores"]
    if str(facts["db_system"]).lower() not in stores["systems"]:
        return False
    done = str(facts.get("db_operation") or span.name).lower().rpartition(".")[2]
    return (
        done in stores["searches"]
        or "top_k" in facts
        or any(e.name in table()["events"]["documents"] for e in span.events)
    )


def is_placeholder(span: Span) -> bool:
    """Tell whether a span only announces another one, as Logfire's pending spans do."""
    return any(span.attributes.get(name) in values for name, values in table()["placeholders"].items())


def documents(span: Span, reading: Reading) -> int | None:
    """Return how many documents a retrieval returned, where the span tells."""
    given = as_json(reading.facts.get("documents"))
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return int(given)
    if isinstance(given, list):
        return len(given)
    found = {m[1] for name in span.attributes if (m := _INDEXED_DOCUMENT.match(name))}
    events = sum(event.name in table()["events"]["documents"] for event in span.events)
    return len(found) or events or None


def cache_hit(facts: Mapping[str, Any]) -> bool | None:
    """Return whether a cache answered, where the span tells."""
    value = facts.get("cache_hit")
    return value if isinstance(value, bool) or value is None else _HITS.get(str(value).lower())


def error_type(span: Span, facts: Mapping[str, Any]) -> str | None:
    """Return error.type, else the recorded exception's type, else the HTTP status of a span that failed."""
    if (given := facts.get("error_type")) is not None:
        return str(given)
    thrown = [event.attributes.get("exception.type") for event in span.events if event.name == "exception"]
    if thrown and thrown[-1]:
        return str(thrown[-1])
    if span.status != 2:
        return None
    return str(facts.get("http_status") or "error")


@cache
def _errors() -> dict[str, str]:
    return {name: normal for normal, names in table()["errors"].items() for name in names}


def call_error(given: str | None) -> str | None:
    """Return a model call's error as rate_limit, timeout, connection, server_error or client_error, else as given."""
    if given is None:
        return None
    return _errors().get(given) or _errors().get(given.rpartition(".")[2]) or given


def first_token_ms(span: Span, facts: Mapping[str, Any], duration_ms: float) -> float | None:
    """Return the time to the first token, from an attribute in its unit, else from the first event that marks it."""
    if "first_token" in facts:
        value, unit = facts["first_token"]
        found = _since_start(value, span) if unit == "time" else _in_ms(value, unit, duration_ms)
        if found is not None and 0 <= found <= duration_ms * 1.05 + 1:
            return min(found, duration_ms)
    marks = chunk_times(span.events)
    return max((marks[0] - span.start_time) / 1e6, 0.0) if marks else None


def chunk_times(events: Iterable[Event]) -> list[int]:
    """Return when chunks of the answer came, in order."""
    names = table()["events"]["first_token"]
    return sorted(event.time for event in events if event.name in names)


def _in_ms(value: Any, unit: str, duration_ms: float) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if unit == "ms":
        return number
    if unit == "s":
        return number * 1e3
    is_whole = isinstance(value, int)
    guesses = (1.0, 1e-6) if is_whole else (1e3, 1.0, 1e-6)
    return next((number * factor for factor in guesses if number * factor <= duration_ms * 1.05 + 1), None)


def _since_start(value: Any, span: Span) -> float | None:
    from perfnb.sources.times import as_nanoseconds

    try:
        return (as_nanoseconds(str(value).strip('"')) - span.start_time) / 1e6
    except ValueError:
        return None
