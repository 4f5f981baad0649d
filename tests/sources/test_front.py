import asyncio
import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web
from http_upstream import Upstream, running

from perfnb.errors import WrongUse
from perfnb.recording import Recording
from perfnb.sources.front import Front

PRIVATE = "how do I tell my doctor about it"


async def app(request: web.Request) -> web.StreamResponse:
    match request.path:
        case "/chat":
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Cache": "MISS"})
            await response.prepare(request)
            for event in (
                b'event: status\ndata: {"status": "thinking"}\n\n',
                b'data: {"token": "Hi"}\n\n',
                b"data: [DONE]\n\n",
            ):
                await response.write(event)
                await asyncio.sleep(0.03)
            await response.write_eof()
            return response
        case "/sorry":
            return web.json_response({"error": {"code": "model_overloaded", "message": PRIVATE}})
        case "/broken":
            raise web.HTTPInternalServerError(text="no")
        case "/moved":
            raise web.HTTPFound(f"http://{request.host}/elsewhere")
        case "/slow":
            await asyncio.sleep(60)
    return web.json_response({"answer": "yes"})


@contextlib.contextmanager
def scene(tmp_path: Path) -> Iterator[tuple[Upstream, Front, Recording]]:
    recording = Recording.create(tmp_path / "r.perfnb")
    with running(app) as upstream, Front(recording.path, upstream.url) as front:
        yield upstream, front, recording
    recording.close()


def ask(front: Front, *paths: str, body: Any = None, headers: dict[str, str] | None = None) -> list[tuple[int, bytes]]:
    """Send one request a path on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", front.ready["port"])
    answers = []
    for path in paths:
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers or {})
        answer = connection.getresponse()
        answers.append((answer.status, answer.read()))
    connection.close()
    return answers


def rows_of(recording: Recording) -> pd.DataFrame:
    with recording:
        return recording.query("SELECT * FROM http_requests ORDER BY start_time")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_requests_are_rows(tmp_path: Path) -> None:
    with scene(tmp_path) as (_, front, recording):
        ask(front, "/chat", "/users/42?tab=1", "/sorry", "/broken", "/moved")
        ask(front, "/other")
    rows = rows_of(recording)
    assert list(rows.route) == ["/chat", "/users/{id}", "/sorry", "/broken", "/moved", "/other"]
    assert list(rows.status_code) == [200, 200, 200, 500, 302, 200]
    assert list(rows.source.unique()) == ["front"]
    assert list(rows.connection_requests) == [1, 2, 3, 4, 5, 1]
    assert list(rows.connection_id) == [1] * 5 + [2]
    assert list(rows.error_in_body) == [False, False, True, False, False, False]
    assert rows.error_type[2] == "model_overloaded"
    assert (rows.duration_ms >= rows.time_to_first_byte_ms).all()


def test_a_streams_first_content_is_past_its_news(tmp_path: Path) -> None:
    with scene(tmp_path) as (_, front, recording):
        ((status, body),) = ask(front, "/chat")
        assert (status, body.count(b"data:")) == (200, 3)
    (row,) = rows_of(recording).itertuples()
    assert row.time_to_first_byte_ms < row.time_to_first_content_ms < row.duration_ms
    assert (row.stream, row.chunks, row.cache_status) == (True, 3, "miss")


def test_the_app_sees_the_callers_host_so_its_addresses_lead_back(tmp_path: Path) -> None:
    with scene(tmp_path) as (upstream, front, _):
        connection = http.client.HTTPConnection("127.0.0.1", front.ready["port"])
        connection.request("GET", "/moved")
        assert connection.getresponse().headers["Location"] == f"{front.url}/elsewhere"
        connection.close()
        assert upstream.seen[0][2]["Host"] == front.url.removeprefix("http://")


def test_what_was_asked_is_kept_as_digest_and_sketch_only(tmp_path: Path) -> None:
    header = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Authorization": "Bearer planted",
    }
    header["Content-Type"] = "application/json"
    with scene(tmp_path) as (_, front, recording):
        for question in (PRIVATE, PRIVATE, "something else"):
            ask(front, f"/ask/{PRIVATE.replace(' ', '%20')}", body={"question": question}, headers=header)
        ask(front, "/sorry?q=" + PRIVATE.replace(" ", "+"))
        wait_for(lambda: front.counters["rows"] == 4)
        live = b"".join(path.read_bytes() for path in recording.path.rglob("*.jsonl"))
    rows = rows_of(recording)
    assert rows.body_digest[0] == rows.body_digest[1] != rows.body_digest[2]
    assert rows.body_sketch[0] == rows.body_sketch[1] != rows.body_sketch[2]
    assert rows.trace_id[0] == "0af7651916cd43dd8448eb211c80319c"
    assert rows.route[0] == "/ask/{id}"
    kept = live + b"".join(path.read_bytes() for path in recording.path.rglob("*") if path.is_file())
    kept += rows.to_csv().encode()
    assert live.count(b"\n") == 4
    assert not any(word in kept for word in (b"doctor", b"planted"))


def test_callers_that_go_away_and_requests_under_way(tmp_path: Path) -> None:
    with scene(tmp_path) as (upstream, front, recording):
        left = http.client.HTTPConnection("127.0.0.1", front.ready["port"])
        left.request("GET", "/slow")
        wait_for(lambda: len(upstream.seen) == 1)
        left.close()
        wait_for(lambda: front.counters["rows"] == 1)
        waiting = http.client.HTTPConnection("127.0.0.1", front.ready["port"])
        waiting.request("GET", "/slow")
        wait_for(lambda: front.counters["open"] == 1)
    waiting.close()
    rows = rows_of(recording)
    assert list(rows.error_type) == ["disconnected", "unfinished"]
    assert list(rows.client_disconnected) == [True, False]


def test_an_app_that_is_not_there(tmp_path: Path) -> None:
    with running(app) as upstream:
        gone = upstream.url
    recording = Recording.create(tmp_path / "r.perfnb")
    with Front(recording.path, gone) as front:
        ((status, body),) = ask(front, "/chat")
        assert (status, json.loads(body)["error"]["type"]) == (502, "upstream_unreachable")
    (row,) = rows_of(recording).itertuples()
    assert row.error_type == "connection"
    assert pd.isna(row.status_code)


def test_a_path_of_the_apps_own_is_part_of_the_address(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "r.perfnb")
    with running(app) as upstream, Front(recording.path, f"{upstream.url}/api/") as front:
        assert front.url.endswith("/api")
        ask(front, "/api/x", "/y")
        assert [path for _, path, _, _ in upstream.seen] == ["/api/x", "/api/y"]


def test_wrong_use_is_told(tmp_path: Path) -> None:
    with pytest.raises(WrongUse):
        Front(tmp_path, "the app")
