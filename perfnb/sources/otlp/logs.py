"""OTLP log records: those that carry a model call's messages wait, in memory and for a while, for the call's span.

GenAI instrumentations may send messages as log records instead of attributes. Log processors export every second, span
processors every five, and the record is made before its span ends: it usually comes first. A record that comes after
its span is counted as too late. No log record is written anywhere.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

import orjson

from perfnb.sources.otlp import tolerant
from perfnb.sources.otlp.dialects import table
from perfnb.sources.otlp.spans import Event, Group, Repairs

Object = dict[str, Any]
Key = tuple[str, str]

WAITING_BYTES = 64 * 2**20


def records(document: Object) -> Iterator[Object]:
    """Yield the log records of an ExportLogsServiceRequest or LogsData document."""
    for resource_logs in tolerant.objects(document, "resourceLogs", "resource_logs"):
        for scope_logs in tolerant.objects(resource_logs, "scopeLogs", "scope_logs"):
            yield from tolerant.objects(scope_logs, "logRecords", "log_records")


class Waiting:
    """Message events whose span has not come yet, the oldest dropped when they take more than ``limit_bytes``."""

    def __init__(self, limit_bytes: int = WAITING_BYTES) -> None:
        self._limit = limit_bytes
        self._events: OrderedDict[Key, list[tuple[Event, int]]] = OrderedDict()
        self._bytes = 0
        self._names = frozenset(table()["events"]["messages"])

    def add(self, record: Object) -> bool:
        """Keep ``record`` if it carries messages of a call; return whether it does."""
        named = message_event(record, self._names)
        if named is None:
            return False
        key, event = named
        size = len(orjson.dumps(event.attributes, default=str))
        self._events.setdefault(key, []).append((event, size))
        self._bytes += size
        while self._bytes > self._limit:
            self._bytes -= sum(size for _, size in self._events.popitem(last=False)[1])
        return True

    def give_to(self, groups: list[Group]) -> int:
        """Add what waited to the spans it belongs to; return how many records found theirs."""
        given = 0
        if not self._events:
            return given
        for group in groups:
            for span in group.spans:
                waited = self._events.pop((span.trace_id, span.span_id), ())
                span.events = [*span.events, *(event for event, _ in waited)]
                self._bytes -= sum(size for _, size in waited)
                given += len(waited)
        return given

    def __len__(self) -> int:
        return sum(map(len, self._events.values()))


def message_event(record: Object, names: frozenset[str]) -> tuple[Key, Event] | None:
    """Return which span a record belongs to and what it says, if it carries messages of a model call."""
    attributes = tolerant.attributes(record)
    name = tolerant.field(record, "eventName", "event_name") or attributes.get("event.name")
    if name not in names:
        return None
    key = (
        tolerant.identifier(tolerant.field(record, "traceId", "trace_id"), 32, _IGNORED),
        tolerant.identifier(tolerant.field(record, "spanId", "span_id"), 16, _IGNORED),
    )
    body = tolerant.any_value(record.get("body"))
    said = body if isinstance(body, dict) else {"content": body} if isinstance(body, str) else {}
    time = tolerant.integer(tolerant.field(record, "timeUnixNano", "time_unix_nano"))
    return (key, Event(str(name), time, attributes | said)) if all(key) else None


_IGNORED: Repairs = Counter()
