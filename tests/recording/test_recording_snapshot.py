"""A recording that is being written, as it was at one moment."""

from pathlib import Path

from builders import call, recording, request

from perfnb.recording import Recording, Snapshot, Writer
from perfnb.recording.snapshot import STANDS_S

COUNT = "SELECT count(*) AS n FROM llm_calls"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def count(seen: Recording) -> int:
    return int(seen.query(COUNT)["n"].iloc[0])


def snapshot(made: Recording) -> tuple[Snapshot, Clock]:
    clock = Clock()
    return Snapshot(made.path, made.manifest, clock=clock), clock


def test_rows_written_meanwhile_are_not_seen_neither_in_old_files_nor_in_new_ones(tmp_path: Path) -> None:
    made = recording(tmp_path, requests=[request()])
    with made.writer() as first, made.writer() as second:
        first.write("llm_calls", [call()])
        seen, _ = snapshot(made)
        assert count(seen) == 1
        first.write("llm_calls", [call(5)])
        second.write("llm_calls", [call(9)])
        assert count(made) == 3
        assert count(seen) == 1
        assert len(seen.query("FROM http_requests")) == 1


def test_a_journal_that_is_sealed_meanwhile_is_counted_once(tmp_path: Path) -> None:
    made = recording(tmp_path, calls=[])
    with made.writer() as writer:
        writer.write("llm_calls", [call()])
        seen, _ = snapshot(made)
        assert count(seen) == 1
    assert count(seen) == 1
    seen.renew()
    assert count(seen) == 1


def test_rows_are_renewed_a_minute_after_the_last_work(tmp_path: Path) -> None:
    made = recording(tmp_path, calls=[])
    with made.writer() as writer:
        writer.write("llm_calls", [call()])
        seen, clock = snapshot(made)
        first = seen.derived("memo", object)
        writer.write("llm_calls", [call(5)])
        clock.now = STANDS_S - 1
        assert count(seen) == 1
        seen.derived("another", object)  # something is worked out, so the rows stand for another minute
        clock.now = 2 * STANDS_S - 2
        assert count(seen) == 1
        assert seen.derived("memo", object) is first
        clock.now = 2 * STANDS_S
        assert count(seen) == 2
        assert seen.derived("memo", object) is not first


def test_renewing_without_new_rows_keeps_what_was_worked_out(tmp_path: Path) -> None:
    seen, _ = snapshot(recording(tmp_path, calls=[call()]))
    first = seen.derived("memo", object)
    seen.renew()
    assert seen.derived("memo", object) is first


def test_torn_lines_and_held_rows_are_as_in_any_recording(tmp_path: Path) -> None:
    made = recording(tmp_path, calls=[call()])
    with made.writer() as writer:
        writer.write("llm_calls", [call(5)])
        (journal,) = (made.path / "llm_calls").glob("*.jsonl")
        with journal.open("a") as file:
            file.write('{"call_id": "torn')
        seen, clock = snapshot(made)
        with seen.held():
            assert count(seen) == 2
            clock.now = 10 * STANDS_S
            writer_of_another = Writer(made.path)
            writer_of_another.write("llm_calls", [call(9)])
            assert count(seen) == 2
        assert count(seen) == 3
        writer_of_another.close()
