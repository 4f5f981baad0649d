import asyncio
import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from http_upstream import Upstream, running
from policy_scene import Scene, text_of, wait_for

from perfnb.recording import Recording
from perfnb.sources.llm_proxy import LlmProxy

ANSWER = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}  # fmt: skip
QUESTION: Any = [{"role": "user", "content": "hello"}]


class Scripted:
    """Answers each request as the next word of its script says; then well."""

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.most = self.open = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            return await self._answer(request, self.script.pop(0) if self.script else "fine")
        finally:
            self.open -= 1

    async def _answer(self, request: web.Request, what: str) -> web.StreamResponse:
        is_stream = json.loads(await request.read()).get("stream")
        match what:
            case "reset":
                assert request.transport is not None
                request.transport.abort()
            case "hang":
                await asyncio.sleep(60)
            case "slow":
                await asyncio.sleep(0.3)
            case "429":
                return web.json_response(
                    {"error": {"code": "rate_limit_exceeded"}}, status=429, headers={"retry-after-ms": "30"}
                )
            case status if status.isdigit():
                return web.json_response({"error": {"message": "no"}}, status=int(status))
        return await stream(request, what) if is_stream else web.json_response(ANSWER)


async def stream(request: web.Request, what: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-1"}
    for number, delta in enumerate([{"role": "assistant", "content": ""}, {"content": "fi"}, {"content": "ne"}]):
        chunk = base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        if (what, number) in {("mute", 0), ("stall", 1)}:
            await asyncio.sleep(60)
    await response.write(b"data: [DONE]\n\n")
    return response


@contextlib.contextmanager
def scripted(folder: Path, *script: str, **policy: Any) -> Iterator[tuple[Scene, Scripted, Upstream]]:
    recording = Recording.create(folder / "r.perfnb")
    provider = Scripted(*script)
    with (
        running(provider) as upstream,
        LlmProxy(recording.path, f"{upstream.url}/v1") as proxy,
        Scene(upstream.url, proxy, recording) as made,
    ):
        made.base(**policy)
        yield made, provider, upstream
    recording.close()


def ask(made: Scene, **settings: Any) -> Any:
    return made.client(max_retries=0).chat.completions.create(model="m", messages=QUESTION, **settings)


RETRY = {"attempts": 3, "base_s": 0.01}


@pytest.mark.parametrize("failure", ["429", "500", "503", "408", "reset"])
def test_a_passing_failure_is_tried_again(tmp_path: Path, failure: str) -> None:
    with scripted(tmp_path, failure, failure, retry=RETRY) as (made, _, upstream):
        assert ask(made).choices[0].message.content == "fine"
        rows = made.calls(3)
        assert [json.loads(each)["attempt"] for each in rows.attributes] == [1, 2, 3]
        assert rows.error_type.notna().tolist() == [True, True, False]
        assert rows.request_digest.nunique() == 1
        assert len({body for *_, body in upstream.seen}) == 1
        assert rows.start_time.is_monotonic_increasing


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_is_wrong_is_not_tried_again(tmp_path: Path, status: int) -> None:
    with scripted(tmp_path, str(status), retry=RETRY) as (made, _, upstream):
        with pytest.raises(openai.APIStatusError) as told:
            ask(made)
        assert told.value.status_code == status
        assert len(upstream.seen) == 1
        assert made.calls(1).status_code.tolist() == [status]


def test_the_last_failure_reaches_the_caller_and_its_client_does_not_add_tries(tmp_path: Path) -> None:
    with scripted(tmp_path, *["500"] * 9, retry=RETRY) as (made, _, upstream):
        with pytest.raises(openai.InternalServerError):
            made.client(max_retries=2).chat.completions.create(model="m", messages=QUESTION)
        assert len(upstream.seen) == 3
        assert made.calls(3).status_code.tolist() == [500] * 3


def test_a_first_token_that_does_not_come_in_time(tmp_path: Path) -> None:
    with scripted(tmp_path, "mute", retry=RETRY, timeout={"first_token_s": 0.3}) as (made, _, _upstream):
        assert text_of(ask(made, stream=True)) == "fine"
        rows = made.calls(2)
        assert rows.error_type.fillna("").tolist() == ["timeout", ""]


def test_a_deadline_before_and_within_the_answer(tmp_path: Path) -> None:
    with scripted(tmp_path, "hang", "stall", timeout={"total_s": 0.4}) as (made, provider, _):
        with pytest.raises(openai.InternalServerError, match="took longer than"):
            ask(made)
        with pytest.raises(openai.APIError):
            text_of(ask(made, stream=True))
        assert ask(made).choices[0].message.content == "fine"
        rows = made.calls(3)
        assert rows.error_type.fillna("").tolist() == ["timeout", "timeout", ""]
        assert not rows.client_disconnected.any()
        wait_for(lambda: provider.open == 0)


@pytest.mark.parametrize("is_stream", [False, True])
def test_hedging_takes_whichever_speaks_first(tmp_path: Path, is_stream: bool) -> None:
    with scripted(tmp_path, "hang", hedge={"after_ms": 100}) as (made, provider, _):
        answer = ask(made, stream=is_stream)
        assert (text_of(answer) if is_stream else answer.choices[0].message.content) == "fine"
        rows = made.calls(2)
        assert rows.error_type.fillna("").tolist() == ["superseded", ""]
        assert ["hedge" in json.loads(each) for each in rows.attributes] == [False, True]
        assert ask(made).choices[0].message.content == "fine"
        assert len(made.calls(3)) == 3
        wait_for(lambda: provider.open == 0)


def test_hedging_waits_for_the_other_where_one_fails(tmp_path: Path) -> None:
    with scripted(tmp_path, "slow", "500", hedge={"after_ms": 50}) as (made, _, _upstream):
        assert ask(made).choices[0].message.content == "fine"
        assert sorted(made.calls(2).status_code) == [200, 500]


def test_a_caller_that_leaves_ends_every_attempt(tmp_path: Path) -> None:
    with scripted(tmp_path, "hang", "hang", hedge={"after_ms": 50}, retry=RETRY) as (made, provider, _):
        with pytest.raises(openai.APITimeoutError):
            ask(made, timeout=0.4)
        rows = made.calls(2)
        assert sorted(rows.error_type) == ["superseded", "timeout"]
        wait_for(lambda: provider.open == 0)


def test_concurrency(tmp_path: Path) -> None:
    async def many(url: str) -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="x") as client:
            await asyncio.gather(*(client.chat.completions.create(model="m", messages=QUESTION) for _ in range(9)))

    with scripted(tmp_path, *["slow"] * 9, concurrency={"limit": 3}) as (made, provider, _):
        asyncio.run(many(made.proxy.url))
        assert provider.most == 3
        waited = [json.loads(each)["waited_ms"] for each in made.calls(9).attributes]
        assert sum(each > 250 for each in waited) == 6


def test_a_rate_limit(tmp_path: Path) -> None:
    with scripted(tmp_path, rate_limit={"requests": 2, "per_s": 0.5}) as (made, _, _upstream):
        start = time.monotonic()
        for _ in range(5):
            ask(made)
        assert time.monotonic() - start >= 1.0
        rows = made.calls(5)
        # a row tells when its request came and how long it was held, not what lay between the two
        assert all(later - earlier >= 0.4e9 for earlier, later in zip(ended(rows), ended(rows)[2:], strict=False))


def ended(rows: Any) -> list[float]:
    """When each call was let through: its start and its waiting."""
    waited = [json.loads(each)["waited_ms"] for each in rows.attributes]
    return [start + ms * 1e6 + 1e6 for start, ms in zip(rows.start_time, waited, strict=True)]


def test_bodies_that_cannot_be_read_pass_untouched(tmp_path: Path) -> None:
    bodies = [b"\xff no json", b"[1, 2]", b'{"model": "m", "model"', b""]
    with scripted(tmp_path, *["400"] * 4, output_cap={"max_tokens": 5}, response_cache={}) as (made, _, upstream):
        for body in bodies:
            request = urllib.request.Request(f"{made.proxy.url}/chat/completions", data=body, method="POST")
            with pytest.raises(urllib.error.HTTPError) as told:
                urllib.request.urlopen(request)
            told.value.close()
        assert [body for *_, body in upstream.seen] == bodies
        assert made.events("source").empty


def test_off_again_every_byte_passes_as_before(tmp_path: Path) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}] , "max_tokens":900 }'

    def send(made: Scene) -> None:
        request = urllib.request.Request(f"{made.proxy.url}/chat/completions?a=b", data=body, headers={"X-Mine": "1"})
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer) == ANSWER

    with scripted(tmp_path) as (made, _, upstream):
        send(made)
        made.base(output_cap={"max_tokens": 5}, retry=RETRY, response_cache={})
        send(made)
        made.control.set({"base": {}})
        send(made)
        first, changed, last = upstream.seen
        assert first == last
        assert changed[3] == body.replace(b"900", b"5")
        assert int(changed[2]["Content-Length"]) == len(body) - 2
        assert changed[2] | {"Content-Length": ""} == first[2] | {"Content-Length": ""}
        rows = made.calls(3)
        assert rows.attributes.map(lambda each: "policies" in json.loads(each)).tolist() == [False, True, False]
