"""One request and its answer as a pass-through saw them: raw bytes with a time for each piece, read later by a recorder.

Secrets never get in: only the headers named here are captured, and no query string.
"""

import json
import struct
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import orjson

End = Literal["complete", "disconnected", "unfinished", "unreachable", "broken", "timeout", "superseded"]
"""How it ended: the caller went away, recording stopped, nothing answered, the answer broke off, the deadline passed,
another attempt at the same was quicker."""

KEPT_HEADERS = frozenset(
    {
        "accept", "anthropic-version", "cache-status", "cf-cache-status", "content-encoding", "content-length", "content-type",
        "openai-model", "openai-processing-ms", "openai-version", "request-id", "retry-after", "retry-after-ms",
        "server-timing", "session-id", "session_id", "traceparent", "upgrade", "user-agent", "x-cache",
        "x-cache-status", "x-conversation-id", "x-envoy-upstream-service-time", "x-request-id", "x-session-id",
    }
)  # fmt: skip
KEPT_PREFIXES = ("x-stainless-", "x-ratelimit-", "anthropic-ratelimit-")

_LENGTHS = struct.Struct("<IIII")


class Exchange:
    """A captured request and answer; times are milliseconds after ``started_ns`` once it was decoded.

    While it is being captured, times are readings of ``time.perf_counter()``: turning them into milliseconds is left
    to :meth:`encoded`, off the path of the bytes.

    Attributes:
        request: The body that was sent upstream, in pieces.
        asked: The body the caller sent, where a policy sent another one upstream.
        answered_by: "cache" where the provider was not asked.
        notes: What policies did to it: names and numbers.
    """

    __slots__ = (
        "answer", "answered", "answered_by", "arm", "asked", "connect_ms", "connection_id", "connection_requests", "end", "ended", "error",
        "is_cut", "last", "method", "notes", "path", "pieces", "query", "request", "request_bytes", "request_headers",
        "response_bytes", "response_headers", "started", "started_ns", "status", "times",
    )  # fmt: skip

    def __init__(self, method: str, path: str, started_ns: int, started: float) -> None:
        self.method = method
        self.path = path
        self.query = ""
        self.started_ns = started_ns
        self.started = started
        self.answered: float | None = None
        self.ended: float | None = None
        self.last: float | None = None
        self.end: End = "complete"
        self.error = ""
        self.arm: str | None = None
        self.asked = b""
        self.answered_by: str | None = None
        self.notes: dict[str, Any] = {}
        self.connect_ms: float | None = None
        self.connection_id: int | None = None
        self.connection_requests: int | None = None
        self.status: int | None = None
        self.request_headers: dict[str, str] = {}
        self.response_headers: dict[str, str] = {}
        self.request: list[bytes] = []
        self.request_bytes = 0
        self.answer: list[bytes] = []
        self.times: list[float] = []
        self.pieces = 0
        self.response_bytes = 0
        self.is_cut = False

    def sent(self, data: bytes, capture_bytes: int) -> None:
        """Note a piece of the request's body."""
        self.request_bytes += len(data)
        if self.request_bytes <= capture_bytes:
            self.request.append(data)

    def received(self, data: bytes, now: float, capture_bytes: int) -> None:
        """Note a piece of the answer's body."""
        self.response_bytes += len(data)
        self.pieces += 1
        self.last = now
        if self.response_bytes <= capture_bytes:
            self.answer.append(data)
            self.times.append(now)
        else:
            self.is_cut = True

    def again(self) -> "Exchange":
        """Return a new attempt at the same request, begun now: nothing sent, nothing answered."""
        other = Exchange(self.method, self.path, time.time_ns(), time.perf_counter())
        for name in ("query", "arm", "asked", "connection_id", "connection_requests", "request_headers"):
            setattr(other, name, getattr(self, name))
        other.notes = dict(self.notes)
        return other

    def become(self, other: "Exchange") -> None:
        """Take over all that is known of ``other``."""
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    def encoded(self) -> bytes:
        """Return the exchange as one binary message, its times in milliseconds."""
        request = b"".join(self.request) if len(self.request) != 1 else self.request[0]
        start = self.started
        head = {
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "started_ns": self.started_ns,
            "answered": _after(start, self.answered),
            "ended": _after(start, self.ended),
            "last": _after(start, self.last),
            "end": self.end,
            "error": self.error,
            "arm": self.arm,
            "answered_by": self.answered_by,
            "notes": self.notes,
            "connect_ms": self.connect_ms,
            "connection_id": self.connection_id,
            "connection_requests": self.connection_requests,
            "status": self.status,
            "request_headers": self.request_headers,
            "response_headers": self.response_headers,
            "request_bytes": self.request_bytes,
            "response_bytes": self.response_bytes,
            "pieces": self.pieces,
            "is_cut": self.is_cut,
            "times": [(time - start) * 1e3 for time in self.times],
            "sizes": [len(piece) for piece in self.answer],
        }
        head_bytes = _json(head)
        answer_bytes = sum(map(len, self.answer))
        lengths = _LENGTHS.pack(len(head_bytes), len(request), len(self.asked), answer_bytes)
        return b"".join([lengths, head_bytes, request, self.asked, *self.answer])

    @classmethod
    def decoded(cls, message: bytes | memoryview) -> "Exchange":
        """Return the exchange that :meth:`encoded` gave."""
        head_bytes, request_bytes, asked_bytes, _ = _LENGTHS.unpack_from(message)
        at = _LENGTHS.size
        head = orjson.loads(message[at : at + head_bytes])
        at += head_bytes
        exchange = cls(head.pop("method"), head.pop("path"), head.pop("started_ns"), 0.0)
        sizes = head.pop("sizes")
        for name, value in head.items():
            setattr(exchange, name, value)
        exchange.request = [bytes(message[at : at + request_bytes])]
        at += request_bytes
        exchange.asked = bytes(message[at : at + asked_bytes])
        at += asked_bytes
        for size in sizes:
            exchange.answer.append(bytes(message[at : at + size]))
            at += size
        return exchange

    @property
    def request_body(self) -> bytes | None:
        """Return the request's body; None where it was too long to keep whole."""
        body = b"".join(self.request)
        return body if len(body) == self.request_bytes else None

    @property
    def first_byte_ms(self) -> float | None:
        """Return when the first byte of the answer's body came, or its head where it has no body."""
        return self.times[0] if self.times else self.answered

    @property
    def duration_ms(self) -> float:
        """Return when the last byte came, or how far it got."""
        return self.ended or 0.0


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that may be captured, names in lower case."""
    return {kept: value for name, value in headers.items() if (kept := _kept_as(name))}


@lru_cache(maxsize=4096)
def _kept_as(name: str) -> str:
    """Return the name under which a header is kept; empty where it is not."""
    name = name.lower()
    return name if name in KEPT_HEADERS or name.startswith(KEPT_PREFIXES) else ""


def _json(head: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(head)
    except TypeError:  # bytes beyond UTF-8 in a header or a path
        return json.dumps(head).encode().replace(b"\\udc", b"?")


def _after(start: float, time: float | None) -> float | None:
    return None if time is None else (time - start) * 1e3
