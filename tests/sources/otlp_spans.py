"""Spans for tests in a line, and the rows they become."""

from typing import Any

from perfnb.prompts.digest import Digester
from perfnb.sources.otlp.rows import RowMaker
from perfnb.sources.otlp.spans import Event, Group, Span

START = 1_790_000_000_000_000_000
MS = 1_000_000


def span(attributes: dict[str, Any] | None = None, *, ms: float = 2000, name: str = "work", **fields: Any) -> Span:
    given: dict[str, Any] = {
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "parent_span_id": None,
        "name": name,
        "kind": 1,
        "start_time": START,
        "end_time": START + round(ms * MS),
        "attributes": attributes or {},
    }
    return Span(**(given | fields))


def event(name: str, at_ms: float = 0, **attributes: Any) -> Event:
    return Event(name, START + round(at_ms * MS), attributes)


def rows(*spans: Span, scope: str = "test", content: str = "digest") -> dict[str, list[dict[str, Any]]]:
    maker = RowMaker(Digester(b"k" * 32, content), content)  # type: ignore[arg-type]
    return maker.rows([Group({"service.name": "app"}, scope, list(spans))])


def row(attributes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the one row of ``spans`` that a span with ``attributes`` becomes."""
    return rows(span(attributes, **fields))["spans"][0]


def call(attributes: dict[str, Any], *, scope: str = "test", content: str = "digest", **fields: Any) -> dict[str, Any]:
    """Return the one row of ``llm_calls`` that a span with ``attributes`` becomes."""
    (made,) = rows(span(attributes, **fields), scope=scope, content=content)["llm_calls"]
    return made
