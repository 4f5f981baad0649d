import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from perfnb.errors import WrongUse
from perfnb.sources.log_formats import PRESETS, BadLine, LogFormat, detect, mapped_format, row_of
from perfnb.sources.logs import Logs
from perfnb.sources.times import as_nanoseconds

NOW = 1_790_000_000_000_000_000
PIPELINE, PERFORMANCE, OTHER = PRESETS


def encoded(line: Any) -> bytes:
    return json.dumps(line).encode()


def stage(name: str = "retrieval", ms: Any = 12.5, **more: Any) -> dict[str, Any]:
    """Return a line as seed C8 writes it."""
    return {"timestamp": "2026-09-21T14:13:20Z", "context": {"pipeline_stage": name}, "execution_time_ms": ms} | more


def performance(function: str = "call_llm", ms: float = 2450.5, status: str = "success", **more: Any) -> dict[str, Any]:
    """Return a line as seed D4 writes it."""
    return {
        "component": "Performance",
        "function": function,
        "duration_ms": ms,
        "duration_s": ms / 1000,
        "status": status,
    } | more


def test_a_pipeline_stage_is_a_step_that_ended_when_it_was_logged() -> None:
    row = row_of(PIPELINE, encoded(stage()), NOW)
    assert row
    assert (row["name"], row["operation"], row["duration_ms"], row["status"]) == ("retrieval", "step", 12.5, "UNSET")
    assert row["start_time"] == NOW - 12_500_000
    assert (row["trace_id"], row["span_id"], row["source"]) == (None, None, "logs")


@pytest.mark.parametrize(
    ("function", "status", "operation", "ended"),
    [
        ("call_llm", "success", "chat", "OK"),
        ("execute_tools", "error", "tool", "ERROR"),
        ("process_turn", "success", "agent", "OK"),
        ("retrieve_documents", "FAILED", "retrieval", "ERROR"),
        ("save_state", "success", "step", "OK"),
    ],
)
def test_performance_lines_tell_the_kind_of_work_by_their_function(
    function: str, status: str, operation: str, ended: str
) -> None:
    row = row_of(PERFORMANCE, encoded(performance(function, status=status)), NOW)
    assert row
    assert (row["operation"], row["status"], row["start_time"]) == (operation, ended, NOW - 2_450_500_000)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([{"message": "start"}, stage(), stage()], PIPELINE),
        ([performance(), performance()], PERFORMANCE),
        ([{"step": "embed", "elapsed_ms": 3}], OTHER),
        ([{"message": "start"}, {"duration_ms": 4}], None),
        ([], None),
    ],
)
def test_the_preset_is_told_by_the_first_lines(lines: list[Any], expected: LogFormat | None) -> None:
    assert detect([b"not json", *map(encoded, lines)]) is expected


@pytest.mark.parametrize(
    "line",
    [stage(ms=None), stage(ms="fast"), stage(ms=[1]), stage(""), {"execution_time_ms": 3}, {"context": "text", "execution_time_ms": 3}],
)  # fmt: skip
def test_lines_without_a_name_or_a_duration_are_no_steps(line: dict[str, Any]) -> None:
    assert row_of(PIPELINE, encoded(line), NOW) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[1]",
        b"text",
        b'"x"',
        b"\xff",
        encoded(stage(ms=-1)),
        encoded(stage(ms=1e13)),
        encoded(stage(timestamp="soon")),
    ],
)
def test_lines_that_can_not_be_read_say_why(raw: bytes) -> None:
    with pytest.raises(BadLine, match=r"\w+ \w+"):
        row_of(PIPELINE, raw, NOW)


def test_a_mapping_names_any_field_by_its_path() -> None:
    format_ = mapped_format(
        {"time": "t.at", "duration_s": "took", "name": "a.b", "trace_id": "id", "parent": "up", "status": "ok", "service": "app.name"}
    )  # fmt: skip
    assert format_
    line = {
        "t": {"at": 1_790_000_000_000},
        "took": "1.5",
        "a": {"b": "step"},
        "id": 7,
        "up": "x",
        "ok": "timeout",
        "app.name": "api",
    }
    row = row_of(format_, encoded(line), NOW)
    assert row
    assert (row["start_time"], row["duration_ms"]) == (NOW - 1_500_000_000, 1500.0)
    assert (row["trace_id"], row["parent_span_id"], row["status"], row["error_type"]) == ("7", "x", "ERROR", "error")
    assert row["service"] == "api"
    assert len(row["span_id"]) == 16


def test_the_mapping_stands_in_perfnb_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert mapped_format() is None
    (tmp_path / "perfnb.toml").write_text('[logs]\nname = "s"\nduration_ms = ["d", "e"]\n')
    made = mapped_format()
    assert made
    assert (made.name, made.duration_ms) == (("s",), ("d", "e"))


@pytest.mark.parametrize(
    "mapping", [{"name": "x"}, {"duration_ms": "x"}, {"name": "x", "duration_ms": "y", "colour": "z"}]
)
def test_a_mapping_that_makes_no_sense_says_what_is_missing(mapping: dict[str, str]) -> None:
    with pytest.raises(WrongUse) as told:
        mapped_format(mapping)
    assert told.value.hint


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-09-21T14:13:20Z", NOW),
        ("2026-09-21T14:13:20", NOW),
        ("2026-09-21T16:13:20+02:00", NOW),
        ("2026-09-21 14:13:20,250", NOW + 250_000_000),
        ("2026-09-21T14:13:20.000001Z", NOW + 1000),
        (1_790_000_000, NOW),
        (1_790_000_000.5, NOW + 500_000_000),
        (1_790_000_000_000, NOW),
        (1_790_000_000_000_000, NOW),
        (NOW, NOW),
        (str(NOW), NOW),
        ("1790000000.5", NOW + 500_000_000),
    ],
)
def test_times(given: Any, expected: int) -> None:
    assert as_nanoseconds(given) == expected


@pytest.mark.parametrize("given", ["", "soon", None, True, -5, 0, "1960-01-01T00:00:00Z", 1e30, "nan"])
def test_no_times(given: Any) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        as_nanoseconds(given)


class Written:
    def __init__(self) -> None:
        self.names: list[str] = []

    def emit(self, table: str, rows: Iterable[Any]) -> int:
        assert table == "spans"
        before = len(self.names)
        self.names += [row["name"] for row in rows]
        return len(self.names) - before


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    assert true()


def append(path: Path, *lines: Any, end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + end)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    append(path, stage("old"))
    return path


def test_new_lines_are_read_as_they_come_and_old_ones_left_out(log: Path) -> None:
    written = Written()
    with Logs(written.emit, [log], poll_s=0.01) as logs:
        append(log, stage("a"), {"message": "other"}, "", "no json")
        until(lambda: written.names == ["a"])
        append(log, stage("b"))
        until(lambda: written.names == ["a", "b"])
        until(lambda: logs.counters.get("bad") == 1)
    assert logs.counters == {"spans": 2, "other": 1, "bad": 1}
    assert logs.bad == [(str(log), 5, "no JSON object")]


def test_a_line_waits_for_its_end(log: Path) -> None:
    written, line = Written(), json.dumps(stage("late"))
    with Logs(written.emit, [log], poll_s=0.01):
        append(log, line[:20], end="")
        time.sleep(0.1)
        assert written.names == []
        append(log, line[20:])
        until(lambda: written.names == ["late"])


def test_the_last_line_counts_without_its_end_where_it_is_whole(log: Path) -> None:
    written = Written()
    with Logs(written.emit, [log], poll_s=60):
        append(log, stage("last"), end="")
    assert written.names == ["last"]
    with Logs(written.emit, [log], from_start=True, poll_s=60) as logs:
        append(log, '{"torn', end="")
    assert logs.counters["torn"] == 1


def test_a_rotated_log_is_read_to_its_end_and_followed_in_the_new_file(log: Path) -> None:
    written = Written()
    with Logs(written.emit, [log], poll_s=0.01):
        append(log, stage("before"))
        log.rename(log.with_suffix(".1"))
        append(log.with_suffix(".1"), stage("into the old"))
        until(lambda: written.names == ["before", "into the old"])
        append(log, stage("new"))
        until(lambda: written.names[2:] == ["new"])


def test_a_truncated_log_is_read_from_its_start(log: Path) -> None:
    written = Written()
    with Logs(written.emit, [log], poll_s=0.01):
        append(log, stage("before"))
        until(lambda: written.names == ["before"])
        os.truncate(log, 0)
        append(log, stage("x"))
        until(lambda: written.names == ["before", "x"])


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    written, path = Written(), tmp_path / "later.log"
    logs = Logs(written.emit, [path], poll_s=0.01)
    assert not logs.probe().works
    assert "later.log" in logs.probe().needs
    with logs:
        append(path, stage("a"))
        until(lambda: written.names == ["a"])
    assert logs.probe().works


def test_several_logs_may_have_several_formats(tmp_path: Path) -> None:
    written, one, two = Written(), tmp_path / "one.log", tmp_path / "two.log"
    with Logs(written.emit, [one, two], poll_s=0.01):
        append(one, stage("a"))
        append(two, performance("b", timestamp=1_790_000_000))
        until(lambda: sorted(written.names) == ["a", "b"])


def test_a_recording_that_can_not_be_written_is_counted_and_survived(log: Path) -> None:
    def refuse(table: str, rows: Iterable[Any]) -> int:
        raise OSError("disk full")

    with Logs(refuse, [log], poll_s=0.01) as logs:
        append(log, stage("a"))
        until(lambda: logs.counters.get("errors", 0) >= 1)
