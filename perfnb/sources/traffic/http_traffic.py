"""Turn a captured exchange with the app into a row of ``http_requests``: the front and the probe share these rules."""

import re
import secrets
from collections.abc import Iterator
from typing import Any

from perfnb.prompts.digest import Digester
from perfnb.recording.journal import Row
from perfnb.sources.content import as_json_value, error_in, lines, look_into
from perfnb.sources.traffic.encoding import UnknownEncoding, plain
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.sse import events
from perfnb.sources.traffic.traceparent import caller

_SKETCHED_BYTES = 256 * 2**10

_ENDS = {
    "timeout": "timeout",
    "disconnected": "disconnected",
    "unfinished": "unfinished",
    "unreachable": "connection",
    "broken": "connection",
}
_ID = re.compile(
    r"\d+|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?=[^/]*\d)[0-9a-f]{12,}"
    r"|(?=[^/]*\d)[A-Za-z]{1,12}[_-][A-Za-z0-9]{10,}|(?=[^/]*\d)(?=[^/]*[A-Za-z])[A-Za-z0-9_-]{20,}|[^/]*[%@][^/]*|.{65,}",
    re.I,
)
_CACHE_HEADERS = ("cache-status", "x-cache", "cf-cache-status", "x-cache-status")
LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/stream+json")


def request_row(exchange: Exchange, digester: Digester, source: str, *, phase: str | None = None) -> Row:
    """Return one request to the app, with what its answer's body tells."""
    row = timing(exchange, source, phase=phase)
    body = exchange.request_body
    if body:
        row["body_digest"] = digester.digest(body.decode("utf-8", "surrogateescape"))
    elif exchange.query:
        row["body_digest"] = digester.digest(exchange.query)
    row["body_sketch"] = digester.sketch(_text_sent(exchange, body))
    first, error = _look_into(exchange)
    row["time_to_first_content_ms"] = first
    if error and (exchange.status or 0) < 400:
        row["error_in_body"] = True
    row["error_type"] = row["error_type"] or error
    return row


def timing(exchange: Exchange, source: str, *, phase: str | None = None) -> dict[str, Any]:
    """Return the columns that need no look into the bodies."""
    trace_id, _ = caller(exchange.request_headers.get("traceparent", ""))
    got = exchange.response_headers
    is_event_stream = got.get("content-type", "").startswith(("text/event-stream", *LINES))
    return {
        "request_id": secrets.token_hex(8),
        "trace_id": trace_id,
        "source": source,
        "method": exchange.method,
        "route": route(exchange.path),
        "status_code": exchange.status,
        "error_type": _ENDS.get(exchange.end),
        "error_in_body": False,
        "start_time": exchange.started_ns,
        "duration_ms": exchange.duration_ms,
        "time_to_first_byte_ms": exchange.first_byte_ms,
        "stream": is_event_stream or (exchange.pieces > 1 and "content-length" not in got),
        "chunks": exchange.pieces,
        "cache_status": next((told for name in _CACHE_HEADERS if (told := cache_status(got.get(name, "")))), None),
        "connection_id": exchange.connection_id,
        "connection_requests": exchange.connection_requests,
        "client_disconnected": exchange.end == "disconnected",
        "request_bytes": exchange.request_bytes,
        "response_bytes": exchange.response_bytes,
        "phase": phase,
    }


def route(path: str) -> str:
    """Return ``path`` with what looks like an id, or like something a person typed, replaced by ``{id}``."""
    return "/".join("{id}" if part and _ID.fullmatch(part) else part for part in path.split("/"))


def cache_status(header: str) -> str | None:
    """Return hit or miss where a cache's header says so, else None."""
    said = header.lower()
    if re.search(r"\bhit\b", said):
        return "hit"
    return "miss" if re.search(r"\b(miss|expired|fwd)\b", said) else None


def _look_into(exchange: Exchange) -> tuple[float | None, str | None]:
    """Return when the first content came and what error the body reports."""
    headers = exchange.response_headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_stream = kind == "text/event-stream" or kind in LINES
    pieces = list(zip(exchange.times, exchange.answer, strict=True))
    try:
        decoded = list(plain(pieces, headers.get("content-encoding", ""), is_stream=is_stream))
    except UnknownEncoding:
        return exchange.first_byte_ms, None
    if kind == "text/event-stream":
        return look_into(events(decoded))
    if kind in LINES:
        return look_into(lines(decoded))
    if kind.endswith("json"):
        error = error_in(as_json_value(b"".join(part for _, part in decoded)))
        return exchange.first_byte_ms if pieces else None, error
    if kind.startswith("text/"):
        return next((time for time, part in decoded if part.strip()), None), None
    return exchange.first_byte_ms if pieces else None, None


def _text_sent(exchange: Exchange, body: bytes | None) -> str:
    """Return the text of a request: the strings of a JSON body, a text body, or the query."""
    kind = exchange.request_headers.get("content-type", "").partition(";")[0]
    if not body or len(body) > _SKETCHED_BYTES:
        return exchange.query.replace("+", " ").replace("%20", " ")
    if kind.endswith("json"):
        return "\n".join(_strings(as_json_value(body)))
    return body.decode("utf-8", "replace") if kind.startswith("text/") or kind.endswith("urlencoded") else ""


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _strings(entry)
