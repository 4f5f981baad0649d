"""A simulated provider and the proxy before it, each in a process of its own, with the control that sets policies."""

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pandas as pd

from perfnb.recording import Recording
from perfnb.sources.llm_proxy import LlmProxy
from perfnb.sources.traffic.control import ProxyControl

KEY = "sk-planted-key"
TIME_SCALE = 40.0


@dataclass
class Scene:
    root: str
    proxy: LlmProxy
    recording: Recording
    clients: list[openai.OpenAI] = field(default_factory=list)

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()

    @property
    def control(self) -> ProxyControl:
        return ProxyControl.of(self.recording.path)

    def client(self, key: str = KEY, **settings: Any) -> openai.OpenAI:
        self.clients.append(openai.OpenAI(base_url=self.proxy.url, api_key=key, **settings))
        return self.clients[-1]

    def base(self, **policy: Any) -> None:
        self.control.set({"base": policy})

    def conditions(self, **conditions: Any) -> None:
        request = urllib.request.Request(f"{self.root}/_control", data=json.dumps(conditions).encode())
        urllib.request.urlopen(request, timeout=10).close()

    def billed(self) -> int:
        """How many calls the provider has answered."""
        with urllib.request.urlopen(f"{self.root}/_bill", timeout=10) as answer:
            return len(json.load(answer)["calls"])

    def calls(self, count: int) -> pd.DataFrame:
        """The calls recorded, once there are ``count``."""
        wait_for(lambda: self.proxy.counters.get("rows", 0) >= count)
        return self.recording.query("SELECT * FROM llm_calls ORDER BY start_time")

    def events(self, kind: str) -> pd.DataFrame:
        return self.recording.query("SELECT * FROM events WHERE kind = $kind ORDER BY time", {"kind": kind})


@contextlib.contextmanager
def provider(conditions: Mapping[str, Any] | None = None, time_scale: float = TIME_SCALE) -> Iterator[str]:
    command = [sys.executable, "-m", "perfnb.demo.provider", "--time-scale", str(time_scale)]
    command += ["--conditions", json.dumps(dict(conditions or {}))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert address is not None
        yield address[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def scene(folder: Path, *, time_scale: float = TIME_SCALE, **conditions: Any) -> Iterator[Scene]:
    recording = Recording.create(folder / "r.perfnb")
    with (
        provider(conditions, time_scale) as root,
        LlmProxy(recording.path, f"{root}/v1") as proxy,
        Scene(root, proxy, recording) as made,
    ):
        yield made
    recording.close()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def traceparent(trace_id: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}


def text_of(stream: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
