import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.prompts.digest import Digester
from perfnb.recording import TABLES
from perfnb.sources.content import error_in, has_content
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.http_traffic import cache_status, request_row, route, timing
from perfnb.sources.traffic.sse import Event

DIGESTER = Digester(b"k" * 32)
EVENTS, JSON, LINES = "text/event-stream", "application/json", "application/x-ndjson"


def row_of(*pieces: bytes, kind: str = JSON, body: bytes = b"", sent: str = JSON, **known: Any) -> dict[str, Any]:
    """Return the row of an exchange whose answer came in ``pieces``, one at each ms from 1 on."""
    made = Exchange("POST", "/chat", 1_000, 0.0)
    made.status, made.answered, made.ended = 200, 0.5, len(pieces) + 1.0
    made.request_headers = {"content-type": sent}
    made.response_headers = {"content-type": kind}
    if body:
        made.sent(body, 10**6)
    for number, piece in enumerate(pieces, 1):
        made.received(piece, float(number), 10**6)
    for name, value in known.items():
        setattr(made, name, value)
    row = dict(request_row(made, DIGESTER, "front"))
    assert set(row) <= set(TABLES["http_requests"].types)
    return row


FIRST_CONTENT: dict[str, tuple[str, list[bytes], float | None]] = {
    "OpenAI": (
        EVENTS,
        [b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n', b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'],
        2.0,
    ),
    "news first": (
        EVENTS,
        [b"event: start\ndata: go\n\n", b": ping\n\n", b'data: {"type": "status", "content": "x"}\n\n', b'data: {"token": "a"}\n\n'],
        4.0,
    ),
    "status messages": (
        EVENTS,
        [b'data: {"status": "searching", "message": "Searching"}\n\n', b'data: {"answer": "a"}\n\n'],
        2.0,
    ),
    "sources first": (EVENTS, [b'event: sources\ndata: [{"text": "s"}]\n\n', b"data: plain words\n\n"], 2.0),
    "JSON texts": (EVENTS, [b'data: ""\n\n', b'data: "a"\n\n'], 2.0),
    "nested": (EVENTS, [b'data: {"data": {"message": {"content": " "}}}\n\n', b'data: {"data": {"message": {"content": "a"}}}\n\n'], 2.0),
    "LangGraph": (EVENTS, [b'data: [{"content": ""}, {}]\n\n', b'data: [{"content": "a"}, {}]\n\n'], 2.0),
    "nothing": (EVENTS, [b'data: {"type": "start"}\n\n', b"data: [DONE]\n\n"], None),
    "lines": (LINES, [b'{"type": "start"}\n', b'{"respon', b'se": "a"}\n'], 3.0),
    "text": ("text/plain; charset=utf-8", [b" \n", b" a"], 2.0),
    "JSON": (JSON, [b'{"answer": ', b'"a"}'], 1.0),
    "image": ("image/png", [b"\x89PNG"], 1.0),
    "empty": (JSON, [], None),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "pieces", "expected"), FIRST_CONTENT.values(), ids=FIRST_CONTENT)
def test_first_content(kind: str, pieces: list[bytes], expected: float | None) -> None:
    assert row_of(*pieces, kind=kind)["time_to_first_content_ms"] == expected


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"answer": "a"}, None),
        ({"answer": "There was an error: failed", "error": None}, None),
        ({"answer": "a", "errors": []}, None),
        ({"answer": "a", "error": "", "status": "ok", "success": True}, None),
        ({"results": [{"error": "no"}]}, None),
        ({"status": "no errors"}, None),
        ([], None),
        ("error", None),
        ({"error": "SECRET words of a person"}, "error"),
        ({"error": "model_overloaded"}, "model_overloaded"),
        ({"error": {"code": "rate_limit", "message": "SECRET"}}, "rate_limit"),
        ({"error": {"message": "SECRET"}}, "error"),
        ({"error": True}, "error"),
        ({"errors": [{"message": "SECRET", "code": "E1"}]}, "E1"),
        ({"success": False, "message": "SECRET"}, "error"),
        ({"ok": False, "code": "not_found"}, "not_found"),
        ({"status": "failed"}, "error"),
        ({"status": "error", "type": "tool_error"}, "tool_error"),
    ],
)
def test_errors_in_a_body(body: Any, error: str | None) -> None:
    assert error_in(body) == error
    row = row_of(json.dumps(body).encode())
    assert (row["error_in_body"], row["error_type"]) == (error is not None, error)


@pytest.mark.parametrize(
    ("kind", "piece", "error"),
    [
        (EVENTS, b"event: error\ndata: it broke\n\n", "error"),
        (EVENTS, b'event: error\ndata: {"code": "upstream_timeout"}\n\n', "upstream_timeout"),
        (EVENTS, b'data: {"token": "a"}\n\ndata: {"error": {"type": "overloaded"}}\n\n', "overloaded"),
        (EVENTS, b'data: {"type": "error"}\n\n', "error"),
        (EVENTS, b'data: {"token": "error: not really"}\n\n', None),
        (LINES, b'{"token": "a"}\n{"error": "x_failed"}\n', "x_failed"),
        ("text/plain", b'{"error": "x"}', None),
    ],
)
def test_errors_in_a_stream(kind: str, piece: bytes, error: str | None) -> None:
    row = row_of(piece, kind=kind)
    assert (row["error_in_body"], row["error_type"]) == (error is not None, error)


def test_an_error_with_an_error_status_is_no_error_in_disguise() -> None:
    row = row_of(b'{"error": "x_failed"}', status=500)
    assert (row["error_in_body"], row["error_type"]) == (False, "x_failed")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/users/42/orders/7", "/users/{id}/orders/{id}"),
        ("/docs/123e4567-e89b-12d3-a456-426614174000", "/docs/{id}"),
        ("/blobs/deadbeefdeadbeef01", "/blobs/{id}"),
        ("/threads/thread_abc123DEF456ghi", "/threads/{id}"),
        ("/people/ann@example.org", "/people/{id}"),
        ("/search/how%20to%20open", "/search/{id}"),
        ("/api/v2/knowledge-base/articles", "/api/v2/knowledge-base/articles"),
        ("/static/app.js", "/static/app.js"),
        ("/s/" + "x" * 70, "/s/{id}"),
    ],
)
def test_ids_in_a_path_are_replaced(path: str, expected: str) -> None:
    assert route(path) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("HIT", "hit"), ("Hit from cloudfront", "hit"), ("MISS, HIT", "hit"), ("miss", "miss"), ("EXPIRED", "miss"),
        ("ExampleCache; hit; ttl=30", "hit"), ("ExampleCache; fwd=uri-miss", "miss"), ("DYNAMIC", None), ("", None),
        ("whitelisted", None),
    ],
)  # fmt: skip
def test_cache_status(header: str, expected: str | None) -> None:
    assert cache_status(header) == expected
    assert row_of(b"{}", response_headers={"content-type": JSON, "x-cache": header})["cache_status"] == expected


@pytest.mark.parametrize(
    ("headers", "pieces", "expected"),
    [
        ({"content-type": EVENTS}, [b"data: a\n\n"], True),
        ({"content-type": LINES}, [b"{}\n"], True),
        ({"content-type": "text/plain"}, [b"a", b"b"], True),
        ({"content-type": JSON, "content-length": "2"}, [b"a", b"b"], False),
        ({"content-type": JSON}, [b"{}"], False),
    ],
)
def test_what_is_a_stream(headers: dict[str, str], pieces: list[bytes], expected: bool) -> None:
    row = row_of(*pieces, response_headers=headers)
    assert (row["stream"], row["chunks"]) == (expected, len(pieces))


def test_requests_that_ask_the_same_have_the_same_digest_and_alike_ones_alike_sketches() -> None:
    a = row_of(body=b'{"question": "how do I open a file in python"}')
    b = row_of(body=b'{"question": "how do I open a file in python"}')
    c = row_of(body=b'{"session": 9, "question": "how do I open a file in python"}')
    assert a["body_digest"] == b["body_digest"] != c["body_digest"]
    assert a["body_sketch"] == b["body_sketch"] == c["body_sketch"] != []


def test_without_a_body_the_query_is_what_was_asked() -> None:
    a, b = row_of(query="q=open+a+file+now"), row_of(query="q=close+it")
    assert a["body_digest"] != b["body_digest"]
    assert row_of().get("body_digest") is None


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"{", b"[[[]]]", b"--x\r\nContent-Disposition"])
@pytest.mark.parametrize("sent", [JSON, "text/plain", "multipart/form-data; boundary=x", ""])
def test_takes_any_request_body(body: bytes, sent: str) -> None:
    assert row_of(body=body, sent=sent)["request_bytes"] == len(body)


def test_a_bare_row_has_the_times_alone() -> None:
    made = Exchange("GET", "/x/1", 5, 0.0)
    made.end, made.ended = "disconnected", 9.0
    row = timing(made, "front")
    assert (row["route"], row["duration_ms"], row["error_type"], row["client_disconnected"]) == (
        "/x/{id}",
        9.0,
        "disconnected",
        True,
    )


@given(st.text(max_size=60), st.text(max_size=10))
def test_takes_any_event(data: str, name: str) -> None:
    assert has_content(Event(name or "message", data, 1.0)) in (True, False)


@given(st.text(max_size=80))
def test_takes_any_path(path: str) -> None:
    assert route(path).count("/") == path.count("/")
