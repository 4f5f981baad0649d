import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from http_upstream import running
from killed import turn_and_die
from policy_scene import scene, traceparent, wait_for
from typer.testing import CliRunner

from perfnb.cli import app as perfnb
from perfnb.errors import NotPermitted, NotReachable, WrongUse
from perfnb.knobs import all_knobs, change, changing, revert
from perfnb.knobs.app import HttpSettings, is_secret
from perfnb.knobs.llm import ArmLabel, LlmPolicy
from perfnb.knobs.undo import open_changes
from perfnb.recording import Recording
from perfnb.sources.restarts import COMMAND, command, is_alive
from perfnb.sources.traffic.policies.arms import arm_of
from perfnb.target import KnobSettings, Target

MOMENTS = ("before", "while")
CAP = {"output_cap": {"max_tokens": 5}}


def text_on_disk(recording: Recording) -> str:
    return "".join(path.read_text(errors="replace") for path in recording.path.rglob("*.jsonl"))


@contextlib.contextmanager
def recorded(tmp_path: Path) -> Iterator[Recording]:
    with Recording.create(tmp_path / "r.perfnb") as recording:
        yield recording


@pytest.mark.parametrize("moment", MOMENTS)
def test_policies_of_a_process_that_was_killed(tmp_path: Path, moment: str) -> None:
    with scene(tmp_path) as made:
        made.base(system_prompt={"replace": "PRIVATE WORDS"})
        before = made.control.state()
        turn_and_die(made.recording.path, tmp_path, "llm", CAP, moment)
        assert (made.control.state() == before) is (moment == "before")
        assert revert(made.recording) == ["llm: the LLM proxy does again what it did"]
        assert made.control.state() == before
        assert revert(made.recording) == []
        turn_and_die(made.recording.path, tmp_path, "llm", CAP)
    assert revert(made.recording) == ["llm: the LLM proxy that had it has ended, and its policies with it"]
    assert "PRIVATE" not in text_on_disk(made.recording)


def test_policies_are_set_split_and_undone(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        knob = LlmPolicy(made.recording.path)
        with changing(made.recording, knob, knob.current()):
            knob.split("t1", {}, CAP)
            assert made.control.state()["arms"]["policies"]["B"] == CAP
            trace = next(each for each in (f"{n:032x}" for n in range(1, 99)) if arm_of("t1", each) == "B")
            made.client().chat.completions.create(
                model="sim-small", messages=[{"role": "user", "content": "hi"}], extra_headers=traceparent(trace)
            )
        assert made.control.state() == {"base": {}, "arms": None, "label": None}
        assert made.calls(1).arm[0] == "t1/B"
        knob.set(CAP)
        knob.undo()
        knob.undo()
        assert knob.current() == {}
        label = ArmLabel(made.recording)
        label({"trial": "t2", "arm": "A"})
        label({"trial": "t2", "arm": "B"})
        assert made.control.state()["label"] == {"trial": "t2", "arm": "B"}
        knob.set(CAP)
        label(None)
        assert made.control.state() == {"base": CAP, "arms": None, "label": None}
        with pytest.raises(WrongUse), changing(made.recording, knob, {"nonsense": {}}):
            pass
        assert open_changes(made.recording) == []


class Endpoint:
    """An app's settings over HTTP, as the demo app has them."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"top_k": 4, "model": "a", "api_key": "sk-planted", "nested": {"x": [1]}}
        self.sent: list[Any] = []
        self.token = ""

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if self.token and request.headers.get("Authorization") != self.token:
            return web.json_response({"detail": "no"}, status=401)
        if request.method == "GET":
            return web.json_response(self.settings)
        if request.path.endswith("/apply"):
            self.settings |= {"top_k": 9, "model": "large"}
            return web.json_response({})
        given = json.loads(await request.read())
        self.sent.append(given)
        if "bad" in given:
            return web.json_response({"detail": "no such setting"}, status=422)
        self.settings = given if request.method == "PUT" else self.settings | given
        return web.json_response(self.settings)


def desk(url: str, **more: Any) -> HttpSettings:
    return HttpSettings(KnobSettings("desk", url=f"{url}/settings", preset_url=f"{url}/presets/{{name}}/apply", **more))


def write_toml(folder: Path, url: str, more: str = "") -> None:
    lines = ["[knob.desk]", f'url = "{url}/settings"', f'preset_url = "{url}/presets/{{name}}/apply"', more]
    (folder / "perfnb.toml").write_text("\n".join(lines))


@pytest.mark.parametrize("value", [{"top_k": 2, "nested": {"x": []}}, "quality"], ids=["settings", "preset"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_settings_of_a_process_that_was_killed(tmp_path: Path, moment: str, value: Any) -> None:
    endpoint = Endpoint()
    before = dict(endpoint.settings)
    with running(endpoint) as upstream, recorded(tmp_path) as recording:
        write_toml(tmp_path, upstream.url)
        turn_and_die(recording.path, tmp_path, "desk", value, moment)
        assert (endpoint.settings == before) is (moment == "before")
        assert revert(recording) == ["desk: the settings are what they were"]
        assert endpoint.settings == before
        assert (revert(recording), endpoint.settings) == ([], before)
        assert all("api_key" not in sent for sent in endpoint.sent)
        assert "sk-planted" not in text_on_disk(recording)


def test_what_cannot_be_undone_now_can_be_later(tmp_path: Path) -> None:
    endpoint = Endpoint()
    with running(endpoint) as upstream, recorded(tmp_path) as recording:
        knob = desk(upstream.url, header_env={"Authorization": "PLANTED_DESK_TOKEN"})
        endpoint.token = "Bearer planted-desk-token"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PLANTED_DESK_TOKEN", endpoint.token)
            change(recording, knob, {"top_k": 2})
        (line,) = revert(recording)
        assert "NOT undone: Authorization is needed for desk (set the variable PLANTED_DESK_TOKEN)" in line
        outcome = CliRunner().invoke(perfnb, ["revert", str(recording.path)])
        assert (outcome.exit_code, "NOT undone" in outcome.output) == (2, True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PLANTED_DESK_TOKEN", endpoint.token)
            outcome = CliRunner().invoke(perfnb, ["revert", str(recording.path), "--format", "json"])
        assert json.loads(outcome.stdout) == [
            {"knob": "desk", "said": "the settings are what they were", "is_undone": True}
        ]
        assert endpoint.settings["top_k"] == 4
        assert "planted-desk-token" not in text_on_disk(recording)


def test_keeping_and_undoing_in_order(tmp_path: Path) -> None:
    endpoint = Endpoint()
    with running(endpoint) as upstream, recorded(tmp_path) as recording:
        knob = desk(upstream.url)
        kept = change(recording, knob, {"model": "b"})
        kept.keep()
        change(recording, knob, {"top_k": 5})
        change(recording, knob, {"top_k": 6})
        assert len(revert(recording)) == 2
        assert (endpoint.settings["top_k"], endpoint.settings["model"]) == (4, "b")
        assert len(revert(recording, kept=True)) == 1
        assert endpoint.settings["model"] == "a"
        with pytest.raises(ZeroDivisionError), changing(recording, knob, {"top_k": 7}):
            raise ZeroDivisionError
        assert endpoint.settings["top_k"] == 4
        assert CliRunner().invoke(perfnb, ["revert", str(recording.path)]).exit_code == 0


def test_how_a_settings_endpoint_is_spoken_to(tmp_path: Path) -> None:
    endpoint = Endpoint()
    with running(endpoint) as upstream:
        knob = desk(upstream.url, presets={"thrifty": {"top_k": 1}})
        assert knob.current() == {"top_k": 4, "model": "a", "nested": {"x": [1]}}
        knob.set({**knob.current(), "top_k": 2})
        knob.set("thrifty")
        knob.set(knob.current())
        assert endpoint.sent == [{"top_k": 2}, {"top_k": 1}]
        knob.undo()
        assert endpoint.settings["top_k"] == 4
        with pytest.raises(WrongUse, match="no such setting"):
            knob.set({"bad": 1})
        with pytest.raises(WrongUse, match="may be a secret"):
            knob.set({"api_key": "x"})
        whole = HttpSettings(KnobSettings("whole", url=upstream.url, method="PUT", whole=True))
        whole.set({"top_k": 8})
        assert endpoint.sent[-1] == {"top_k": 8, "model": "a", "api_key": "sk-planted", "nested": {"x": [1]}}
        endpoint.token = "Bearer x"
        with pytest.raises(NotPermitted):
            knob.current()
    with pytest.raises(NotReachable, match="does not answer"):
        knob.current()
    for url in ("http://user:planted@host/", "http://host/?api_key=planted"):
        with pytest.raises(WrongUse) as told:
            HttpSettings(KnobSettings("x", url=url))
        assert "planted" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("api_key", True),
        ("OPENAI_API_KEY", True),
        ("access_token", True),
        ("db_password", True),
        ("dsn", True),
        ("max_tokens", False),
        ("max_context_tokens", False),
        ("cache_key", False),
        ("top_k", False),
    ],
)
def test_names_that_sound_like_secrets(name: str, expected: bool) -> None:
    assert is_secret(name) is expected


def test_the_demo_apps_settings(tmp_path: Path) -> None:
    environment = os.environ | {"DESK_SETTINGS": '{"warm_up": false}', "DATABASE_URL": "", "PORT": "0"}
    log = (tmp_path / "app.log").open("w")
    process = subprocess.Popen([sys.executable, "-m", "perfnb.demo.app"], stdout=log, stderr=log, env=environment)
    try:
        found: list[str] = []
        wait_for(
            lambda: bool(found.extend(re.findall(r"http://127[.:\d]+", (tmp_path / "app.log").read_text())) or found)
        )
        url = f"{found[0]}/optimization"
        knob = HttpSettings(
            KnobSettings("desk", url=f"{url}/configure", preset_url=f"{url}/presets/{{name}}/apply")
        )  # fmt: skip
        before = knob.current()
        with recorded(tmp_path) as recording, changing(recording, knob, "fast"):
            assert knob.current()["model"] == "sim-small"
            knob.set({"top_k": 9})
            assert knob.current()["top_k"] == 9
        assert knob.current() == before
    finally:
        process.kill()
        process.wait()
        log.close()


SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ.get("WORKERS", "none").encode())
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
open(sys.argv[1] + ".new", "w").write(str(server.server_port)); os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
"""


@contextlib.contextmanager
def recording_a_command(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    (folder / "perfnb.toml").write_text("[knob.workers]\nrestart = true\n")
    (folder / "server.py").write_text(SERVER)
    arguments = ["-m", "perfnb.cli", "record", "--upstream", "http://127.0.0.1:9/v1", "--out", "r.perfnb", "--"]
    arguments += [sys.executable, "server.py", "port"]
    log = (folder / "record.log").open("w")
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=log, stderr=log)
    try:
        wait_for((folder / "port").exists)
        wait_for((folder / "r.perfnb" / COMMAND).exists)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        log.close()


def workers(folder: Path) -> str:
    """What the running app was given; asked again while it is being started anew."""
    found: list[str] = []

    def answers() -> bool:
        with contextlib.suppress(OSError, ValueError):
            port = int((folder / "port").read_text())
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                found.append(answer.read().decode())
        return bool(found)

    wait_for(answers)
    return found[-1]


@pytest.mark.parametrize("moment", MOMENTS)
def test_variables_of_a_process_that_was_killed(tmp_path: Path, moment: str) -> None:
    with recording_a_command(tmp_path):
        assert workers(tmp_path) == "none"
        (tmp_path / "port").unlink()
        turn_and_die(tmp_path / "r.perfnb", tmp_path, "workers", {"WORKERS": "4"}, moment)
        with Recording.open(tmp_path / "r.perfnb") as recording:
            if moment == "while":
                assert workers(tmp_path) == "4"
                (tmp_path / "port").unlink()
            assert revert(recording) == ["workers: the app runs with the variables it had"]
            if moment == "while":
                assert workers(tmp_path) == "none"
            assert revert(recording) == []
            knob = all_knobs(recording, Target.load(tmp_path))["workers"]
            with pytest.raises(WrongUse, match="may be a secret"):
                knob.set({"OPENAI_API_KEY": "sk-x"})
            assert knob.current() == {}
            turn_and_die(recording.path, tmp_path, "workers", {"WORKERS": "5"})
    with Recording.open(tmp_path / "r.perfnb") as recording:
        assert not (recording.path / COMMAND).exists()
        assert revert(recording) == ["workers: the app has ended, and its variables with it"]


def test_a_recorder_that_is_killed_leaves_the_app_and_revert_says_so(tmp_path: Path) -> None:
    with recording_a_command(tmp_path) as process:
        turn_and_die(tmp_path / "r.perfnb", tmp_path, "workers", {"WORKERS": "5"})
        pid = command(tmp_path / "r.perfnb")["pid"]
        process.kill()
        process.wait()
        with Recording.open(tmp_path / "r.perfnb") as recording:
            (line,) = revert(recording)
            assert "NOT undone: the recorder that started the command is gone" in line
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not is_alive(pid))
            assert revert(recording) == ["workers: the app has ended, and its variables with it"]


def test_a_knob_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    for text, what in (("[knob.x]\nurls = 'a'", "a setting there is not"), ("[knob.x]\ntitle = 'a'", "turns nothing")):
        (tmp_path / "perfnb.toml").write_text(text)
        with pytest.raises(WrongUse, match=what):
            Target.load(tmp_path)
