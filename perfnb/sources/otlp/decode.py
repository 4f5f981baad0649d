"""OTLP protobuf to plain values.

Traces are read by hand, attribute by attribute, because they are many (about 10 µs a span with ten attributes; the
generic ``MessageToDict`` takes ten times that and loses the ids' meaning). Metrics and logs are few: they become the
same plain documents that OTLP/JSON holds, and one reader serves both.
"""

from base64 import b64encode
from typing import Any

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from perfnb.errors import WrongUse
from perfnb.sources.otlp.spans import SPAN_ID_DIGITS, TRACE_ID_DIGITS, Event, Group, Span, Traces, id_from_bytes

_SCALARS = ("string_value", "int_value", "double_value", "bool_value")


class Malformed(WrongUse):
    """Raised when a body is no OTLP at all."""


def traces_from_protobuf(body: bytes) -> Traces:
    """Return the spans of an ExportTraceServiceRequest (TracesData reads the same); raises Malformed."""
    traces = Traces()
    for resource_spans in _parse(ExportTraceServiceRequest, body).resource_spans:
        resource = attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            spans: list[Span] = []
            for span in scope_spans.spans:
                traces.add(spans, _span(span, traces))
            traces.groups.append(Group(resource, scope_spans.scope.name, spans))
    return traces


def metrics_from_protobuf(body: bytes) -> dict[str, Any]:
    """Return an ExportMetricsServiceRequest as a plain document; raises Malformed."""
    return _plain(_parse(ExportMetricsServiceRequest, body))


def logs_from_protobuf(body: bytes) -> dict[str, Any]:
    """Return an ExportLogsServiceRequest as a plain document; raises Malformed."""
    return _plain(_parse(ExportLogsServiceRequest, body))


def _parse(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Malformed(f"no {kind.DESCRIPTOR.name}: {error}", hint="send OTLP protobuf") from None


def _span(span: Any, traces: Traces) -> Span:
    repairs = traces.repairs
    return Span(
        id_from_bytes(span.trace_id, TRACE_ID_DIGITS, repairs),
        id_from_bytes(span.span_id, SPAN_ID_DIGITS, repairs),
        id_from_bytes(span.parent_span_id, SPAN_ID_DIGITS, repairs) or None,
        span.name,
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        attributes(span.attributes),
        [Event(event.name, event.time_unix_nano, attributes(event.attributes)) for event in span.events],
        span.status.code,
        span.status.message,
    )


def attributes(pairs: Any) -> dict[str, Any]:
    """Return repeated KeyValue as a dict; a later value of the same key wins, empty keys are left out."""
    found = {}
    for pair in pairs:
        value = pair.value
        which = value.WhichOneof("value")
        found[pair.key] = getattr(value, which) if which in _SCALARS else _composite(value, which)
    found.pop("", None)  # a key must not be empty
    return found


def _composite(value: Any, which: str | None) -> Any:
    if which == "array_value":
        return [_any_value(each) for each in value.array_value.values]
    if which == "kvlist_value":
        return attributes(value.kvlist_value.values)
    if which == "bytes_value":
        return b64encode(value.bytes_value).decode()
    return None


def _any_value(value: Any) -> Any:
    which = value.WhichOneof("value")
    return getattr(value, which) if which in _SCALARS else _composite(value, which)


def _plain(message: Message) -> dict[str, Any]:
    """Return ``message`` as OTLP/JSON has it, with snake_case keys, ids in hex and whole numbers."""
    return {field.name: _plain_value(field.name, value) for field, value in message.ListFields()}


def _plain_value(name: str, value: Any) -> Any:
    if isinstance(value, Message):
        return _plain(value)
    if isinstance(value, bytes):
        return value.hex() if name.endswith("_id") else b64encode(value).decode()
    if isinstance(value, (str, int, float)):
        return value
    return [_plain_value(name, each) for each in value]
