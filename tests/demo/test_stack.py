"""The whole demo: real processes, real HTTP, real Postgres; only the models are simulated."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from perfnb.demo.stack import Stack
from perfnb.errors import NotReachable

pytestmark = pytest.mark.demo


@dataclass(frozen=True)
class Running:
    stack: Stack
    url: str
    dsn: str

    def post(self, path: str, body: Any = None) -> Any:
        text, _ = self.ask(path, body)
        return json.loads(text)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=20) as response:
            return json.load(response)

    def ask(self, path: str, body: Any = None) -> tuple[str, dict[str, str]]:
        data = json.dumps(body or {}).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.read().decode(), {name.lower(): value for name, value in response.headers.items()}


@contextlib.contextmanager
def running(out: Path, *faults: str) -> Iterator[Running]:
    with Stack(out, faults=faults, time_scale=10, seed=3) as stack:
        stack.start_provider()
        dsn = stack.start_postgres()
        yield Running(stack, stack.start_app(), dsn)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("healthy")) as found:
        yield found


def deltas(text: str) -> list[str]:
    lines = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    return [line["delta"] for line in lines if "delta" in line]


def test_an_answer_comes_from_the_documentation_token_by_token(healthy: Running) -> None:
    text, headers = healthy.ask("/chat", {"message": "How does heapq.merge treat several sorted inputs?"})
    assert headers["content-type"].startswith("text/event-stream")
    pieces = deltas(text)
    assert len(pieces) > 20
    assert "sorted" in "".join(pieces).lower()
    assert text.endswith('event: done\ndata: {"finished": true}\n\n')


def test_the_same_question_again_is_answered_from_the_cache(healthy: Running) -> None:
    asked = {"message": "How do I merge several sorted inputs into one with heapq?", "stream": False}
    first, missed = healthy.ask("/chat", asked)
    calls = len(healthy.stack.bill()["calls"])
    second, hit = healthy.ask("/chat", asked)
    assert (missed["x-cache"], hit["x-cache"]) == ("miss", "hit")
    assert first == second
    assert len(healthy.stack.bill()["calls"]) == calls
    healthy.post("/optimization/configure", {"enable_caching": False})
    try:
        assert "x-cache" not in healthy.ask("/chat", asked)[1]
    finally:
        healthy.post("/optimization/configure", {"enable_caching": True})


def test_a_conversation_is_kept_and_only_its_end_is_sent(healthy: Running) -> None:
    healthy.post("/chat", {"message": "And what about zipfile?", "session_id": "customer-1", "stream": False})
    with psycopg.connect(healthy.dsn) as connection:
        [count] = connection.execute("SELECT count(*) FROM messages WHERE session_id = 'customer-1'").fetchone()
    assert count == 62
    bounded = healthy.stack.bill()["calls"][-1]["usage"]["input_tokens"]
    healthy.post("/optimization/configure", {"max_turn_history": -1})
    try:
        healthy.post("/chat", {"message": "And what about zipfile?", "session_id": "customer-1", "stream": False})
    finally:
        healthy.post("/optimization/configure", {"max_turn_history": 6})
    assert healthy.stack.bill()["calls"][-1]["usage"]["input_tokens"] > 2.5 * bounded


def test_the_agent_looks_things_up_before_it_answers(healthy: Running) -> None:
    calls = len(healthy.stack.bill()["calls"])
    answer = healthy.post(
        "/agent", {"message": "Which arguments does shutil.copytree take?", "session_id": "customer-2"}
    )
    assert answer["iterations"] == 3
    assert "copytree" in answer["answer"] or "copy" in answer["answer"]
    paths = [call["path"] for call in healthy.stack.bill()["calls"][calls:]]
    assert paths.count("/v1/chat/completions") == 3
    assert paths.count("/v1/embeddings") == 1


def test_what_is_ingested_can_be_found(healthy: Running) -> None:
    body = "The zyxtron gadget is calibrated by pressing its green lever twice and waiting for the chime to end."
    assert healthy.post("/ingest", {"title": "zyxtron gadget", "body": body}) == {"passages": 1}
    text, _ = healthy.ask("/chat", {"message": "How is the zyxtron gadget calibrated?"})
    assert "green lever" in "".join(deltas(text))


def test_the_app_tells_how_it_does(healthy: Running) -> None:
    healthy.ask("/chat", {"message": "What is a deque good for?"})
    found = healthy.get("/optimization/performance/metrics")
    assert set(found) == {"llm_calls", "tool_executions", "turn_processing"}
    assert found["llm_calls"]["count"] >= 2
    assert found["turn_processing"]["recent_operations"]
    with urllib.request.urlopen(f"{healthy.url}/metrics", timeout=20) as response:
        text = response.read().decode()
    assert 'http_requests_total{method="POST",route="/chat",status="200"}' in text
    assert 'http_request_duration_seconds_count{route="/chat"}' in text
    assert healthy.post("/optimization/performance/reset") == {"status": "reset"}
    assert healthy.get("/optimization/performance/metrics")["turn_processing"]["count"] == 0


def test_presets_and_settings_can_be_applied(healthy: Running) -> None:
    try:
        assert healthy.post("/optimization/presets/fast/apply")["model"] == "sim-small"
        assert healthy.get("/optimization/configure")["history_messages"] == 5
        for path, body, status in [
            ("/optimization/presets/best/apply", {}, 404),
            ("/optimization/configure", {"no_such": 1}, 422),
        ]:
            with pytest.raises(urllib.error.HTTPError) as caught:
                healthy.post(path, body)
            assert caught.value.code == status
            caught.value.close()
    finally:
        healthy.post("/optimization/presets/balanced/apply")


def test_a_failing_provider_is_told_by_the_status(healthy: Running) -> None:
    healthy.stack.set_conditions({"refuse_share": 1})
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            healthy.ask("/chat", {"message": "Is this refused?"})
        assert caught.value.code == 502
        caught.value.close()
    finally:
        healthy.stack.set_conditions({})


def test_users_get_answers_and_progress_is_told(healthy: Running) -> None:
    told: list[Any] = []
    summary = healthy.stack.run_workload(healthy.url, 3, progress=told.append)
    assert summary["sent"] > 5
    assert summary["outcomes"] == {"200": summary["sent"]}
    assert told[-1]["sent"] > 0


def test_what_the_users_would_send_can_be_asked_for(tmp_path: Path) -> None:
    with Stack(tmp_path, faults=["no-response-cache"], seed=3) as stack:
        planned = stack.planned(60)
        assert planned == Stack(tmp_path, faults=["no-response-cache"], seed=3).planned(60)
    asked = [each.body["message"] for each in planned if each.path == "/chat" and "session_id" not in each.body]
    assert len(set(asked)) < len(asked) / 2
    other = Stack(tmp_path).planned(20, habits={"path": "/api/ask", "agent_share": 0, "ingest_share": 0})
    assert {each.path for each in other} == {"/api/ask"}


def test_the_app_is_a_process_of_its_own(healthy: Running) -> None:
    assert "perfnb.demo.app" in psutil.Process(healthy.stack.app_pid).cmdline()
    assert healthy.get("/health") == {"status": "ok"}


def test_errors_can_hide_behind_a_success(tmp_path: Path) -> None:
    with running(tmp_path, "errors-as-success") as found:
        found.stack.set_conditions({"refuse_share": 1})
        text, _ = found.ask("/chat", {"message": "Is this refused?"})
        assert "event: error" in text
        assert "Sorry" in found.post("/agent", {"message": "Is this refused?"})["error"]
        assert "Sorry" in found.post("/chat", {"message": "Is this refused?", "stream": False})["error"]


def test_a_slow_network_lies_between_app_and_provider(tmp_path: Path) -> None:
    with running(tmp_path, "slow-network", "no-streaming") as found:
        found.ask("/chat", {"message": "What is a deque good for?"})
        assert found.stack.bill()["connections"] >= 1
        relay = (tmp_path / "network.log").read_text()
        assert "relay listening" in relay
        assert found.get("/optimization/configure")["stream"] is False


def test_a_provider_gets_slow_in_the_middle_of_the_run(tmp_path: Path) -> None:
    with running(tmp_path, "provider-slow") as found:
        found.stack.run_workload(found.url, 6)
        speeds = [
            call["first_due_ms"] / (80 + 0.1 * call["usage"]["input_tokens"])
            for call in found.stack.bill()["calls"]
            if call["path"].endswith("completions")
        ]
    assert speeds[-1] > 3 * speeds[0]


def test_an_app_that_can_not_start_says_why(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        stack.start_provider()
        with pytest.raises(NotReachable, match="no setting 'no_such'") as caught:
            stack.start_app(
                environment={"DESK_SETTINGS": '{"no_such": 1}', "DATABASE_URL": "postgresql://127.0.0.1:1/x"}
            )
        assert "app.log" in caught.value.hint


PARENT = """
import sys, time
from pathlib import Path
from perfnb.demo.stack import Stack
with Stack(Path(sys.argv[1]), time_scale=10) as stack:
    stack.start_provider()
    stack.start_postgres()
    stack.start_workload(stack.start_app(), 600)
    print("running", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=lambda end: end.name)
def test_nothing_is_left_when_the_parent_ends(tmp_path: Path, end: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == "running\n"
    family = psutil.Process(parent.pid).children(recursive=True)
    names = " ".join(" ".join(each.cmdline()) for each in family)
    assert all(part in names for part in ("demo.provider", "demo.app", "demo.workload", "bin/postgres"))
    os.kill(parent.pid, end)
    parent.wait(30)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    time.sleep(0.1)
    assert not any("perfnb-postgres" in each for one in family for each in _arguments(one))


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
