import asyncio
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web
from http_upstream import running, serving

from perfnb.errors import WrongUse
from perfnb.recording import Recording
from perfnb.sources.probe import Probe, send_all
from perfnb.sources.traffic.exchange import Exchange
from perfnb.target import Request


async def app(request: web.Request) -> web.StreamResponse:
    if request.path == "/health":
        return web.json_response({"ok": True})
    if request.path == "/slow":
        await asyncio.sleep(0.6)
    if request.path == "/blocked":
        time.sleep(0.6)
    if request.path == "/never":
        await asyncio.sleep(60)
    if request.path == "/stream":
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'event: status\ndata: {"status": "searching", "message": "Searching"}\n\n')
        await asyncio.sleep(0.05)
        await response.write(b'data: {"token": "Hello"}\n\n')
        await response.write_eof()
        return response
    return web.json_response({"answer": "yes", "path": request.path})


def probed(tmp_path: Path, paths: list[str], **settings: Any) -> tuple[pd.DataFrame, dict[str, int], list[str]]:
    recording = Recording.create(tmp_path / "p.perfnb")
    with running(app) as upstream:
        requests = [Request(upstream.url + path, json={"question": "why?"}, timeout_s=1) for path in paths]
        probe = Probe(recording.path, requests, **settings)
        with probe:
            assert probe.wait(60)
        seen = [path for _, path, _, _ in upstream.seen]
    with recording:
        return recording.query("SELECT * FROM http_requests ORDER BY start_time"), dict(probe.counters), seen


def test_sends_each_request_once_to_warm_up_then_as_often_as_told(tmp_path: Path) -> None:
    rows, counters, seen = probed(tmp_path, ["/a", "/b"], repeat=3, pause_s=0, lag=False)
    assert seen == ["/a", "/b"] * 4
    assert list(rows.phase) == ["warm-up"] * 2 + ["measure"] * 6
    assert list(rows.route) == seen
    assert set(rows.source) == {"probe"}
    assert set(rows.status_code) == {200}
    assert rows.body_digest.nunique() == 1
    assert (counters["requests"], counters["rows"], counters["errors"]) == (8, 8, 0)


def test_one_request_at_a_time(tmp_path: Path) -> None:
    rows, _, _ = probed(tmp_path, ["/stream"], repeat=4, pause_s=0, lag=False)
    ends = rows.start_time + (rows.duration_ms * 1e6).astype("int64")
    assert (rows.start_time[1:].reset_index(drop=True) >= ends[:-1].reset_index(drop=True)).all()


def test_light_requests_go_beside_and_show_a_blocked_loop(tmp_path: Path) -> None:
    rows, counters, _ = probed(tmp_path, ["/slow", "/blocked"], repeat=1, pause_s=0.01)
    light = rows[rows.phase == "lag"]
    assert set(light.route) == {"/"}
    assert set(light.method) == {"GET"}
    assert counters["lag_requests"] == len(light)
    beside = {}
    for path in ("/slow", "/blocked"):
        main = rows[(rows.route == path) & (rows.phase == "measure")].iloc[0]
        during = light[
            (light.start_time >= main.start_time) & (light.start_time < main.start_time + main.duration_ms * 1e6)
        ]
        beside[path] = during.duration_ms.max()
    assert beside["/blocked"] > beside["/slow"]


def test_the_light_request_goes_where_it_is_told_or_nowhere(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "p.perfnb")
    with running(app) as upstream:
        requests = [Request(f"{upstream.url}/slow", method="GET")]
        with Probe(recording.path, requests, repeat=0, lag_url=f"{upstream.url}/health") as probe:
            assert probe.wait(30)
        paths = {path for _, path, _, _ in upstream.seen}
    assert paths == {"/slow", "/health"}


def test_first_content_of_a_stream_is_past_its_news(tmp_path: Path) -> None:
    rows, _, _ = probed(tmp_path, ["/stream"], repeat=1, lag=False)
    for row in rows.itertuples():
        assert row.stream
        assert row.time_to_first_byte_ms + 30 < row.time_to_first_content_ms <= row.duration_ms


def test_a_request_past_its_deadline_is_a_timeout(tmp_path: Path) -> None:
    rows, counters, _ = probed(tmp_path, ["/never"], repeat=0, lag=False)
    (row,) = rows.itertuples()
    assert (row.error_type, pd.isna(row.status_code)) == ("timeout", True)
    assert row.duration_ms >= 1000
    assert counters["finished"] == 1


def test_an_app_that_is_not_there_is_recorded(tmp_path: Path) -> None:
    with running(app) as upstream:
        gone = upstream.url
    recording = Recording.create(tmp_path / "p.perfnb")
    with Probe(recording.path, [Request(gone, method="GET")], repeat=1, pause_s=0) as probe:
        assert probe.wait(30)
    with recording:
        rows = recording.query("SELECT * FROM http_requests WHERE phase <> 'lag'")
        assert list(rows.error_type) == ["connection"] * 2


def test_stops_at_once_on_order() -> None:
    async def main() -> list[tuple[str, str]]:
        recorded: list[tuple[str, str]] = []

        def record(exchange: Exchange, phase: str) -> None:
            recorded.append((phase, exchange.end))

        async with serving(app) as upstream:
            stop = asyncio.Event()
            request = Request(f"{upstream.url}/never")
            sending = asyncio.create_task(send_all([request] * 3, record, stop, repeat=5, pause_s=0, lag=False))
            while not upstream.seen:
                await asyncio.sleep(0.01)
            stop.set()
            async with asyncio.timeout(5):
                await sending
            return recorded

    assert asyncio.run(main()) == [("warm-up", "unfinished")]


def test_leaving_stops_it(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "p.perfnb")
    with running(app) as upstream:
        with Probe(recording.path, [Request(f"{upstream.url}/never")], repeat=100, lag=False) as probe:
            assert not probe.wait(0.1)
        assert not probe.is_alive
        assert len(upstream.seen) <= 1


@pytest.mark.parametrize("url", ["", "/chat", "localhost:8000/chat", "ftp://x/"])
def test_an_address_that_makes_no_sense_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(WrongUse):
        Probe(tmp_path, [Request(url)])


def test_secrets_in_headers_are_sent_and_not_recorded(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "p.perfnb")
    with running(app) as upstream:
        request = Request(
            f"{upstream.url}/a", json={"q": "private words"}, headers={"Authorization": "Bearer planted-secret"}
        )
        with Probe(recording.path, [request], repeat=0, lag=False) as probe:
            assert probe.wait(30)
        assert upstream.seen[0][2]["Authorization"] == "Bearer planted-secret"
    kept = b"".join(path.read_bytes() for path in recording.path.rglob("*") if path.is_file())
    assert b"planted-secret" not in kept
    assert b"private words" not in kept
