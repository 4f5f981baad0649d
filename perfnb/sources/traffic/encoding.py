"""Undo a body's Content-Encoding piece by piece, so that each piece keeps its time."""

import io
import zlib
from collections.abc import Iterator, Sequence

Piece = tuple[float, bytes]

_ZLIB = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_ARROW = {"br": "brotli", "zstd": "zstd"}

LARGEST_BYTES = 64 * 2**20
"""What a body may unpack to; the rest is left out (a small body can unpack to terabytes)."""


class UnknownEncoding(ValueError):
    """Raised where a body is encoded in a way that can't be undone here."""


def plain(pieces: Sequence[Piece], encoding: str, *, is_stream: bool = False) -> Iterator[Piece]:
    """Yield ``pieces`` decoded; a body that was cut off gives what came. Raises UnknownEncoding."""
    names = [name.strip().lower() for name in encoding.split(",") if name.strip() not in ("", "identity")]
    if not names:
        yield from pieces
    elif len(names) > 1 or names[0] not in (*_ZLIB, *_ARROW):
        raise UnknownEncoding(encoding)
    elif names[0] in _ZLIB:
        yield from _inflated(pieces, _ZLIB[names[0]])
    else:
        yield from _unpacked(pieces, _ARROW[names[0]], 1 if is_stream else 2**16)


def _inflated(pieces: Sequence[Piece], window: int) -> Iterator[Piece]:
    if window == zlib.MAX_WBITS and pieces and pieces[0][1][:1] not in (b"\x78", b"\x58", b"\x08"):
        window = -zlib.MAX_WBITS  # "deflate" without the zlib header, which some servers send
    inflate, room = zlib.decompressobj(window), LARGEST_BYTES
    for time, piece in pieces:
        try:
            data = inflate.decompress(piece, room)
        except zlib.error:
            return
        room -= len(data)
        if data:
            yield time, data
        if room <= 0 or inflate.eof:
            return


class _Pieces(io.RawIOBase):
    """Hands out one piece a read and knows the time of the last one."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = iter(pieces)
        self.time = 0.0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self.time, piece = next(self._pieces, (self.time, b""))
        return piece


def _unpacked(pieces: Sequence[Piece], codec: str, step: int) -> Iterator[Piece]:
    """Unpack with pyarrow, which reads ahead only as far as ``step`` bytes need: one at a time tells when each came."""
    import pyarrow as pa

    source, room = _Pieces(pieces), LARGEST_BYTES
    stream = pa.CompressedInputStream(pa.PythonFile(source, mode="r"), codec)
    try:
        while room > 0 and (data := stream.read(step)):
            room -= len(data)
            yield source.time, data
    except OSError:  # cut off, or damaged
        return
