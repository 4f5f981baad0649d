import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.prompts.digest import Digester
from perfnb.recording import Recording
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.recorder import (
    EVENT,
    EXCHANGE,
    FULL_AT_BYTES,
    GROUP,
    HEADER,
    Inbox,
    Recorder,
    batches,
    to_row,
)
from perfnb.sources.traffic.recorder_link import RecorderLink

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "private words of a person"}]}).encode()


def exchange(number: int = 0) -> Exchange:
    made = Exchange("POST", "/v1/chat/completions", time.time_ns() + number, time.perf_counter())
    made.status, made.answered, made.ended = 200, time.perf_counter(), time.perf_counter()
    made.sent(BODY, 10**6)
    made.received(b"{}", time.perf_counter(), 10**6)
    return made


def recorder_of(path: Path) -> Recorder:
    return Recorder(path, to_row("llm", "openai", Digester(b"k" * 32)))


def messages(count: int) -> list[tuple[int, memoryview]]:
    return [(EXCHANGE, memoryview(exchange(number).encoded())) for number in range(count)]


def rows_in(path: Path, table: str = "llm_calls") -> int:
    with Recording.open(path) as recording:
        return len(recording.query(f"SELECT 1 FROM {table}"))


def test_an_exchange_survives_the_way_to_the_recorder() -> None:
    before = exchange()
    before.path, before.end, before.connection_id, before.arm = "/ü", "broken", 3, "b"
    before.request_headers = {"traceparent": "x"}
    after = Exchange.decoded(before.encoded())
    for name in ("method", "path", "started_ns", "end", "connection_id", "arm", "status", "request_headers", "pieces"):
        assert getattr(after, name) == getattr(before, name)
    assert (after.request_body, after.answer) == (BODY, [b"{}"])
    assert after.answered is not None
    assert 0 <= after.answered <= after.times[0]
    assert after.duration_ms >= 0


@given(st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=50)), max_size=8), st.integers(1, 30))
def test_messages_are_the_same_however_they_are_read(sent: list[tuple[int, bytes]], size: int) -> None:
    stream = b"".join(HEADER.pack(kind, len(data)) + data for kind, data in sent)
    reads = [stream[at : at + size] for at in range(0, len(stream), size)] + [b""]
    got = [(kind, bytes(data)) for batch in batches(0, read=lambda fd, n: reads.pop(0)) for kind, data in batch]
    assert got == sent


@pytest.mark.parametrize("cut", [1, 5, 6, 20])
def test_half_a_message_at_the_end_is_left_out(cut: int) -> None:
    whole = HEADER.pack(EXCHANGE, 30) + b"x" * 30
    reads = [whole + whole[:cut], b""]
    assert len([message for batch in batches(0, read=lambda fd, n: reads.pop(0)) for message in batch]) == 1


def test_a_body_no_one_thought_of_costs_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = Recording.create(tmp_path / "r.perfnb")

    def breaks(exchange: Exchange, is_bare: bool) -> tuple[str, Any]:
        if not is_bare:
            raise KeyError("private words of a person")
        return to_row("llm", "openai", Digester(b"k"))(exchange, True)

    recorder = Recorder(recording.path, breaks)
    recorder.take(messages(2))
    recorder.close()
    assert rows_in(recording.path) == 2
    assert recorder.counters == {"done": 2, "rows": 2, "unread": 2, "unwritten": 0}
    assert "private" not in capsys.readouterr().err


def is_a_file(recording: Path) -> Callable[[], object]:
    (recording / "llm_calls").write_text("in the way")
    return (recording / "llm_calls").unlink


def is_gone(recording: Path) -> Callable[[], object]:
    kept = recording.with_suffix(".kept")
    recording.rename(kept)
    return lambda: kept.rename(recording)


@pytest.mark.parametrize("harm", [is_a_file, is_gone])
def test_what_can_not_be_written_is_counted_and_told_when_it_works_again(tmp_path: Path, harm: Any) -> None:
    recording = Recording.create(tmp_path / "r.perfnb")
    recorder = recorder_of(recording.path)
    mend = harm(recording.path)
    recorder.take(messages(3))
    assert recorder.counters == {"done": 3, "rows": 0, "unread": 0, "unwritten": 3}
    mend()
    recorder.take(messages(2))
    recorder.close()
    assert rows_in(recording.path) == 2
    with recording:
        (event,) = recording.query("SELECT * FROM events").itertuples()
    assert event.kind == "source"
    assert event.title.startswith("3 rows could not be written")


def test_a_recording_that_was_deleted_gets_no_rows_and_no_folder(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "r.perfnb")
    recorder = recorder_of(recording.path)
    recorder.take(messages(1))
    shutil.rmtree(recording.path)
    recorder.take(messages(2))
    recorder.close()
    assert not recording.path.exists()
    assert recorder.counters["unwritten"] == 2


def with_link(path: Path, use: Any, **settings: Any) -> RecorderLink:
    async def main() -> RecorderLink:
        link = RecorderLink([str(path), "llm", "openai"], name="LLM proxy", **settings)
        await link.start()
        try:
            await use(link)
        finally:
            await link.close()
        return link

    return asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def titles(path: Path) -> list[str]:
    with Recording.open(path) as recording:
        return list(recording.query("SELECT title FROM events ORDER BY time").title)


def test_all_that_was_handed_over_is_written(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "r.perfnb")

    async def use(link: RecorderLink) -> None:
        for number in range(300):
            link.send(exchange(number))

    link = with_link(recording.path, use)
    assert rows_in(recording.path) == 300
    assert link.counters == {"exchanges": 300, "rows": 300, "dropped": 0, "errors": 0, "recorder_restarts": 0}
    assert titles(recording.path) == []


def test_a_recorder_that_is_killed_is_replaced_and_the_timeline_says_so(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "r.perfnb")

    async def use(link: RecorderLink) -> None:
        link.send(exchange())
        await until(lambda: link.counters["rows"] == 1)
        first = link.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: link.pid != first)
        link.send(exchange())  # nobody is there: dropped
        await until(lambda: link.pid is not None)
        link.send(exchange())
        await until(lambda: link.counters["rows"] >= 2)

    link = with_link(recording.path, use)
    assert link.counters["recorder_restarts"] == 1
    assert link.counters["dropped"] == 1
    assert link.counters["exchanges"] == 3
    assert rows_in(recording.path) == 2
    (title,) = titles(recording.path)
    assert title == "LLM proxy: the recorder ended and was started again; 1 exchange was not recorded"


def test_a_recorder_that_hangs_fills_its_backlog_and_then_exchanges_are_dropped(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "r.perfnb")
    size = len(exchange().encoded())

    async def use(link: RecorderLink) -> None:
        link.send(exchange())
        await until(lambda: link.counters["rows"] == 1)
        assert link.pid is not None
        os.kill(link.pid, signal.SIGSTOP)
        number = 0
        while not link.dropped:
            link.send(exchange())
            number += 1
            if number % 50 == 0:
                await asyncio.sleep(0.03)
        assert number * size > 2**20
        os.kill(link.pid, signal.SIGCONT)
        await until(lambda: link.counters["rows"] == link.counters["exchanges"] - link.dropped)
        link.send(exchange())
        await until(lambda: link.counters["rows"] > number)

    link = with_link(recording.path, use, backlog_bytes=2**20)
    assert link.counters["dropped"] == 1
    assert rows_in(recording.path) == link.counters["exchanges"] - 1
    assert titles(recording.path) == ["LLM proxy: 1 exchange was not recorded: the recorder did not keep up"]


def test_without_a_recording_everything_is_dropped_and_counted(tmp_path: Path) -> None:
    async def use(link: RecorderLink) -> None:
        for _ in range(3):
            link.send(exchange())
            await asyncio.sleep(0.3)

    link = with_link(tmp_path / "nowhere", use)
    assert link.counters["exchanges"] == 3
    assert link.counters["rows"] == 0
    assert link.counters["dropped"] == 3
    assert not (tmp_path / "nowhere").exists()


def test_events_are_written_as_they_are(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "r.perfnb")
    recorder = recorder_of(recording.path)
    recorder.take([(EVENT, memoryview(json.dumps({"time": 1, "kind": "source", "title": "t", "body": {}}).encode()))])
    recorder.close()
    assert titles(recording.path) == ["t"]


@given(st.lists(st.integers(0, 40), max_size=5))
def test_the_inbox_gives_all_in_order_in_small_groups(sizes: list[int]) -> None:
    sent = [[(EXCHANGE, memoryview(b"%d" % number)) for number in range(size)] for size in sizes]
    inbox = Inbox(sent)
    groups = list(inbox)
    assert [message for group in groups for message in group] == [message for batch in sent for message in batch]
    assert all(0 < len(group) <= GROUP for group in groups)
    assert inbox.is_empty
    assert inbox.is_pressing


def test_the_inbox_presses_when_much_is_waiting_and_stops_reading_when_it_is_full() -> None:
    piece, read = memoryview(bytes(2**20)), []

    def incoming() -> Iterator[list[tuple[int, memoryview]]]:
        for number in range(50):
            read.append(number)
            yield [(EXCHANGE, piece)]

    inbox = Inbox(incoming())
    before = -1
    while before != len(read):
        before = len(read)
        time.sleep(0.2)
    assert len(read) == FULL_AT_BYTES // 2**20 + 1
    assert inbox.is_pressing
    assert not inbox.has_ended
    assert sum(len(group) for group in inbox) == 50
