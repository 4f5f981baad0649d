"""What `perfnb record` tells of a command that ends, and where it receives traces of an app that runs already."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfnb.recorder import Recorder, is_free
from perfnb.recording import Recording
from perfnb.target import Target
from perfnb.terminal import ending

RECORD = [sys.executable, "-m", "perfnb.cli", "record", "--upstream", "http://127.0.0.1:9/v1", "--out"]


def recorded(folder: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*RECORD, "made.perfnb", *options, "--", sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, check=False)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, ""),
        (0, " (the command ended by itself, with exit code 0)"),
        (1, " (the command ended by itself, with exit code 1: see what it printed)"),
        (-9, " (the command ended by itself, killed by signal 9: see what it printed)"),
    ],
)
def test_how_a_command_ended(code: int | None, said: str) -> None:
    assert ending(code) == said


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit(1)", "with exit code 1: see what it printed"),
        ("import no_such_module", "with exit code 1: see what it printed"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9: see what it printed"),
        ("print('done')", "with exit code 0)"),
    ],
)
def test_a_command_that_ends_by_itself_is_told(tmp_path: Path, script: str, said: str) -> None:
    done = recorded(tmp_path, script)
    assert done.returncode == 0, "the recording was made"
    summary = next(line for line in done.stderr.splitlines() if line.startswith("recorded: made.perfnb "))
    assert said in summary
    with Recording.open(tmp_path / "made.perfnb") as made:
        ends = made.query("SELECT title, body FROM events WHERE title = 'the command ended by itself'")
    assert len(ends) == 1
    assert "exit_code" in str(ends["body"].iloc[0])


def test_a_command_that_perfnb_stops_did_not_end_by_itself(tmp_path: Path) -> None:
    done = recorded(tmp_path, "import time; time.sleep(600)", "--seconds", "1")
    assert "recorded: made.perfnb\n" in done.stderr


def test_a_command_that_ctrl_c_stops_did_not_end_by_itself(tmp_path: Path) -> None:
    command = [
        *RECORD,
        "made.perfnb",
        "--",
        sys.executable,
        "-c",
        "import time; print('up', flush=True); time.sleep(600)",
    ]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                               start_new_session=True)  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"
    time.sleep(1)  # the command is up before all sources are
    os.killpg(running.pid, signal.SIGINT)  # as a terminal sends it, to the command as well
    _, said = running.communicate(timeout=60)
    assert "the command ended by itself" not in said


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_port_is_free_where_nothing_listens(taken: int) -> None:
    assert not is_free(taken)
    assert is_free(free())


def test_traces_of_an_app_that_runs_already_come_to_the_standard_ports(tmp_path: Path) -> None:
    ports = free(), free()
    told: list[str] = []
    with Recorder(Target(otlp=True), tmp_path / "made.perfnb", tell=told.append, otlp_ports=ports) as recorder:
        assert recorder.environment()["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://127.0.0.1:{ports[0]}"
        assert getattr(recorder.running["otlp"], "grpc_url", None) in (None, f"http://127.0.0.1:{ports[1]}")
    assert told == []


def test_any_port_will_do_where_none_is_asked_for(tmp_path: Path) -> None:
    told: list[str] = []
    with Recorder(Target(otlp=True), tmp_path / "made.perfnb", tell=told.append) as recorder:
        assert not recorder.environment()["OTEL_EXPORTER_OTLP_ENDPOINT"].endswith((":0", ":4318"))
    assert told == []


def test_where_a_standard_port_is_taken_another_is_told(tmp_path: Path, taken: int) -> None:
    told: list[str] = []
    ports = taken, free()
    with Recorder(Target(otlp=True), tmp_path / "made.perfnb", tell=told.append, otlp_ports=ports) as recorder:
        address = recorder.environment()["OTEL_EXPORTER_OTLP_ENDPOINT"]
        assert int(address.rpartition(":")[2]) not in (0, taken)
    assert told == [f"port {taken} is taken: point the app at the address below"]


def test_a_command_is_told_its_address_so_that_any_port_will_do(tmp_path: Path, taken: int) -> None:
    told: list[str] = []
    target = Target(command=(sys.executable, "-c", "import time; time.sleep(600)"), upstream="http://127.0.0.1:9/v1")
    ports = free(), taken
    with Recorder(target, tmp_path / "made.perfnb", tell=told.append, otlp_ports=ports) as recorder:
        assert not recorder.environment()["OTEL_EXPORTER_OTLP_ENDPOINT"].endswith(f":{ports[0]}")
        assert recorder.exit_code is None
    assert not [line for line in told if "taken" in line]


def test_the_address_is_printed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perfnb.cli", "record", "--otlp", "--seconds", "0.2", "--out", "made.perfnb"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:" in done.stderr


ASKS = """
import json, os, urllib.request
asked = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", b"{}", {"content-type": "application/json"})
try:
    urllib.request.urlopen(asked)
except OSError:
    pass
"""


@pytest.mark.parametrize(("script", "is_told"), [("pass", True), (ASKS + "import time; time.sleep(1.5)", False)])
def test_a_proxy_that_nothing_came_to_is_told(tmp_path: Path, script: str, is_told: bool) -> None:
    assert ("no model call passed the proxy" in recorded(tmp_path, script).stderr) is is_told


def test_the_proxy_listens_where_it_is_told(tmp_path: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    done = recorded(tmp_path, "pass", "--proxy-port", str(port))
    assert f"OPENAI_BASE_URL=http://127.0.0.1:{port}/v1" in done.stderr
