import gzip
import zlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.sources.traffic.encoding import UnknownEncoding, plain

TEXT = b"".join(b"data: %d\n\n" % number for number in range(300))
PACKED = {
    "": TEXT,
    "identity": TEXT,
    "gzip": gzip.compress(TEXT),
    "GZIP": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "br": pa.compress(TEXT, codec="brotli", asbytes=True),
    "zstd": pa.compress(TEXT, codec="zstd", asbytes=True),
}


def in_pieces(data: bytes, size: int) -> list[tuple[float, bytes]]:
    return [(float(at), data[at : at + size]) for at in range(0, len(data), size)]


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("encoding", PACKED)
def test_undoes_the_encoding(encoding: str, is_stream: bool) -> None:
    decoded = list(plain(in_pieces(PACKED[encoding], 50), encoding, is_stream=is_stream))
    assert b"".join(part for _, part in decoded) == TEXT
    times = [time for time, _ in decoded]
    assert times == sorted(times)


def test_deflate_without_its_header() -> None:
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert b"".join(part for _, part in plain([(0.0, raw.compress(TEXT) + raw.flush())], "deflate")) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_each_flushed_piece_keeps_its_time(encoding: str) -> None:
    pack = zlib.compressobj(wbits=zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    pieces = [(float(n), pack.compress(b"%d" % n) + pack.flush(zlib.Z_SYNC_FLUSH)) for n in (1, 2, 3)]
    assert list(plain(pieces, encoding)) == [(1.0, b"1"), (2.0, b"2"), (3.0, b"3")]


@pytest.mark.parametrize("encoding", [name for name in PACKED if name not in ("", "identity")])
def test_a_body_that_was_cut_off_gives_what_came(encoding: str) -> None:
    data = PACKED[encoding]
    decoded = b"".join(part for _, part in plain([(0.0, data[: len(data) // 2])], encoding, is_stream=True))
    assert TEXT.startswith(decoded)


@pytest.mark.parametrize("encoding", ["compress", "gzip, br", "rot13"])
def test_says_what_it_does_not_know(encoding: str) -> None:
    with pytest.raises(UnknownEncoding):
        list(plain([(0.0, TEXT)], encoding))


def test_a_small_body_that_unpacks_to_a_huge_one_is_cut() -> None:
    bomb = gzip.compress(bytes(2**20) * 200, compresslevel=1)
    assert sum(len(part) for _, part in plain(in_pieces(bomb, 2**16), "gzip")) == 64 * 2**20


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "zstd"]), st.booleans())
def test_takes_any_bytes(data: bytes, encoding: str, is_stream: bool) -> None:
    assert all(part for _, part in plain(in_pieces(data, 7), encoding, is_stream=is_stream))
