"""What an OTLP server answers. Source: OTLP specification 1.9, "OTLP/HTTP Response" and "Partial Success"."""

import zlib
from dataclasses import dataclass
from typing import Literal

import orjson

from perfnb.errors import PerfnbError

Signal = Literal["traces", "metrics", "logs"]

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
LIMIT_BYTES = 64 * 2**20

# Names of the count of rejected items in each signal's partial success.
_REJECTED = {"traces": "rejectedSpans", "metrics": "rejectedDataPoints", "logs": "rejectedLogRecords"}

# google.rpc.Code
INVALID_ARGUMENT, UNAVAILABLE = 3, 14


class Refused(PerfnbError):
    """Raised when a request can't be taken; ``status`` is the HTTP status to answer with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Outcome:
    """How many items of a request were used, how many not and why."""

    accepted: int = 0
    rejected: int = 0
    reason: str = ""


def response(signal: Signal, outcome: Outcome, content_type: str = PROTOBUF) -> bytes:
    """Return the encoded Export…ServiceResponse; ``partial_success`` is set only where something was rejected."""
    if content_type == JSON:
        partial = {_REJECTED[signal]: str(outcome.rejected), "errorMessage": outcome.reason}
        return orjson.dumps({"partialSuccess": partial} if outcome.rejected else {})
    if not outcome.rejected:
        return b""
    return _message(1, _varint(1, outcome.rejected) + _message(2, outcome.reason.encode()))


def status(code: int, message: str, content_type: str = PROTOBUF) -> bytes:
    """Return an encoded google.rpc.Status, which is what the body of every error is."""
    if content_type == JSON:
        return orjson.dumps({"code": code, "message": message})
    return _varint(1, code) + _message(2, message.encode())


def decompressed(body: bytes, encoding: str, *, limit_bytes: int = LIMIT_BYTES) -> bytes:
    """Return ``body`` without its Content-Encoding; raises Refused, for what is larger than the limit before it is unpacked."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Refused(415, f"content encoding {encoding!r} is not supported; use gzip, deflate or none")
    try:
        return _unpacked(body, limit_bytes)
    except zlib.error as error:
        raise Refused(400, f"the body is no {encoding}: {error}") from None


def _unpacked(body: bytes, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while body:
        unpacker = zlib.decompressobj(wbits=47)  # gzip or zlib, by its header
        parts.append(unpacker.decompress(body, limit_bytes - size + 1))
        size += len(parts[-1])
        if size > limit_bytes:
            raise Refused(413, f"the body is larger than {limit_bytes} bytes when unpacked")
        if not unpacker.eof:
            raise zlib.error("it ends too early")
        body = unpacker.unused_data  # a gzip file may have several members
    return b"".join(parts)


def _varint(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _base128(value)


def _message(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _base128(len(content)) + content


def _base128(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
