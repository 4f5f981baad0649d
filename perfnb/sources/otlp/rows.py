"""Spans to rows: every span is one of ``spans``; model calls and served requests are also rows of their own tables.

What spans say in different dialects is written once more under one name each, so that checks need know no dialect:
``perfnb.tool``, ``perfnb.tool_call_id``, ``perfnb.agent``, ``perfnb.top_k``, and for the contents of tools, agents and
retrievals ``perfnb.input_digest``, ``perfnb.output_digest`` with their length in characters.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from perfnb.prompts.digest import Digester
from perfnb.prompts.prompt import as_json as json_text
from perfnb.recording.recording import Content
from perfnb.sources.otlp import classify, contents, parts, texts
from perfnb.sources.otlp.cleaner import Cleaner
from perfnb.sources.otlp.dialects import Reading, as_json, read, table
from perfnb.sources.otlp.routes import route_of
from perfnb.sources.otlp.secrets import scrub
from perfnb.sources.otlp.spans import KINDS, STATUSES, Event, Group, Span
from perfnb.sources.otlp.usage import count, usage

Row = dict[str, Any]

_NAMED = (
    ("tool_name", "perfnb.tool"),
    ("tool_call_id", "perfnb.tool_call_id"),
    ("agent_name", "perfnb.agent"),
    ("top_k", "perfnb.top_k"),
)
_NAMED_AS_REQUEST = re.compile(r"(?P<method>GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS) (?P<path>/\S*)$")
_KEPT_OF_MESSAGES = ("finish_reason", "index", "role", "gen_ai.system", "gen_ai.provider.name")
_DETAILS = ("gen_ai.response.id", "server.address", "gen_ai.usage.cost", "llm.cost.total", "operation.cost")


class RowMaker:
    """Makes rows under one recording's key and content mode."""

    def __init__(self, digester: Digester, content: Content = "digest") -> None:
        self._digester = digester
        self._keeps_text = content == "full"
        self._clean = None if self._keeps_text else Cleaner(digester.digest)
        self._message_events = frozenset(table()["events"]["messages"])
        self._chunk_events = frozenset(table()["events"]["first_token"])

    def rows(self, groups: Iterable[Group]) -> dict[str, list[Row]]:
        """Return the rows of ``groups`` by table; placeholder spans give none."""
        made: dict[str, list[Row]] = {"spans": [], "llm_calls": [], "http_requests": []}
        for group in groups:
            resource = read(group.resource)
            for span in group.spans:
                if not classify.is_placeholder(span):
                    self._add(span, group, resource.kept, made)
        return made

    def _add(self, span: Span, group: Group, resource: Row, made: dict[str, list[Row]]) -> None:
        reading = read(span.attributes, clean=self._clean)
        operation = classify.operation(span, reading)
        row = self._span(span, reading, operation, resource)
        made["spans"].append(row)
        if operation in classify.LLM_OPERATIONS:
            made["llm_calls"].append(self._call(span, reading, row, group.scope))
        elif operation == "server" and (request := _http(span, reading.facts)):
            made["http_requests"].append(self._request(request, row))

    def _span(self, span: Span, reading: Reading, operation: str, resource: Row) -> Row:
        facts = reading.facts
        return {
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_span_id": span.parent_span_id,
            "name": self._name(span),
            "kind": KINDS[span.kind] if 0 <= span.kind < len(KINDS) else KINDS[0],
            "service": resource.get("service.name"),
            "operation": operation,
            "start_time": span.start_time,
            "duration_ms": (span.end_time - span.start_time) / 1e6,
            "status": STATUSES[span.status] if 0 <= span.status < len(STATUSES) else STATUSES[0],
            "error_type": self._label(classify.error_type(span, facts)),
            "statement": self._statement(facts),
            "http_status_code": count(facts.get("http_status")),
            "documents": classify.documents(span, reading) if operation in ("retrieval", "rerank") else None,
            "cache_hit": classify.cache_hit(facts),
            "source": "otlp",
            "attributes": self._attributes(span, reading, operation),
            "events": self._events(span.events),
            "resource": resource,
        }

    def _name(self, span: Span) -> str:
        """Return the span's name; where many share it, with the part of a pipeline that it is."""
        name = self._clean.names[span.name] if self._clean else span.name
        if parts.is_shared(span.name) and (part := parts.part(span)):
            name = f"{name} {self._label(part)}"
        return name

    def _label(self, value: Any) -> Any:
        return self._clean.label(value) if self._clean else value

    def _labelled(self, value: Any) -> str | None:
        text = _text(value)
        return text if text is None else str(self._label(text))

    def _statement(self, facts: Mapping[str, Any]) -> str | None:
        """Return the statement; unless texts are kept, without values: apps may write them into it."""
        text = _text(facts.get("statement"))
        return self._clean.verdicts["statement"][text] if text and self._clean else text

    def _attributes(self, span: Span, reading: Reading, operation: str) -> Row:
        kept = reading.kept
        if self._keeps_text:
            kept |= {
                name: scrub(value) if isinstance(value, str) else value for name, value in reading.contents.items()
            }
        if span.status_message:
            kept["otel.status_description"] = self._message(span.status_message)
        if operation in ("tool", "agent", "retrieval", "rerank", "step"):
            kept |= self._named(reading.facts, operation)
        return kept

    def _message(self, text: str) -> str:
        return self._clean.verdicts["message"][text] if self._clean else scrub(text)[: texts.LONGEST_MESSAGE]

    def _named(self, facts: Mapping[str, Any], operation: str) -> Row:
        named = {name: self._label(facts[fact]) for fact, name in _NAMED if fact in facts}
        if operation in ("tool", "agent") and "entity_name" in facts:
            named.setdefault(f"perfnb.{operation}", self._label(facts["entity_name"]))
        for side in ("input", "output"):
            given = facts.get(side)
            if given is None and side == "output" and operation == "retrieval":
                given = facts.get("documents")
            if given not in (None, "") and not isinstance(given, (int, float)):
                text = json_text(as_json(given))  # the same whatever the spacing and the order of keys
                named[f"perfnb.{side}_digest"] = self._digester.digest(text)
                named[f"perfnb.{side}_characters"] = len(given) if isinstance(given, str) else len(text)
        return named

    def _events(self, events: Iterable[Event]) -> list[Row] | None:
        """Return a span's events; those that repeat with each chunk of an answer once, with their number."""
        made: list[Row] = []
        chunks: dict[str, Row] = {}
        for event in events:
            if event.name in chunks:
                chunks[event.name]["count"] += 1
                continue
            name = self._clean.names[event.name] if self._clean else event.name
            row = {"name": name, "time": event.time, "attributes": self._event_attributes(event)}
            if event.name in self._chunk_events:
                row["count"] = 1
                chunks[event.name] = row
            made.append(row)
        return made or None

    def _event_attributes(self, event: Event) -> Row:
        reading = read(event.attributes, clean=self._clean)
        if self._keeps_text:
            return reading.kept | reading.contents
        if event.name in self._message_events:
            return {name: value for name, value in reading.kept.items() if name in _KEPT_OF_MESSAGES}
        return reading.kept

    def _call(self, span: Span, reading: Reading, row: Row, scope: str) -> Row:
        facts = reading.facts
        chunks = classify.chunk_times(span.events)
        last = (chunks[-1] - span.start_time) / 1e6 if chunks else 0.0
        duration = max(row["duration_ms"], last)  # some end the span of a stream when it begins
        provider = self._labelled(_provider(facts.get("provider")))
        tokens = usage(facts, scope, provider, span.attributes)
        first = classify.first_token_ms(span, facts, duration)
        spoken = contents.said(reading, span.events, row["operation"])
        conversation = facts.get("conversation")
        call = {
            "call_id": f"{span.trace_id}-{span.span_id}",
            **{name: row[name] for name in ("trace_id", "span_id", "parent_span_id", "operation", "start_time")},
            "duration_ms": duration,
            "source": "span",
            "provider": provider,
            "request_model": self._labelled(facts.get("request_model")) or self._labelled(facts.get("response_model")),
            "response_model": self._labelled(facts.get("response_model")),
            "stream": _streams(span, facts, first, scope),
            "time_to_first_token_ms": first,
            "last_token_ms": last if len(chunks) > 1 else None,
            "output_tokens_per_s": _speed(tokens.output_tokens, first, duration),
            "status_code": count(facts.get("http_status")),
            "error_type": classify.call_error(row["error_type"]),
            "input_tokens": tokens.input_tokens,
            "cache_read_tokens": tokens.cache_read_tokens,
            "cache_write_tokens": tokens.cache_write_tokens,
            "output_tokens": tokens.output_tokens,
            "reasoning_tokens": tokens.reasoning_tokens,
            "usage_rule": tokens.rule,
            "tokens_estimated": False if tokens.rule else None,
            "max_tokens": count(facts.get("max_tokens")),
            "temperature": _number(facts.get("temperature")),
            "service_tier": self._labelled(facts.get("service_tier")),
            "finish_reason": self._label(_finish(facts.get("finish_reason"))),
            "conversation_id": self._digester.digest(str(conversation)) if conversation else None,
            "attributes": {name: row["attributes"][name] for name in _DETAILS if name in row["attributes"]},
        }
        return call | contents.columns(spoken, facts, row["operation"], tokens.input_tokens, self._digester)

    def _request(self, facts: Mapping[str, Any], row: Row) -> Row:
        route = _text(facts.get("http_route")) or route_of(_path(facts.get("http_path")))
        return {
            "request_id": f"{row['trace_id']}-{row['span_id']}",
            **{name: row[name] for name in ("trace_id", "span_id", "error_type", "start_time", "duration_ms")},
            "source": "span",
            "method": self._labelled(facts.get("http_method")),
            "route": self._clean.verdicts["path"][route] if route and self._clean else route,
            "status_code": row["http_status_code"],
            "cache_status": {True: "hit", False: "miss"}.get(row["cache_hit"]),
            "request_bytes": count(facts.get("http_request_bytes")),
            "response_bytes": count(facts.get("http_response_bytes")),
        }


def _http(span: Span, facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what tells of an HTTP request; where no attribute does, the span's name may: ``POST /chat``."""
    if "http_method" in facts or "http_route" in facts:
        return facts
    named = _NAMED_AS_REQUEST.match(span.name)
    return {**facts, "http_method": named["method"], "http_path": named["path"]} if named else {}


def _path(given: Any) -> str:
    text = str(given or "")
    try:
        return urlsplit(text).path if "://" in text else text.partition("?")[0]
    except ValueError:
        return text.partition("?")[0]


def _streams(span: Span, facts: Mapping[str, Any], first_token_ms: float | None, scope: str) -> bool | None:
    told = table()["streams_are_told"]
    if (given := facts.get("stream")) is not None:
        streams = given if isinstance(given, bool) else str(given).lower() in ("true", "1", "yes")
        if streams or not scope.startswith(tuple(told["only_true"])):
            return streams
        return True if first_token_ms is not None else None
    if first_token_ms is not None:
        return True
    is_told = scope.startswith(tuple(told["scopes"])) or any(name in span.attributes for name in told["attributes"])
    return False if is_told else None


def _provider(given: Any) -> str | None:
    """Return the provider in lower case; the AI SDK adds the kind of model (``openai.chat``)."""
    name = str(given).lower() if given else None
    return (
        name.partition(".")[0]
        if name and name.endswith((".chat", ".responses", ".messages", ".completion", ".embedding"))
        else name
    )


def _text(value: Any) -> str | None:
    if value in (None, ""):
        return None
    return scrub(value).strip('"') if isinstance(value, str) else str(value)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError):
        return None


def _finish(value: Any) -> str | None:
    value = as_json(value)
    first = value[0] if isinstance(value, list) and value else value
    name = _text(first) if not isinstance(first, list) else None
    return {"tool_call": "tool_calls", "tool-calls": "tool_calls"}.get(name, name) if name else None


def _speed(output_tokens: int | None, first_token_ms: float | None, duration_ms: float) -> float | None:
    if not output_tokens or output_tokens < 2 or first_token_ms is None or duration_ms <= first_token_ms:
        return None
    return (output_tokens - 1) / (duration_ms - first_token_ms) * 1000
