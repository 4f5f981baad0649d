"""OTLP/JSON to plain values, as tolerant as the emitters in the wild are loose.

``google.protobuf.json_format`` reads the hex ids as base64 and so corrupts them without an error; hence this reader. It
takes hex ids in any case, with dashes, base64 ids and ids that ``json_format`` has already corrupted; enums as numbers
or names; 64-bit integers as strings or numbers; lowerCamelCase or snake_case; and ignores unknown fields. What it had
to repair is counted. Source: OTLP specification, "JSON Protobuf Encoding".
"""

from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Callable, Iterator
from math import isfinite
from typing import Any

import orjson

from perfnb.sources.otlp.decode import Malformed
from perfnb.sources.otlp.spans import (
    SPAN_ID_DIGITS,
    TRACE_ID_DIGITS,
    Event,
    Group,
    Repairs,
    Span,
    Traces,
    id_from_bytes,
    is_hex,
)

_KIND_NAMES = {"UNSPECIFIED": 0, "INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
_STATUS_NAMES = {"UNSET": 0, "OK": 1, "ERROR": 2}

Object = dict[str, Any]


def document(body: bytes | str) -> Object:
    """Return the JSON object in ``body``; raises Malformed."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"no JSON: {error}", hint="send OTLP/JSON") from None
    if not isinstance(parsed, dict):
        raise Malformed(f"a JSON object was expected, not {type(parsed).__name__}", hint="send OTLP/JSON")
    return parsed


def traces_from_document(parsed: Object) -> Traces:
    """Return the spans of an ExportTraceServiceRequest or TracesData; raises Malformed."""
    traces = Traces()
    try:
        for resource_spans in objects(parsed, "resourceSpans", "resource_spans"):
            resource = attributes(an_object(resource_spans, "resource", "resource"))
            for scope_spans in scopes_of(resource_spans):
                traces.groups.append(_group(scope_spans, resource, traces))
    except RecursionError:
        raise Malformed("attributes are nested too deeply", hint="send flatter attributes") from None
    return traces


def scopes_of(resource_spans: Object) -> Iterator[Object]:
    """Yield scope spans; ``instrumentationLibrarySpans`` is what they were called before OTLP 0.15."""
    yield from objects(resource_spans, "scopeSpans", "scope_spans")
    yield from objects(resource_spans, "instrumentationLibrarySpans", "instrumentation_library_spans")


def _group(scope_spans: Object, resource: Object, traces: Traces) -> Group:
    scope = an_object(scope_spans, "scope", "instrumentationLibrary")
    spans: list[Span] = []
    for each in objects(scope_spans, "spans", "spans"):
        try:
            traces.add(spans, _span(each, traces.repairs))
        except (TypeError, ValueError) as error:
            traces.reject(f"span {each.get('name')!r}: {error}")
    return Group(resource, text(scope.get("name")), spans)


def _span(span: Object, repairs: Repairs) -> Span:
    if "trace_id" in span:
        repairs["snake_case keys"] += 1
    status = an_object(span, "status", "status")
    return Span(
        identifier(field(span, "traceId", "trace_id"), TRACE_ID_DIGITS, repairs),
        identifier(field(span, "spanId", "span_id"), SPAN_ID_DIGITS, repairs),
        identifier(field(span, "parentSpanId", "parent_span_id"), SPAN_ID_DIGITS, repairs) or None,
        text(span.get("name")),
        _enum(span.get("kind"), "SPAN_KIND_", _KIND_NAMES, repairs),
        integer(field(span, "startTimeUnixNano", "start_time_unix_nano")),
        integer(field(span, "endTimeUnixNano", "end_time_unix_nano")),
        attributes(span),
        [_event(event) for event in objects(span, "events", "events")],
        _enum(status.get("code"), "STATUS_CODE_", _STATUS_NAMES, repairs),
        text(status.get("message")),
    )


def _event(event: Object) -> Event:
    return Event(text(event.get("name")), integer(field(event, "timeUnixNano", "time_unix_nano")), attributes(event))


def field(parent: Object, camel: str, snake: str) -> Any:
    """Return a field by its JSON name, else by its protobuf name."""
    value = parent.get(camel)
    return parent.get(snake) if value is None else value


def an_object(parent: Object, camel: str, snake: str) -> Object:
    """Return a message field; what is missing or no object is empty."""
    value = field(parent, camel, snake)
    return value if isinstance(value, dict) else {}


def objects(parent: Object, camel: str, snake: str) -> list[Object]:
    """Return a repeated message field; what is no object is left out."""
    value = field(parent, camel, snake)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def attributes(parent: Object) -> Object:
    """Return the attributes of ``parent``: OTLP's list of key and value, or a plain mapping as some exporters write."""
    pairs = parent.get("attributes")
    if isinstance(pairs, dict):
        return dict(pairs)
    return _key_values(pairs)


def _key_values(pairs: Any) -> Object:
    found: Object = {}
    for pair in pairs if isinstance(pairs, list) else ():
        if isinstance(pair, dict) and isinstance(pair.get("key"), str) and pair["key"]:
            found[pair["key"]] = any_value(pair.get("value"))
    return found


def any_value(value: Any) -> Any:
    """Return an AnyValue as a plain value; a value that isn't wrapped stays as it is."""
    if not isinstance(value, dict):
        return value
    for name, raw in value.items():
        if (read := _VALUE_READERS.get(name)) is not None:
            return read(raw)
    return None


def _array(raw: Any) -> list[Any]:
    values = raw.get("values") if isinstance(raw, dict) else raw
    return [any_value(each) for each in values] if isinstance(values, list) else []


def _double(raw: Any) -> float | None:
    try:
        return float(raw)  # "NaN", "Infinity" and numbers as strings are allowed
    except (TypeError, ValueError):
        return None


def _as_is(raw: Any) -> Any:
    return raw


def _whole(raw: Any) -> int | None:
    try:
        return integer(raw)
    except (TypeError, ValueError):
        return None


_VALUE_READERS: dict[str, Callable[[Any], Any]] = {
    "stringValue": _as_is,
    "string_value": _as_is,
    "intValue": _whole,
    "int_value": _whole,
    "doubleValue": _double,
    "double_value": _double,
    "boolValue": _as_is,
    "bool_value": _as_is,
    "bytesValue": _as_is,
    "bytes_value": _as_is,
    "arrayValue": _array,
    "array_value": _array,
    "kvlistValue": lambda raw: _key_values(raw.get("values") if isinstance(raw, dict) else raw),
    "kvlist_value": lambda raw: _key_values(raw.get("values") if isinstance(raw, dict) else raw),
}


def integer(raw: Any) -> int:
    """Return a 64-bit integer given as string or number; nothing is 0; raises ValueError or TypeError."""
    if raw is None or raw == "":
        return 0
    value = raw if isinstance(raw, int) else _integer_of_text(raw) if isinstance(raw, str) else _integer_of_float(raw)
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"{value} does not fit into 64 bits")
    return value


def _integer_of_text(raw: str) -> int:
    try:
        return int(raw)
    except ValueError:
        return _integer_of_float(float(raw))  # "1.7e18"


def _integer_of_float(raw: float) -> int:
    if not isfinite(raw):
        raise ValueError(f"{raw} is no whole number")
    return int(raw)


def text(raw: Any) -> str:
    """Return a string field; nothing is empty."""
    return raw if isinstance(raw, str) else "" if raw is None else str(raw)


def identifier(raw: Any, digits: int, repairs: Repairs) -> str:
    """Return an id in lower-case hex, or what was given where it is no id."""
    if not isinstance(raw, str) or not raw:
        return ""
    if len(raw) == digits and is_hex(raw):
        return raw.lower()
    plain = raw.replace("-", "").removeprefix("0x")
    if is_hex(plain) and len(plain) <= digits:
        repairs["id with dashes, prefix or too short"] += 1
        return plain.lower().rjust(digits, "0")
    if is_hex(plain):
        return id_from_bytes(bytes.fromhex(plain), digits, repairs)
    return _from_base64(raw, digits, repairs)


def _from_base64(raw: str, digits: int, repairs: Repairs) -> str:
    try:
        decoded = b64decode(raw, validate=True)
    except (BadBase64, ValueError):
        return raw
    if 2 * len(decoded) != digits:
        return raw
    repairs["id in base64"] += 1
    return decoded.hex()


def _enum(raw: Any, prefix: str, names: dict[str, int], repairs: Repairs) -> int:
    if isinstance(raw, int):
        return raw if 0 <= raw < len(names) else 0
    if not isinstance(raw, str):
        return 0
    if raw.isdigit():
        return _enum(int(raw), prefix, names, repairs)
    repairs["enum as a name"] += 1
    return names.get(raw.upper().removeprefix(prefix), 0)
