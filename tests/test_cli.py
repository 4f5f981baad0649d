import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import Row, call, every, recording, request

from perfnb import checklist
from perfnb.recording import Recording


def perfnb(*arguments: str, cwd: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perfnb.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        check=False,
    )


def slow(at_ms: float) -> list[Row]:
    return [request(at_ms, 3100, stream=False), call(at_ms + 50, 3000, stream=False, output_tokens=200)]


@pytest.fixture
def incident(tmp_path: Path) -> Path:
    rows = every(5000, 8, slow)
    calls = [row for row in rows if "call_id" in row]
    return recording(tmp_path, calls=calls, requests=[row for row in rows if "call_id" not in row]).path


def test_diagnose_prints_the_contract(incident: Path) -> None:
    done = perfnb("diagnose", str(incident), "--format", "json")
    answers = json.loads(done.stdout)
    assert done.returncode == 0
    assert set(answers) == {"schema", "recording", "window", "findings", "clear", "not_measured"}
    assert answers["schema"] == 1
    first = answers["findings"][0]
    assert first["cause"] == "no-streaming"
    assert {
        "area",
        "severity",
        "share",
        "symptom",
        "title",
        "evidence",
        "remedy",
        "effort",
        "seeds",
        "estimate",
    } <= set(first)
    assert set(first["estimate"]) == {"metric", "before", "low", "high"}
    assert set(answers["not_measured"][0]) == {"cause", "needs"}
    answered = [each["cause"] for each in answers["findings"] + answers["not_measured"]] + answers["clear"]
    assert sorted(answered) == sorted(check.cause for check in checklist.checks())


@pytest.mark.parametrize(("severity", "code"), [("low", 1), ("critical", 1), (None, 0)])
def test_fail_on_sets_the_exit_code(incident: Path, severity: str | None, code: int) -> None:
    extra = ["--fail-on", severity] if severity else []
    assert perfnb("diagnose", str(incident), *extra).returncode == code


def test_diagnose_prints_a_table_people_can_read(incident: Path) -> None:
    shown = perfnb("diagnose", str(incident)).stdout
    assert "no-streaming" in shown
    assert "Clear" in shown
    assert "Not measured" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("diagnose", "nowhere.perfnb"), "is no recording"),
        (("diagnose", ".", "--area", "nonsense"), ""),
        (("record",), "nothing to record"),
        (("import", "nowhere.jsonl"), "nowhere.jsonl"),
        (("demo", "--fault", "nonsense", "--headless"), "nonsense"),
        (("run", "nonsense"), "nonsense"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = perfnb(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_and_objectives_answer_for_machines(tmp_path: Path) -> None:
    found = json.loads(perfnb("doctor", "--format", "json", cwd=tmp_path).stdout)
    assert {"source", "works", "found", "needs"} == set(found[0])
    rows = json.loads(perfnb("objectives", "--format", "json", cwd=tmp_path).stdout)
    assert any(row["name"] == "time_to_first_token_ms" and "A36" in row["said"] for row in rows)


def test_objectives_can_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "perfnb.toml").write_text("[objectives]\nllm_call_ms = 9000\n")
    rows = json.loads(perfnb("objectives", "--format", "json", cwd=tmp_path).stdout)
    assert next(row["value"] for row in rows if row["name"] == "llm_call_ms") == 9000
    (tmp_path / "perfnb.toml").write_text("[objectives]\nno_such_thing = 1\n")
    done = perfnb("objectives", cwd=tmp_path)
    assert done.returncode == 2
    assert "no_such_thing" in done.stderr


def test_record_runs_a_command_with_the_proxy_set_and_seals(tmp_path: Path) -> None:
    script = "import os, time; print(os.environ['OPENAI_BASE_URL'], os.environ['OTEL_EXPORTER_OTLP_ENDPOINT']); time.sleep(1)"
    done = perfnb(
        "record",
        "--upstream",
        "http://127.0.0.1:9/v1",
        "--out",
        "made.perfnb",
        "--",
        sys.executable,
        "-c",
        script,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    proxy, otlp = done.stdout.split()[-2:]
    assert proxy.startswith("http://127.0.0.1:")
    assert proxy.endswith("/v1")
    assert otlp.startswith("http://127.0.0.1:")
    assert "next: perfnb diagnose made.perfnb" in done.stderr
    assert not list((tmp_path / "made.perfnb").rglob("*.jsonl"))


def test_report_is_written(incident: Path, tmp_path: Path) -> None:
    page = tmp_path / "postmortem.html"
    assert perfnb("report", str(incident), "-o", str(page)).returncode == 0
    assert "in one piece" in page.read_text()


def test_import_counts_bad_lines_and_tells_stage_times(tmp_path: Path) -> None:
    lines = [
        json.dumps({"context": {"pipeline_stage": stage}, "execution_time_ms": ms})
        for stage, ms in (("retrieval", 12.5), ("generation", 1200.5))
    ]
    (tmp_path / "app.log").write_text("\n".join([lines[0], "no json", lines[1]]) + "\n")
    shown = perfnb("import", "app.log", "--stages", cwd=tmp_path)
    assert "generation" in shown.stdout
    assert "1200.5" in shown.stdout
    assert "app.log:2" in shown.stderr
    done = perfnb("import", "app.log", "--out", "logs.perfnb", cwd=tmp_path)
    assert "app.log:2" in done.stderr
    assert done.returncode == 0


def mine(marker: str) -> list[str]:
    """Return command lines of processes that were started with ``marker`` in their environment or arguments."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.demo
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_stopped_half_way_leaves_no_process_behind(tmp_path: Path, how: signal.Signals) -> None:
    marker = f"PERFNB_TEST_MARK={secrets.token_hex(8)}"
    name, value = marker.split("=")
    command = [
        sys.executable,
        "-m",
        "perfnb.cli",
        "demo",
        "--headless",
        "--seconds",
        "30",
        "--out",
        str(tmp_path / "out"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {name: value}) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if line.startswith("recording for"):
                break
        assert len(mine(marker)) > 4
        demo.send_signal(how)
        demo.stderr.read()
    deadline = time.monotonic() + 30
    while mine(marker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert mine(marker) == []


@pytest.mark.demo
def test_the_demo_writes_everything_and_names_what_was_staged(tmp_path: Path) -> None:
    done = perfnb(
        "demo", "--headless", "--seconds", "12", "--fault", "no-streaming", "--out", "out", cwd=tmp_path, timeout=280
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    pages = {"00_start_here.html", "01_slow_responses.html", "99_postmortem.html", "postmortem.html"}
    assert pages <= {path.name for path in out.iterdir()}
    assert json.loads((out / "findings.json").read_text())["findings"][0]["cause"] == "no-streaming"
    assert Recording.open(out / "recording.perfnb").manifest["simulated"] is True
