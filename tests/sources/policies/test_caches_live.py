import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from http_upstream import running
from llm_upstream import Provider
from policy_scene import Scene, scene, text_of, wait_for

from perfnb.recording import Recording
from perfnb.sources.llm_proxy import LlmProxy

QUESTION: Any = [{"role": "user", "content": "How do I remove an element from a deque?"}]
TOOLS: Any = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}]


def ask(client: openai.OpenAI, messages: Any = QUESTION, **settings: Any) -> Any:
    return client.chat.completions.create(model="sim-small", messages=messages, **settings)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A real Redis behind a socket in ``folder``."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    socket = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(socket.exists)
        yield f"unix://{socket}", process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    if request.param == "memory":
        yield {}
        return
    with redis(tmp_path) as (url, _):
        yield {"redis": url}


def test_a_repeated_question_is_answered_once(tmp_path: Path, store: dict[str, Any]) -> None:
    with scene(tmp_path) as made:
        made.base(response_cache=store)
        client = made.client()
        first, second = ask(client), ask(client)
        assert first.model_dump() == second.model_dump()
        streams = [[each.model_dump() for each in ask(client, stream=True)] for _ in range(2)]
        assert streams[0] == streams[1]
        assert len(streams[0]) > 3
        calls = [ask(client, tools=TOOLS).choices[0].message.tool_calls for _ in range(2)]
        assert calls[0] == calls[1]
        assert made.billed() == 3
        rows = made.calls(6)
        assert list(rows.answered_by.notna()) == [False, True] * 3
        assert list(rows.status_code) == [200] * 6
        assert rows.prompt_digest.nunique() == 2
        assert (rows.output_tokens[0], rows.input_tokens[0]) == (rows.output_tokens[1], rows.input_tokens[1])
        made.base()
        ask(client)
        assert made.billed() == 4


def test_what_differs_is_not_the_same_question(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        made.base(response_cache={"ttl_s": 60})
        client = made.client()
        system: Any = [{"role": "system", "content": "Be brief."}, *QUESTION]
        asking: list[Any] = [
            lambda: ask(client),
            lambda: ask(client, temperature=0),
            lambda: ask(client, max_tokens=9),
            lambda: ask(client, system),
            lambda: ask(client, tools=TOOLS),
            lambda: ask(made.client("sk-another-tenant")),
            lambda: text_of(ask(client, stream=True)),
            lambda: client.chat.completions.create(model="sim-large", messages=QUESTION),
        ]
        for one in asking:
            one()
        assert made.billed() == len(asking)
        for one in asking:
            one()
        assert made.billed() == len(asking)
        ask(client, user="someone else", metadata={"turn": "2"})
        assert made.billed() == len(asking)


@pytest.mark.parametrize(
    "settings",
    [
        {"n": 2},
        {"temperature": 1.5},
        {"store": True},
        {"extra_headers": {"Cache-Control": "no-cache"}},
        {"extra_body": {"web_search_options": {"search_context_size": "low"}}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with scene(tmp_path) as made:
        made.base(response_cache={})
        for _ in range(2):
            ask(made.client(), **settings)
        assert made.billed() == 2


def test_failures_and_broken_streams_are_not_kept(tmp_path: Path) -> None:
    with scene(tmp_path, break_share=1) as made:
        made.base(response_cache={})
        client = made.client(max_retries=0)
        for _ in range(2):
            with pytest.raises(openai.APIError):
                text_of(ask(client, stream=True))
        made.conditions(rate_limit_share=1)
        with pytest.raises(openai.RateLimitError):
            ask(client)
        made.conditions()
        assert text_of(ask(client, stream=True))
        assert ask(client).choices[0].message.content
        assert made.calls(5).answered_by.isna().all()


def test_as_many_answers_are_kept_as_it_may_hold(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        made.base(response_cache={"entries": 2})
        client = made.client()
        for number in (1, 2, 3, 2, 1):  # the third pushes out the first, and the first the third
            ask(client, [{"role": "user", "content": f"question {number}"}])
        assert made.billed() == 4


def test_an_answer_grows_old(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        made.base(response_cache={"ttl_s": 0.5})
        ask(made.client())
        time.sleep(0.6)
        ask(made.client())
        assert made.billed() == 2


NEAR: Any = [{"role": "user", "content": "How can I remove an element from a deque?"}]
FAR: Any = [{"role": "user", "content": "Which port does the web server listen on?"}]


def test_a_question_that_means_the_same(tmp_path: Path, store: dict[str, Any]) -> None:
    cache = {"mode": "semantic", "threshold": 0.9, "embedding_model": "sim-embedding", **store}
    with scene(tmp_path) as made:
        made.base(response_cache=cache)
        client = made.client()
        first, near, far = ask(client), ask(client, NEAR), ask(client, FAR)
        assert near.id == first.id != far.id
        assert ask(client, NEAR, temperature=0).id != first.id
        assert ask(client, NEAR, user="someone else").id != first.id
        assert ask(made.client("sk-another"), NEAR).id != first.id
        rows = made.calls(12)
        assert list(rows.operation).count("embeddings") == 6
        (hit,) = rows[rows.answered_by == "cache"].attributes
        assert 0.9 <= json.loads(hit)["similarity"] <= 1
        assert rows[rows.operation == "embeddings"].attributes.map(json.loads).map(
            lambda each: each["asked_by"] == "response_cache"
        ).all()  # fmt: skip


def test_a_cache_without_embeddings_lets_calls_pass_and_says_so_once(tmp_path: Path) -> None:
    with scene(tmp_path, time_scale=100) as made:
        made.base(response_cache={"redis": f"unix://{tmp_path}/nothing.sock"}, output_cap={"max_tokens": 4})
        for _ in range(3):
            assert ask(made.client()).usage.completion_tokens == 4
        assert made.calls(3).answered_by.isna().all()
        (title,) = made.events("source").title
        assert title.startswith("LLM proxy: response_cache failed (ConnectionError)")


def test_redis_going_away_costs_no_call(tmp_path: Path) -> None:
    with redis(tmp_path) as (url, server), scene(tmp_path) as made:
        made.base(response_cache={"redis": url})
        assert ask(made.client()).id == ask(made.client()).id
        os.kill(server.pid, signal.SIGSTOP)
        ask(made.client())
        os.kill(server.pid, signal.SIGCONT)
        server.kill()
        ask(made.client())
        made.calls(4)
        assert len(made.events("source")) == 1


def test_texts_are_embedded_once(tmp_path: Path, store: dict[str, Any]) -> None:
    texts = [f"text {secrets.token_hex(4)}" for _ in range(5)]
    with scene(tmp_path) as made:
        plain = made.client().embeddings.create(model="sim-embedding", input=texts)
        made.base(embedding_cache=store)
        embeddings = made.client().embeddings

        def embed(*numbers: int, **settings: Any) -> Any:
            given = [texts[number] for number in numbers]
            answer = embeddings.create(model="sim-embedding", input=given, **settings)
            assert [each.index for each in answer.data] == list(range(len(numbers)))
            return answer

        assert [each.embedding for each in embed(0, 1).data] == [each.embedding for each in plain.data[:2]]
        mixed = embed(2, 1, 3, 0, 1)
        assert [each.embedding for each in mixed.data] == [plain.data[number].embedding for number in (2, 1, 3, 0, 1)]
        assert 0 < mixed.usage.prompt_tokens < plain.usage.prompt_tokens
        known = embed(3, 2)
        assert [each.embedding for each in known.data] == [plain.data[3].embedding, plain.data[2].embedding]
        assert known.usage.prompt_tokens == 0
        embed(0, dimensions=64)
        embeddings.create(model="sim-embedding-large", input=texts[0])
        made.client("sk-another").embeddings.create(model="sim-embedding", input=texts[0])
        rows = made.calls(7)
        assert list(rows.answered_by.notna()) == [False, False, False, True, False, False, False]
        assert list(rows.inputs) == [5, 2, 2, 2, 1, 1, 1]
        assert json.loads(rows.attributes[2])["asked"]["inputs"] == 5


def test_answers_of_every_protocol(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "r.perfnb")
    with (
        running(Provider()) as upstream,
        LlmProxy(recording.path, f"{upstream.url}/v1") as proxy,
        Scene(upstream.url, proxy, recording) as made,
    ):
        made.base(response_cache={}, output_cap={"max_tokens": 9})
        client = made.client()
        for ask_one in (
            lambda: client.responses.create(model="m", input="hello").model_dump(),
            lambda: [each.model_dump() for each in client.responses.create(model="m", input="hello", stream=True)],
            lambda: client.completions.create(model="m", prompt="hello").model_dump(),
            lambda: client.post(
                "/messages", cast_to=str, body={"max_tokens": 50, "stream": True, "messages": QUESTION}
            ),
        ):
            first = ask_one()
            assert ask_one() == first
        assert len(upstream.seen) == 4
        rows = made.calls(8)
        assert list(rows.answered_by.notna()) == [False, True] * 4
        assert list(rows.max_tokens) == [9] * 8
        for even, odd in zip(rows.iloc[::2].itertuples(), rows.iloc[1::2].itertuples(), strict=True):
            assert (even.response_digest, even.output_tokens) == (odd.response_digest, odd.output_tokens)
        assert len(made.calls(8)) == 8
    recording.close()


def test_a_cache_outlives_a_change_of_another_policy(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        made.base(response_cache={})
        ask(made.client())
        made.control.set({"base": {"response_cache": {}}, "label": {"trial": "t", "arm": "A"}})
        ask(made.client())
        assert made.billed() == 1
        assert made.calls(2).arm.fillna("").tolist() == ["", "t/A"]
        assert len(made.events("knob")) == 1


def test_no_text_and_no_key_is_in_redis(tmp_path: Path) -> None:
    with redis(tmp_path) as (url, _), scene(tmp_path) as made:
        made.base(response_cache={"redis": url}, embedding_cache={"redis": url})
        ask(made.client())
        made.client().embeddings.create(model="sim-embedding", input="a private text")
        kept = subprocess.run(
            ["redis-cli", "-s", url.removeprefix("unix://"), "keys", "*"], capture_output=True, check=True, text=True
        ).stdout
        assert kept.count("perfnb:") == 2
        assert "deque" not in kept
        wait_for(lambda: made.proxy.counters["rows"] == 2)
        assert_nothing_private(made)


def assert_nothing_private(made: Scene) -> None:
    kept = b"".join(path.read_bytes() for path in made.recording.path.rglob("*") if path.is_file())
    assert not any(word in kept for word in (b"sk-planted", b"deque", b"a private text"))
