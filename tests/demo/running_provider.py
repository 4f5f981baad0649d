"""A simulated provider in a process of its own, for tests that talk to it."""

import json
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI

from perfnb.demo.keeper import Child, Keeper


@dataclass(frozen=True)
class RunningProvider:
    """Where the provider is, and how to talk to it."""

    root: str

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.root}/v1", api_key="simulated", max_retries=0, timeout=30)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.root + path, timeout=10) as response:
            return json.load(response)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(self.root + path, data=json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)


@contextmanager
def running_provider(folder: Path, *options: str) -> Iterator[RunningProvider]:
    """Start the provider with these options and yield it once it listens."""
    log = folder / "provider.log"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "perfnb.demo.provider", *options]
    with Keeper(Child("provider", command, log)) as keeper:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and keeper.is_alive:
            if log.exists() and (found := re.search(r"http://[\d.:]+", log.read_text())):
                yield RunningProvider(found[0])
                return
            time.sleep(0.02)
        raise AssertionError(keeper.last_lines())
