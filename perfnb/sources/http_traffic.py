"""Turn a captured exchange with the app into a row of ``http_requests``: the front and the probe share these rules."""

import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from perfnb.digest import Digester
from perfnb.recording.journal import Row
from perfnb.sources.encoding import Piece, UnknownEncoding, plain
from perfnb.sources.exchange import Exchange
from perfnb.sources.llm_answer import event_says_something
from perfnb.sources.sse import DONE, Event, events
from perfnb.sources.traceparent import caller

# Events and messages of these names open a stream, keep it open or tell about it; a reader has nothing of them.
NO_CONTENT = re.compile(
    r"(start|status|ping|pong|meta|metadata|heartbeat|keep-?alive|open|connected|init|created|queued|in_progress|progress|"
    r"session|end|done|finish|usage|citations?|sources?|step|tool|error)([-_.].*)?",
    re.I,
)
CONTENT_KEYS = (
    "content",
    "text",
    "delta",
    "textDelta",
    "token",
    "answer",
    "message",
    "output",
    "response",
    "chunk",
    "data",
)
_SEARCHED_DEPTH = 3
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
_CODE = re.compile(r"[A-Za-z][\w.:-]{0,63}")
_CACHE_HEADERS = ("cache-status", "x-cache", "cf-cache-status", "x-cache-status")
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/stream+json")


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
    is_event_stream = got.get("content-type", "").startswith(("text/event-stream", *_LINES))
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


def error_in(body: Any) -> str | None:
    """Return what a JSON body reports as an error: its code where it has one, else ``error``; None for a normal answer."""
    if not isinstance(body, dict):
        return None
    error, errors = body.get("error"), body.get("errors")
    if error not in (None, False, "", 0, [], {}):
        return _code(error)
    if isinstance(errors, list | dict | str) and errors:
        return _code(errors[0] if isinstance(errors, list) else errors)
    if body.get("success") is False or body.get("ok") is False:
        return _code(body)
    if isinstance(body.get("status"), str) and body["status"].lower() in ("error", "failed", "failure"):
        return _code(body)
    return None


def _code(error: Any) -> str:
    """Return a code that names the error; messages may quote what a person wrote, so they are not looked at."""
    if isinstance(error, dict):
        for key in ("code", "type", "error_type", "error_code"):
            if isinstance(error.get(key), str) and _CODE.fullmatch(error[key]):
                return str(error[key])
        return "error"
    return error if isinstance(error, str) and _CODE.fullmatch(error) and ("_" in error or error.islower()) else "error"


def _look_into(exchange: Exchange) -> tuple[float | None, str | None]:
    """Return when the first content came and what error the body reports."""
    headers = exchange.response_headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_stream = kind == "text/event-stream" or kind in _LINES
    pieces = list(zip(exchange.times, exchange.answer, strict=True))
    try:
        decoded = list(plain(pieces, headers.get("content-encoding", ""), is_stream=is_stream))
    except UnknownEncoding:
        return exchange.first_byte_ms, None
    if kind == "text/event-stream":
        return _look_into_events(events(decoded))
    if kind in _LINES:
        return _look_into_events(_lines(decoded))
    if kind.endswith("json"):
        return exchange.first_byte_ms if pieces else None, error_in(_json(b"".join(part for _, part in decoded)))
    if kind.startswith("text/"):
        return next((time for time, part in decoded if part.strip()), None), None
    return exchange.first_byte_ms if pieces else None, None


def _look_into_events(stream: Iterable[Event]) -> tuple[float | None, str | None]:
    first, error = None, None
    for event in stream:
        body = _json(event.data)
        if event.name == "error" or (isinstance(body, dict) and body.get("type") == "error"):
            error = error or error_in(body) or _code(body)
        else:
            error = error or error_in(body)
        if first is None and error is None and has_content(event):
            first = event.time
    return first, error


def has_content(event: Event) -> bool:
    """Tell whether a reader can use something in ``event``: text, and not only news of the stream itself."""
    if event.data == DONE or (event.name != "message" and NO_CONTENT.fullmatch(event.name)):
        return False
    body = _json(event.data)
    if isinstance(body, dict):
        return event_says_something(event, body) or _has_text(body, _SEARCHED_DEPTH)
    if isinstance(body, list):
        return bool(body) and _has_text(body[0], _SEARCHED_DEPTH)
    return bool(body.strip()) if isinstance(body, str) else bool(event.data.strip())


def _has_text(value: Any, depth: int) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, list):
        return depth > 0 and any(_has_text(entry, depth - 1) for entry in value[:3])
    if not isinstance(value, dict) or depth == 0:
        return False
    kind = value.get("type") or value.get("event")
    if isinstance(kind, str) and NO_CONTENT.fullmatch(kind):
        return False
    return any(_has_text(value.get(key), depth - 1) for key in CONTENT_KEYS)


def _lines(pieces: Iterable[Piece]) -> Iterator[Event]:
    rest = b""
    for time, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.strip():
                yield Event("message", line.decode("utf-8", "replace"), time)
    if rest.strip():
        yield Event("message", rest.decode("utf-8", "replace"), time)


def _text_sent(exchange: Exchange, body: bytes | None) -> str:
    """Return the text of a request: the strings of a JSON body, a text body, or the query."""
    kind = exchange.request_headers.get("content-type", "").partition(";")[0]
    if not body or len(body) > _SKETCHED_BYTES:
        return exchange.query.replace("+", " ").replace("%20", " ")
    if kind.endswith("json"):
        return "\n".join(_strings(_json(body)))
    return body.decode("utf-8", "replace") if kind.startswith("text/") or kind.endswith("urlencoded") else ""


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _strings(entry)


def _json(data: str | bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        return None
