"""The plain app does what it says, well-behaved and with each of its habits."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from planted.plain_app import HABITS
from planted.plain_stack import CAUSES, USERS, start_plain_app

from perfnb.demo.faults import FAULTS
from perfnb.demo.stack import Stack

QUESTION = "When is the finally clause of a try statement executed?"


@dataclass(frozen=True)
class Asked:
    """What came back, when, and what the provider saw of it."""

    status: int
    body: str
    seconds: float
    calls: list[dict[str, Any]]
    connections: int

    @property
    def input_tokens(self) -> int:
        return int(max(call["usage"]["input_tokens"] for call in self.calls))


@contextmanager
def plain(out: Path, *causes: str) -> Iterator[tuple[Stack, str]]:
    with Stack(out, faults=causes, time_scale=10) as stack:
        yield stack, start_plain_app(stack, stack.start_provider(), time_scale=10)


def ask(stack: Stack, url: str, question: str = QUESTION, chat: str | None = None) -> Asked:
    before = stack.bill()
    body = json.dumps({"q": question, "chat": chat}).encode()
    request = urllib.request.Request(f"{url}/api/ask", body)
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            status, text = response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read().decode()
    seconds = time.perf_counter() - started
    after = stack.bill()
    calls = after["calls"][len(before["calls"]) :]
    return Asked(status, text, seconds, calls, after["connections"] - before["connections"])


def test_a_well_behaved_app_streams_one_short_call(tmp_path: Path) -> None:
    with plain(tmp_path) as (stack, url):
        asked = ask(stack, url, chat="anna")
        again = ask(stack, url, "And in a function?", chat="anna")
        summary = stack.run_workload(url, 2, habits=USERS)
    assert asked.status == 200
    assert asked.body.count("event: word") > 20
    assert asked.body.endswith("event: end\ndata:\n\n")
    assert len(asked.calls) == 1
    assert 500 < asked.input_tokens < 1500
    assert 500 < again.input_tokens < 1800
    assert summary["outcomes"] == {"200": summary["sent"]}


def words(asked: Asked) -> int:
    return asked.body.count("event: word")


SIGNS: dict[str, Callable[[Asked], bool]] = {
    "no-streaming": lambda asked: words(asked) == 1 and asked.calls[0]["usage"]["output_tokens"] > 200,
    "sequential-calls": lambda asked: len(asked.calls) == 4,
    "large-context": lambda asked: asked.input_tokens > 5000,
    "too-many-documents": lambda asked: asked.input_tokens > 4000,
    "long-history": lambda asked: asked.input_tokens > 2500,
    "slow-model": lambda asked: asked.calls[0]["model"] == "sim-large",
    "slow-processing": lambda asked: asked.seconds > 0.09,
    "unbatched-requests": lambda asked: len(asked.calls) == 13,
    "deep-reasoning": lambda asked: len(asked.calls) >= 2 and asked.calls[0]["usage"]["reasoning_tokens"] > 300,
    "cold-start": lambda asked: asked.seconds > 0.35,
    "blocked-event-loop": lambda asked: asked.calls[0]["path"].endswith("moderations"),
    "slow-embedding": lambda asked: asked.calls[0]["model"] == "sim-embedding-large",
    "late-first-content": lambda asked: asked.body.startswith(": open"),
    "client-per-request": lambda asked: asked.connections >= 1,
    "oversized-model": lambda asked: asked.calls[0]["model"] == "sim-premium",
    "verbose-system-prompt": lambda asked: asked.input_tokens > 3500,
    "no-output-limit": lambda asked: asked.calls[0]["usage"]["output_tokens"] > 150,
    "redundant-prompt-text": lambda asked: asked.input_tokens > 1700,
    "unstable-prompt-prefix": lambda asked: 2000 < asked.input_tokens < 3500,
}


@pytest.mark.parametrize("habit", SIGNS)
def test_a_habit_shows(tmp_path: Path, habit: str) -> None:
    with plain(tmp_path, habit) as (stack, url):
        asked = ask(stack, url, chat="anna")
    assert asked.status == 200
    assert SIGNS[habit](asked)


@pytest.mark.parametrize(
    ("habit", "conditions", "status", "attempts"),
    [
        ("no-retry", {"fail_share": 1, "fail_first": 3}, 500, 1),
        ("retry-amplification", {"fail_share": 1, "fail_first": 5}, 200, 6),
        ("errors-as-success", {"refuse_share": 1}, 200, 1),
        ("timeout-too-short", {"stall_share": 1}, 500, 0),
    ],
)
def test_a_habit_shows_when_the_provider_fails(
    tmp_path: Path, habit: str, conditions: dict[str, float], status: int, attempts: int
) -> None:
    with plain(tmp_path, habit) as (stack, url):
        stack.set_conditions(conditions)
        asked = ask(stack, url)
    assert (asked.status, len(asked.calls)) == (status, attempts)
    assert ("error" in asked.body) == (habit == "errors-as-success")


def test_contexts_vary_with_the_question(tmp_path: Path) -> None:
    with plain(tmp_path, "varying-context") as (stack, url):
        sizes = [ask(stack, url, text).input_tokens for text in (QUESTION, "break loop", "format spec string")]
    assert max(sizes) > 4 * min(sizes)


def test_what_can_be_staged_is_in_the_registry_of_faults() -> None:
    assert set(CAUSES) <= set(FAULTS)
    assert len(CAUSES) == len(HABITS) + 4
