import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiohttp import web
from http_upstream import running

from perfnb.errors import NotReachable
from perfnb.load import Block, BlockReport, Entry, Generator, Workload, entries
from perfnb.recording import Recording
from perfnb.target import Request

FIRST_S = 0.15


async def app(request: web.Request) -> web.StreamResponse:
    if request.path == "/never":
        await asyncio.sleep(60)
    if request.path == "/frozen":  # everyone waits for this one
        time.sleep(0.5)
    if request.path == "/fails":
        return web.json_response({"error": {"code": "too_bad"}}, status=503)
    if request.path == "/stream":
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n')
        await asyncio.sleep(FIRST_S)
        await response.write(b'data: {"choices": [{"delta": {"content": "Hello"}}]}\n\n')
        await asyncio.sleep(0.05)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response
    return web.json_response({"answer": "yes"})


@contextlib.contextmanager
def loaded(tmp_path: Path, url: str, paths: list[str], **settings: Any) -> Iterator[tuple[Generator, Recording]]:
    requests = tuple(Request(url + path, json={"question": "why?"}, timeout_s=5) for path in paths)
    recording = Recording.create(tmp_path / "load.perfnb")
    with Generator(recording.path, Workload(requests, **settings)) as generator:
        yield generator, recording


def block(number: int, indices: list[int], *, apart_s: float = 0.01, arm: str | None = None) -> Block:
    each = [
        Entry(place * apart_s, index, "measure", f"{number + 1:016x}{place + 1:016x}", arm)
        for place, index in enumerate(indices)
    ]
    return Block(number, tuple(each))


def rows_of(recording: Recording) -> pd.DataFrame:
    return recording.query("SELECT * FROM http_requests ORDER BY block, start_time")


def test_blocks_are_sent_one_after_the_other_by_one_process(tmp_path: Path) -> None:
    with (
        running(app) as upstream,
        loaded(tmp_path, upstream.url, ["/a", "/stream", "/fails"]) as (generator, recording),
    ):
        pid = generator.ready["pid"]
        reports = [generator.run(block(number, [0, 1, 2], arm=f"t/{'AB'[number]}")) for number in range(2)]
        assert generator.ready["pid"] == pid
        rows = rows_of(recording)
        headers = [headers["traceparent"].split("-")[1] for _, _, headers, _ in upstream.seen]
    assert [(report.sent, report.ended, report.failed, report.rows) for report in reports] == [(3, 3, 1, 3)] * 2
    assert list(rows.arm) == ["t/A"] * 3 + ["t/B"] * 3
    assert list(rows.block) == [0] * 3 + [1] * 3
    assert set(rows.source) == {"load"}
    assert list(rows.trace_id) == headers
    assert list(rows.status_code) == [200, 200, 503] * 2
    assert list(rows.error_type.dropna()) == ["too_bad"] * 2


def test_first_content_is_past_the_role_and_bytes_are_stamped(tmp_path: Path) -> None:
    with running(app) as upstream, loaded(tmp_path, upstream.url, ["/stream"]) as (generator, recording):
        generator.run(block(0, [0]))
        (row,) = rows_of(recording).itertuples()
    assert row.time_to_first_byte_ms + FIRST_S * 900 < row.time_to_first_content_ms < row.duration_ms


def test_times_count_from_when_a_request_was_meant_to_be_sent(tmp_path: Path) -> None:
    with running(app) as upstream, loaded(tmp_path, upstream.url, ["/a", "/frozen"]) as (generator, recording):
        generator.run(block(0, [0]))
        report = generator.run(block(1, [1, 0, 0, 0], apart_s=0.02))
        rows = rows_of(recording)
    frozen, *others = rows[rows.block == 1].itertuples()
    assert frozen.route == "/frozen"
    ends = [row.start_time / 1e6 + row.duration_ms for row in others]
    assert all(row.duration_ms > 300 for row in others), "those sent meanwhile waited too, and it counts"
    assert min(ends) >= frozen.start_time / 1e6 + 450
    starts = [row.start_time for row in rows[rows.block == 1].itertuples()]
    assert [round((start - starts[0]) / 1e6) for start in starts] == [0, 20, 40, 60], "as planned, whatever happened"
    assert report.health.late_max_ms >= report.health.late_p50_ms >= 0


def test_it_halts_at_once_and_goes_on_with_the_next_block(tmp_path: Path) -> None:
    with running(app) as upstream, loaded(tmp_path, upstream.url, ["/never", "/a"]) as (generator, recording):
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        report = generator.run(block(0, [0, 0, 1] + [1] * 500, apart_s=0.02), stop=stop)
        assert not report.is_complete
        assert report.sent < 500
        assert generator.run(block(1, [1])).is_complete
        rows = rows_of(recording)
    never = rows[rows.route == "/never"]
    assert set(never.error_type) == {"unfinished"}
    assert (rows.block == 1).sum() == 1


def test_who_watches_can_halt_it(tmp_path: Path) -> None:
    with running(app) as upstream, loaded(tmp_path, upstream.url, ["/fails"]) as (generator, _):
        report = generator.run(block(0, [0] * 2000), watch=lambda progress: progress.failed < 5)
    assert not report.is_complete
    assert 5 <= report.failed < 2000


def test_leaving_ends_what_is_under_way(tmp_path: Path) -> None:
    with running(app) as upstream, loaded(tmp_path, upstream.url, ["/never"]) as (generator, recording):
        generator.order(block(0, [0]).as_order())
        while not upstream.seen:
            time.sleep(0.01)
        generator.__exit__()
        assert not generator.is_alive
        assert list(rows_of(recording).error_type) == ["unfinished"]


def test_a_worker_that_is_gone_is_told(tmp_path: Path) -> None:
    with running(app) as upstream, loaded(tmp_path, upstream.url, ["/never"]) as (generator, _):
        threading.Timer(0.3, generator._process.kill).start()  # type: ignore[union-attr]
        with pytest.raises(NotReachable):
            generator.run(block(0, [0]))


def test_an_app_that_is_not_there_fails_every_request(tmp_path: Path) -> None:
    with running(app) as upstream:
        gone = upstream.url
    with loaded(tmp_path, gone, ["/a"]) as (generator, recording):
        report = generator.run(block(0, [0, 0]))
        assert (report.sent, report.failed, report.median_ms) == (2, 2, None)
        assert set(rows_of(recording).error_type) == {"connection"}


def test_a_control_goes_beside_and_is_marked(tmp_path: Path) -> None:
    with running(app) as upstream:
        control = Request(upstream.url + "/health", method="GET")
        with loaded(tmp_path, upstream.url, ["/stream"], control=control) as (generator, recording):
            generator.run(block(0, [0, 0], apart_s=0.3, arm="t/A"))
            rows = rows_of(recording)
    beside = rows[rows.phase == "control"]
    assert set(beside.route) == {"/health"}
    assert set(beside.arm) == {"t/A"}
    assert (rows.phase == "measure").sum() == 2


def test_a_turn_becomes_a_block_and_a_report_survives_json(tmp_path: Path) -> None:
    workload = Workload((Request("http://127.0.0.1:1/"),), 10)
    made = Block(4, entries(workload.turn(0, 1, warm_up_s=0.5), arm="t/B"))
    assert [entry.phase for entry in made.entries] == ["warm-up"] * 5 + ["measure"] * 10
    assert len({entry.trace_id for entry in made.entries}) == 15
    assert Block.from_order(made.as_order()["block"]) == made
    report = BlockReport(1, 2, 2, 0, 2, 5, 6, None, True, made_health())
    assert BlockReport.from_dict(report.as_dict()) == report


def made_health() -> Any:
    from perfnb.load import Health

    return Health.of([1.0, 2.0], [0.1], busy=0.2)


def test_secrets_in_headers_are_sent_and_not_recorded(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "s.perfnb")
    with running(app) as upstream:
        request = Request(upstream.url + "/a", json={"q": "private words"}, headers={"Authorization": "Bearer planted"})
        with Generator(recording.path, Workload((request,))) as generator:
            generator.run(block(0, [0]))
        assert upstream.seen[0][2]["Authorization"] == "Bearer planted"
    kept = b"".join(path.read_bytes() for path in recording.path.rglob("*") if path.is_file())
    assert b"planted" not in kept
    assert b"private words" not in kept
