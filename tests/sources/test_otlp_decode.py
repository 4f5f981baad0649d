import base64
import contextlib
import json
from collections import Counter
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtobufSpan

from perfnb.prompts.digest import Digester
from perfnb.sources.otlp.decode import Malformed, traces_from_protobuf
from perfnb.sources.otlp.rows import RowMaker
from perfnb.sources.otlp.spans import Traces
from perfnb.sources.otlp.tolerant import document, identifier, integer, traces_from_document

INT64 = st.integers(-(2**63), 2**63 - 1)
TIME = st.integers(1, 2**63 - 1)


def wrapped(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            made = AnyValue()
            made.array_value.values.extend(map(wrapped, value))
            made.array_value.SetInParent()
            return made
        case dict():
            made = AnyValue()
            made.kvlist_value.values.extend(pairs(value))
            made.kvlist_value.SetInParent()
            return made
    return AnyValue()


def pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=wrapped(value)) for key, value in attributes.items()]


scalars = st.one_of(st.none(), st.booleans(), INT64, st.floats(allow_nan=False), st.text(), st.binary(max_size=20))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6
)
# names that mean something are drawn often, so that the rows differ
names = st.sampled_from(
    ["gen_ai.operation.name", "gen_ai.usage.input_tokens", "http.request.method", "openinference.span.kind", "llm.input_messages.0.message.content"]
)  # fmt: skip
attributes = st.dictionaries(names | st.text(), values, max_size=6)


@st.composite
def spans(draw: Any) -> ProtobufSpan:
    start = draw(TIME)
    span = ProtobufSpan(
        trace_id=draw(st.binary(min_size=16, max_size=16)),
        span_id=draw(st.binary(min_size=8, max_size=8)),
        parent_span_id=draw(st.sampled_from([b"", b"\x01" * 8])),
        name=draw(st.text()),
        kind=draw(st.integers(0, 5)),
        start_time_unix_nano=start,
        end_time_unix_nano=draw(st.integers(start, 2**63 - 1) | st.just(0)),
        attributes=pairs(draw(attributes)),
    )
    span.status.code = draw(st.integers(0, 2))
    span.status.message = draw(st.text())
    for name in draw(st.lists(st.text(), max_size=2)):
        span.events.add(name=name, time_unix_nano=start, attributes=pairs(draw(attributes)))
    return span


@st.composite
def requests(draw: Any) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    resource_spans = made.resource_spans.add()
    resource_spans.resource.attributes.extend(pairs(draw(attributes)))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = draw(st.text())
    scope_spans.spans.extend(draw(st.lists(spans(), max_size=3)))
    return made


def as_json(
    request: ExportTraceServiceRequest, *, ids: str = "hex", enums_as_numbers: bool = True, snake: bool = False
) -> str:
    plain = json_format.MessageToDict(
        request, use_integers_for_enums=enums_as_numbers, preserving_proto_field_name=snake
    )  # fmt: skip
    for resource_spans in plain.get("resource_spans" if snake else "resourceSpans", []):
        for scope_spans in resource_spans.get("scope_spans" if snake else "scopeSpans", []):
            for span in scope_spans.get("spans", []):
                for key in ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"):
                    if key in span and ids != "base64":
                        text = base64.b64decode(span[key]).hex()
                        span[key] = text.upper() if ids == "HEX" else text
    return json.dumps(plain)


def rows(traces: Traces) -> dict[str, Any]:
    return RowMaker(Digester(b"k" * 32)).rows(traces.groups)


@settings(max_examples=150, deadline=None)
@given(requests())
def test_protobuf_and_json_become_the_same_rows(request: ExportTraceServiceRequest) -> None:
    expected = traces_from_protobuf(request.SerializeToString())
    read = traces_from_document(document(as_json(request)))
    assert read.groups == expected.groups
    assert read.rejected == expected.rejected
    assert rows(read) == rows(expected)


@settings(max_examples=60, deadline=None)
@given(requests(), st.sampled_from(["hex", "HEX", "base64"]), st.booleans(), st.booleans())
def test_loose_spellings_are_read_all_the_same(
    request: ExportTraceServiceRequest, ids: str, numbers: bool, snake: bool
) -> None:
    expected = traces_from_protobuf(request.SerializeToString())
    read = traces_from_document(document(as_json(request, ids=ids, enums_as_numbers=numbers, snake=snake)))
    assert read.groups == expected.groups


def test_ids_that_json_format_corrupted_are_put_right() -> None:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(start_time_unix_nano=1, end_time_unix_nano=2)
    span.trace_id, span.span_id, span.parent_span_id = bytes(range(16)), bytes(range(8)), b"\xff" * 8
    corrupted = json_format.Parse(as_json(request), ExportTraceServiceRequest())
    assert len(corrupted.resource_spans[0].scope_spans[0].spans[0].trace_id) == 24
    read = traces_from_protobuf(corrupted.SerializeToString())
    assert read.groups == traces_from_protobuf(request.SerializeToString()).groups
    assert read.repairs == {"id decoded as base64": 3}


@pytest.mark.parametrize(
    ("given_id", "expected", "repaired"),
    [
        ("5B8EFFF798038103D269B633813FC60C", "5b8efff798038103d269b633813fc60c", 0),
        ("5b8efff7-9803-8103-d269-b633813fc60c", "5b8efff798038103d269b633813fc60c", 1),
        ("0x5b8efff798038103d269b633813fc60c", "5b8efff798038103d269b633813fc60c", 1),
        ("W47/95gDgQPSabYzgT/GDA==", "5b8efff798038103d269b633813fc60c", 1),
        ("d269b633813fc60c", "0000000000000000d269b633813fc60c", 1),
        ("not an id", "not an id", 0),
        (17, "", 0),
        (None, "", 0),
    ],
)
def test_ids(given_id: Any, expected: str, repaired: int) -> None:
    repairs: Counter[str] = Counter()
    assert identifier(given_id, 32, repairs) == expected
    assert repairs.total() == repaired


@pytest.mark.parametrize(
    ("raw", "expected"), [("12", 12), (12, 12), (12.0, 12), ("1.5e3", 1500), (None, 0), ("", 0), ("-3", -3)]
)
def test_integers(raw: Any, expected: int) -> None:
    assert integer(raw) == expected


@pytest.mark.parametrize("raw", ["x", "inf", [], 2**64, "1e40", {}])
def test_no_integers(raw: Any) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        integer(raw)


def json_span(**changes: Any) -> dict[str, Any]:
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "work",
        "kind": 1,
        "startTimeUnixNano": "1790000000000000000",
        "endTimeUnixNano": "1790000000500000000",
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span | changes]}]}]}


@pytest.mark.parametrize(
    "changes",
    [
        {"traceId": "0" * 32},
        {"traceId": "abc"},
        {"traceId": None},
        {"spanId": ""},
        {"spanId": "00" * 8},
        {"startTimeUnixNano": 0},
        {"endTimeUnixNano": None},
        {"startTimeUnixNano": "soon"},
        {"startTimeUnixNano": "inf"},
        {"startTimeUnixNano": -5},
        {"startTimeUnixNano": 2**63},
        {"kind": {"a": 1}, "spanId": 5},
    ],
)
def test_unusable_spans_are_rejected_with_a_reason(changes: dict[str, Any]) -> None:
    traces = traces_from_document(json_span(**changes))
    assert (traces.rejected, [group.spans for group in traces.groups]) == (1, [[]])
    assert "'work'" in traces.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": {"deep": [1]}},
        {"attributes": None},
        {"attributes": [None, 1, {"key": 5}, {"value": {}}, {"key": "", "value": {}}]},
        {"events": "none", "links": 7},
        {"kind": "SPAN_KIND_INTERNAL"},
        {"kind": "internal"},
        {"kind": "1"},
        {"parentSpanId": None},
        {"status": {}},
        {"status": "ERROR"},
    ],
)
def test_what_is_not_known_or_odd_is_ignored(changes: dict[str, Any]) -> None:
    traces = traces_from_document(json_span(**changes))
    (span,) = traces.groups[0].spans
    assert (span.kind, span.attributes, span.parent_span_id, traces.rejected) == (1, {}, None, 0)


def test_a_span_that_ends_before_it_starts_takes_no_time() -> None:
    traces = traces_from_document(json_span(endTimeUnixNano="1780000000000000000"))
    (span,) = traces.groups[0].spans
    assert (span.end_time, traces.repairs["ends before it starts"]) == (span.start_time, 1)


def test_attributes_as_a_plain_mapping_and_old_scopes_are_read() -> None:
    body = json_span(attributes={"a": 1})
    body["resourceSpans"][0]["instrumentationLibrarySpans"] = body["resourceSpans"][0].pop("scopeSpans")
    assert traces_from_document(body).groups[0].spans[0].attributes == {"a": 1}


def test_deep_nesting_is_refused_or_read_but_never_fatal() -> None:
    value: Any = {"stringValue": "x"}
    for _ in range(250):
        value = {"arrayValue": {"values": [value]}}
    traces = traces_from_document(json_span(attributes=[{"key": "deep", "value": value}]))
    assert "deep" in traces.groups[0].spans[0].attributes
    for _ in range(800):
        value = {"arrayValue": {"values": [value]}}
    with pytest.raises(Malformed):
        traces_from_document(json_span(attributes=[{"key": "deep", "value": value}]))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"text"', b"\xff\xfe"])
def test_what_is_no_json_object_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        document(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_malformed(body: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert traces_from_protobuf(body).rejected >= 0


json_values = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["resourceSpans", "scopeSpans", "scope_spans", "spans", "attributes", "key", "value", "events", "status", "kind"])
        | st.sampled_from(["traceId", "spanId", "startTimeUnixNano", "stringValue", "arrayValue", "values", "resource", "scope", "name"]),
        inner, max_size=5,
    ),
    max_leaves=30,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.just("resourceSpans"), st.lists(json_values, max_size=2), min_size=1))
def test_any_json_is_read_without_a_crash(body: dict[str, Any]) -> None:
    traces = traces_from_document(body)
    assert traces.rejected >= 0
    rows(traces)
