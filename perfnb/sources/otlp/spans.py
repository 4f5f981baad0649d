"""Spans as plain values, the same whether they came as protobuf or as JSON."""

from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

TRACE_ID_DIGITS = 32
SPAN_ID_DIGITS = 16

KINDS = ("INTERNAL", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES = ("UNSET", "OK", "ERROR")


Repairs = Counter[str]
"""What had to be mended, and how often."""


class Event(NamedTuple):
    """Something that happened during a span, or a log record of it; ``time`` in ns since 1970."""

    name: str
    time: int
    attributes: dict[str, Any]


@dataclass(slots=True)
class Span:
    """One span; ids in lower-case hex, times in ns since 1970, kind and status as OTLP numbers."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: int
    start_time: int
    end_time: int
    attributes: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    status: int = 0
    status_message: str = ""


@dataclass(slots=True)
class Group:
    """Spans of one resource and one instrumentation scope."""

    resource: dict[str, Any]
    scope: str
    spans: list[Span]


@dataclass(slots=True)
class Traces:
    """What one export request held: usable spans, how many were not and why, and what had to be repaired."""

    groups: list[Group] = field(default_factory=list)
    rejected: int = 0
    reason: str = ""
    repairs: Repairs = field(default_factory=Counter)

    def add(self, spans: list[Span], span: Span) -> None:
        """Append ``span`` to ``spans``, or reject it where an id or the time is missing."""
        if why := _unusable(span):
            self.reject(f"span {span.name!r}: {why}")
            return
        if span.end_time < span.start_time:
            self.repairs["ends before it starts"] += 1
            span.end_time = span.start_time
        spans.append(span)

    def reject(self, reason: str) -> None:
        """Count a span that can't be used; the first reason is the one told."""
        self.rejected += 1
        self.reason = self.reason or reason


def _unusable(span: Span) -> str:
    if not _is_id(span.trace_id, TRACE_ID_DIGITS):
        return "trace_id must be 16 bytes, not all zero"
    if not _is_id(span.span_id, SPAN_ID_DIGITS):
        return "span_id must be 8 bytes, not all zero"
    if not 0 < span.start_time < 2**63 or not 0 < span.end_time < 2**63:
        return "start and end time must be set"
    return ""


def _is_id(text: str, digits: int) -> bool:
    return len(text) == digits and text.count("0") != digits


def id_from_bytes(raw: bytes, digits: int, repairs: Repairs) -> str:
    """Return the id in hex; one that ``json_format`` had taken for base64 is put right again."""
    if 2 * len(raw) in (0, digits):
        return raw.hex()
    if len(raw) * 4 == digits * 3:  # hex digits that were read as base64: 16 bytes became 24, 8 became 12
        original = b64encode(raw).decode()
        if is_hex(original):
            repairs["id decoded as base64"] += 1
            return original.lower()
    return raw.hex()


def is_hex(text: str) -> bool:
    """Tell whether ``text`` is hex digits alone."""
    try:
        return len(bytes.fromhex(text)) * 2 == len(text)
    except ValueError:
        return False
