import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from builders import call, every, recording, request

from perfnb.estimates import changes
from perfnb.finding import Finding
from perfnb.target import KnobSettings, Target
from perfnb.try_a_change.choices import choices

SETTINGS = {
    "top_k": 5,
    "temperature": 0.2,
    "stream": False,
    "model": "sim-small",
    "weights": [1, 2],
    "api_key": "sk-no",
}


def found(cause: str, share: float) -> Finding:
    return Finding("title", "high", share, (), "remedy", cause=cause, area="slow")


@pytest.fixture
def settings_url() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(SETTINGS).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/settings"
    server.shutdown()
    server.server_close()


def test_remedies_of_the_largest_finding_come_first(tmp_path: Path) -> None:
    made = recording(tmp_path, requests=every(2000, 4, request), calls=every(2000, 4, call))
    offered = choices(made, Target(), [found("no-output-limit", 0.2), found("no-response-cache", 0.6)])
    assert [each.causes for each in offered[:2]] == [("no-response-cache",), ("no-response-cache",)]
    assert {each.name for each in offered} == {each.name for each in changes()}
    capped = next(each for each in offered if each.name == "output_cap")
    assert capped.causes == ("no-output-limit",)
    assert capped.value({"max_tokens": 300}, {}) == {"output_cap": {"max_tokens": 300}}
    assert capped.value({"max_tokens": 300}, {"retry": {"attempts": 2}}) == {
        "retry": {"attempts": 2},
        "output_cap": {"max_tokens": 300},
    }


def test_a_change_the_proxy_cannot_do_has_no_knob(tmp_path: Path) -> None:
    made = recording(tmp_path, requests=every(2000, 4, request), calls=every(2000, 4, call))
    streaming = next(each for each in choices(made, Target(), []) if each.name == "streaming")
    assert streaming.knob == ""
    assert streaming.value({}, {}) is None


def test_settings_of_the_app_are_offered_with_what_they_hold(tmp_path: Path, settings_url: str) -> None:
    target = Target(knobs=(KnobSettings("desk", title="The desk", url=settings_url),))
    offered = {each.setting: each for each in choices(recording(tmp_path), target, []) if each.setting}
    assert set(offered) == {"top_k", "temperature", "stream", "model"}  # a list is no setting, a key is a secret
    assert offered["top_k"].title == "The desk: top k"
    assert offered["top_k"].name == "desk.top_k"
    assert [offered[name].parameters[0].default for name in ("top_k", "stream", "model")] == [5, False, "sim-small"]
    assert offered["stream"].parameters[0].choices == (True, False)
    assert offered["top_k"].value({"top_k": 2}, SETTINGS) == {"top_k": 2}


def test_an_app_that_is_gone_offers_no_settings(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and never listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/settings"
        offered = choices(recording(tmp_path), Target(knobs=(KnobSettings("desk", url=url),)), [])
    assert {each.name for each in offered if each.change} == {each.name for each in changes()}
    assert not [each for each in offered if each.setting]
