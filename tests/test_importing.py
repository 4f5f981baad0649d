import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfnb.errors import NotReachable, WrongUse
from perfnb.importing import import_files, stages
from perfnb.recording import Recording
from perfnb.sources.log_formats import PRESETS, BadLine, LogFormat, mapped_format, row_of

FIXTURES = Path(__file__).parent / "sources" / "otlp_fixtures"
PIPELINE, PERFORMANCE, _ = PRESETS
COLUMNS = [
    "name",
    "trace_id",
    "start_time",
    "duration_ms",
    "status",
    "operation",
    "service",
    "parent_span_id",
    "error_type",
]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording.create(tmp_path / "made.perfnb")


def stage(name: Any = "retrieval", ms: Any = 12.5, **more: Any) -> dict[str, Any]:
    context = {"pipeline_stage": name, "request_id": "r1"}
    return {"timestamp": "2026-09-21T14:13:20.5Z", "context": context, "execution_time_ms": ms} | more


def write(path: Path, *lines: Any) -> Path:
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return path


def test_traces_become_spans_and_calls(recording: Recording) -> None:
    imported = import_files(recording, [FIXTURES / "otel.jsonl", FIXTURES / "openinference.jsonl"])
    assert imported.rows == {"spans": 24, "llm_calls": 10}
    assert imported.lines()[0].endswith("otel.jsonl: OTLP traces")
    assert int(recording.query("SELECT count(*) AS n FROM llm_calls")["n"][0]) == 10


def test_a_document_over_many_lines_and_packed_files_are_read(recording: Recording, tmp_path: Path) -> None:
    document = json.loads((FIXTURES / "otel.jsonl").read_text())
    (tmp_path / "pretty.json").write_text(json.dumps(document, indent=2))
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress((FIXTURES / "openllmetry.jsonl").read_bytes()))
    imported = import_files(recording, [tmp_path / "pretty.json", tmp_path / "packed.jsonl.gz"])
    assert (imported.rows["spans"], imported.bad_lines) == (24, 0)


def test_metrics_and_logs_in_otlp_json(recording: Recording, tmp_path: Path) -> None:
    point = {"timeUnixNano": "1790000000000000000", "asInt": "3"}
    metrics = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "gauge": {"dataPoints": [point]}}]}]}]}
    message = '[{"role":"user","parts":[{"type":"text","content":"hello"}]}]'
    record = {
        "traceId": "a" * 32, "spanId": "b" * 16, "eventName": "gen_ai.client.inference.operation.details",
        "attributes": [{"key": "gen_ai.input.messages", "value": {"stringValue": message}}],
    }  # fmt: skip
    span = {
        "traceId": "a" * 32, "spanId": "b" * 16, "name": "chat", "startTimeUnixNano": "1", "endTimeUnixNano": "2",
        "attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}],
    }  # fmt: skip
    files = [
        write(tmp_path / "traces.jsonl", {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}),
        write(tmp_path / "metrics.jsonl", metrics),
        write(tmp_path / "logs.jsonl", {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}),
    ]
    imported = import_files(recording, files)
    assert imported.rows == {"spans": 1, "llm_calls": 1, "samples": 1}
    assert recording.query("SELECT messages FROM llm_calls")["messages"][0] is not None


def test_bad_lines_of_traces_are_told_with_file_and_line(recording: Recording, tmp_path: Path) -> None:
    good = (FIXTURES / "otel.jsonl").read_bytes().strip()
    broken = {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "x"}, {"name": "y"}]}]}]}
    path = write(tmp_path / "t.jsonl", good, b"{torn", b"", {"other": 1}, broken)
    imported = import_files(recording, [path])
    assert imported.rows["spans"] == 12
    assert imported.bad_lines == 4
    assert [(bad.line, str(bad).split(":")[1]) for bad in imported.bad] == [(2, "2"), (4, "4"), (5, "5")]
    assert "4 bad lines were left out" in imported.lines()


def test_logs_become_steps_whatever_else_they_hold(recording: Recording, tmp_path: Path) -> None:
    path = write(
        tmp_path / "app.log",
        stage("retrieval", 10),
        {"timestamp": "2026-09-21T14:13:20Z", "message": "other"},
        b"Traceback (most recent call last):",
        b"",
        stage("generation", "20.5"),
        stage("generation", None),
        stage("odd", 5, timestamp="2026-09-21T16:13:20+02:00"),
        stage("bad time", 5, timestamp="soon"),
        stage("backwards", -5),
        b'{"torn": ',
    )
    imported = import_files(recording, [path])
    found = recording.query("SELECT name, duration_ms, start_time FROM spans ORDER BY name")
    assert list(found.itertuples(index=False, name=None)) == [
        ("generation", 20.5, 1_790_000_000_479_500_000),
        ("odd", 5.0, 1_789_999_999_995_000_000),
        ("retrieval", 10.0, 1_790_000_000_490_000_000),
    ]
    assert imported.rows["spans"] == 3
    assert [(bad.line, bad.reason.split(" ")[0]) for bad in imported.bad] == [
        (3, "no"),
        (8, "no"),
        (9, "duration"),
        (10, "no"),
    ]


def test_the_performance_log_of_the_seed_has_no_time_and_takes_the_files(recording: Recording, tmp_path: Path) -> None:
    line = {
        "component": "Performance",
        "function": "process_turn",
        "duration_ms": 2450.5,
        "duration_s": 2.4505,
        "status": "success",
    }
    path = write(
        tmp_path / "app.log", line, line | {"component": "Other"}, line | {"function": "call_llm", "status": "error"}
    )
    import_files(recording, [path])
    found = recording.query("SELECT name, operation, status, start_time FROM spans ORDER BY name")
    assert list(found["operation"]) == ["chat", "agent"]
    assert list(found["status"]) == ["ERROR", "OK"]
    assert set(found["start_time"]) == {path.stat().st_mtime_ns - 2_450_500_000}


def test_a_mapping_reads_any_log(recording: Recording, tmp_path: Path) -> None:
    path = write(tmp_path / "app.log", {"a": {"b": "x"}, "took": 2, "at": 1_790_000_000_123})
    imported = import_files(recording, [path], mapping={"name": "a.b", "duration_s": "took", "time": "at"})
    assert imported.rows["spans"] == 1
    found = recording.query("SELECT name, duration_ms, start_time FROM spans")
    assert tuple(found.iloc[0]) == ("x", 2000.0, 1_789_999_998_123_000_000)


def test_more_bad_lines_than_are_shown_are_counted(recording: Recording, tmp_path: Path) -> None:
    imported = import_files(recording, [write(tmp_path / "app.log", stage(), *[b"no"] * 50)])
    assert (imported.bad_lines, len(imported.bad), imported.lines()[-1]) == (50, 20, "  …")


def test_collapsed_stacks(recording: Recording, tmp_path: Path) -> None:
    path = write(tmp_path / "s.txt", b"main;run (app.py:3);work 12", b"main;idle 3", b"main", b"a b;c d 4")
    imported = import_files(recording, [path])
    found = recording.query("SELECT stack, samples, mode FROM stacks ORDER BY samples DESC")
    assert list(found["stack"]) == ["main;run (app.py:3);work", "a b;c d", "main;idle"]
    assert set(found["mode"]) == {"profile"}
    assert [bad.line for bad in imported.bad] == [3]


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "empty"),
        (b"hello\nworld\n", "collapsed"),
        (b'{"a": 1}\n', "[logs]"),
        (b"\x00\x01\x02" * 100, "collapsed"),
        (b"[1, 2]\n", "collapsed"),
    ],
)
def test_unknown_contents_are_told_before_anything_is_written(
    recording: Recording, tmp_path: Path, content: bytes, hint: str
) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(WrongUse) as told:
        import_files(recording, [FIXTURES / "otel.jsonl", tmp_path / "x"])
    assert hint in told.value.hint
    assert not recording.has("spans")


def test_a_missing_file_and_a_broken_archive_are_told(recording: Recording, tmp_path: Path) -> None:
    with pytest.raises(NotReachable):
        import_files(recording, [tmp_path / "none"])
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"text" * 1000)[:20])
    with pytest.raises(WrongUse):
        import_files(recording, [tmp_path / "x.gz"])


def test_an_import_adds_to_what_is_there(recording: Recording, tmp_path: Path) -> None:
    for number in range(2):
        import_files(recording, [write(tmp_path / f"{number}.log", stage(f"s{number}"))])
    assert sorted(recording.query("SELECT name FROM spans")["name"]) == ["s0", "s1"]


def test_the_stage_table_of_a_log_needs_no_recording(tmp_path: Path) -> None:
    lines = [stage("a", ms) for ms in (1, 2, 3, 4)] + [
        stage("b", 100),
        stage("b", None),
        {"timestamp": "2026-09-21T14:13:20Z"},
    ]
    found = stages(write(tmp_path / "good.log", *lines))
    assert [row[:4] for row in found.rows] == [("b", 1, 100.0, 100.0), ("a", 4, 2.5, 4.0)]
    assert found.rows[1][4:] == (2.5, pytest.approx(3.85), pytest.approx(3.97))
    assert found.lines.bad == 0
    bad = stages(write(tmp_path / "bad.log", *lines, b"torn"))
    assert (bad.rows, bad.lines.bad, bad.lines.shown) == (found.rows, 1, [(8, "no JSON object")])


names = st.sampled_from(["a", "b", "", None, 5, "call_llm"])
numbers = st.one_of(
    st.floats(0, 1e6),
    st.integers(-2, 1000),
    st.sampled_from(["1.5", " 2 ", "1e3", "nan", "inf", "x", None, True, 1e13]),
)
times = st.sampled_from(
    ["2026-09-21T14:13:20Z", "2026-09-21T14:13:20.123456Z", "2026-09-21T16:13:20+02:00", "2026-09-21 14:13:20,5", "soon", None,
     1_790_000_000, 1_790_000_000_250, 1_790_000_000.5]
)  # fmt: skip
log_lines = st.one_of(
    st.builds(lambda name, ms, at: json.dumps(stage(name, ms, timestamp=at)).encode(), names, numbers, times),
    st.builds(lambda text: json.dumps({"timestamp": "2026-09-21T14:13:20Z", "context": text}).encode(), st.text(max_size=3)),
    st.sampled_from([b"", b"  ", b"text", b"[]", b"{", b"{}", b'{"a": "\xff"}', b'{"context": {}}', b'"x"', b"null"]),
)  # fmt: skip


def line_by_line(lines: list[bytes], format_: LogFormat, now: int) -> tuple[list[Any], list[int]]:
    rows, bad = [], []
    for number, line in enumerate(lines, 1):
        try:
            row = row_of(format_, line, now) if line.strip() else None
        except BadLine:
            bad.append(number)
            continue
        rows += [tuple(row[name] for name in COLUMNS)] if row else []
    return sorted(rows, key=repr), bad


@settings(max_examples=60, deadline=None)
@given(st.lists(log_lines, min_size=1, max_size=12))
def test_whole_files_read_as_line_by_line(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("parity")
    path = write(folder / "app.log", json.dumps(stage("first", 1)).encode(), *lines)
    with Recording.create(folder / "a.perfnb") as made:
        imported = import_files(made, [path])
        frame = made.query(f"SELECT {', '.join(COLUMNS)} FROM spans")
    found = sorted(
        (tuple(None if v != v else v for v in row) for row in frame.itertuples(index=False, name=None)), key=repr
    )
    expected, bad = line_by_line(path.read_bytes().split(b"\n"), PIPELINE, path.stat().st_mtime_ns)
    assert [bad.line for bad in imported.bad] == bad
    assert found == expected
    assert mapped_format({}) is None
