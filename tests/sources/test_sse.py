import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.sources.traffic.sse import Event, events

CASES = {
    "one": (b"data: hello\n\n", [("message", "hello")]),
    "named": (b"event: token\ndata: a\n\n", [("token", "a")]),
    "several lines": (b"data: a\ndata: b\ndata:\n\n", [("message", "a\nb\n")]),
    "no space": (b"data:a\n\n", [("message", "a")]),
    "only one space is taken": (b"data:  a\n\n", [("message", " a")]),
    "CR LF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [("message", "a"), ("message", "b")]),
    "CR": (b"data: a\r\rdata: b\r\r", [("message", "a"), ("message", "b")]),
    "comments and other fields": (b": ping\n\nid: 7\nretry: 10\ndata: a\n\n", [("message", "a")]),
    "a name without data": (b"event: ping\n\ndata: a\n\n", [("message", "a")]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("message", "a")]),
    "not finished": (b"data: a\n\ndata: b", [("message", "a"), ("message", "b")]),
    "empty": (b"", []),
    "other line ends are text": ("data: a\u2028b\x0bc\n\n".encode(), [("message", "a\u2028b\x0bc")]),
}


@pytest.mark.parametrize(("stream", "expected"), CASES.values(), ids=CASES)
def test_reads_events(stream: bytes, expected: list[tuple[str, str]]) -> None:
    assert [(event.name, event.data) for event in events([(1.0, stream)])] == expected


@given(st.sampled_from([case[0] for case in CASES.values()]), st.lists(st.integers(1, 5)), st.booleans())
def test_cuts_make_no_difference(stream: bytes, sizes: list[int], twice: bool) -> None:
    stream = stream * 2 if twice and not stream.startswith(b"\xef") else stream
    pieces: list[tuple[float, bytes]] = []
    at = 0
    for size in [*sizes, len(stream)]:
        pieces.append((float(len(pieces)), stream[at : at + size]))
        at += size
    whole = [(event.name, event.data) for event in events([(0.0, stream)])]
    assert [(event.name, event.data) for event in events(pieces)] == whole


def test_an_event_has_the_time_of_the_piece_that_completes_it() -> None:
    pieces = [(1.0, b"data: a"), (2.0, b"\n"), (3.0, b"\ndata: b\n\nda"), (4.0, b"ta: c\n\n")]
    assert list(events(pieces)) == [Event("message", "a", 3.0), Event("message", "b", 3.0), Event("message", "c", 4.0)]


@given(st.lists(st.tuples(st.floats(0, 9), st.binary(max_size=30))))
def test_takes_any_bytes(pieces: list[tuple[float, bytes]]) -> None:
    assert all(event.data is not None for event in events(pieces))
