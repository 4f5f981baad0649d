import asyncio
import contextlib
import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import psutil
import pytest
from http_upstream import Upstream, running
from llm_upstream import ANSWER, Provider

from perfnb.errors import NotReachable, WrongUse
from perfnb.recording import Recording
from perfnb.sources.llm_proxy import LlmProxy
from perfnb.sources.traffic.recorder_link import FLUSH_AFTER_S

SECRETS = ("sk-planted-key", "planted-azure-key", "planted-anthropic-key", "planted-query-key")
PRIVATE = "Rosalind Franklin lives in Notting Hill"
MESSAGES: Any = [{"role": "system", "content": "You help."}, {"role": "user", "content": PRIVATE}]
TOOLS: Any = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}]


@dataclass
class Scene:
    """A provider, the proxy before it, and the recording."""

    upstream: Upstream
    proxy: LlmProxy
    recording: Recording

    def client(self, **settings: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.proxy.url, api_key="sk-planted-key", **settings)

    def direct(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.upstream.url}/v1", api_key="sk-planted-key")


@contextlib.contextmanager
def scene(tmp_path: Path, provider: Provider | None = None, *, content: Any = "digest") -> Iterator[Scene]:
    recording = Recording.create(tmp_path / "r.perfnb", content=content)
    with running(provider or Provider()) as upstream, LlmProxy(recording.path, f"{upstream.url}/v1") as proxy:
        yield Scene(upstream, proxy, recording)
    recording.close()


def calls_of(recording: Recording) -> pd.DataFrame:
    with recording:
        return recording.query("SELECT * FROM llm_calls ORDER BY start_time")


def record(
    tmp_path: Path, use: Callable[[Scene], Any], provider: Provider | None = None, **settings: Any
) -> pd.DataFrame:
    with scene(tmp_path, provider, **settings) as made:
        use(made)
    assert made.proxy.counters["rows"] == made.proxy.counters["exchanges"]
    assert (made.proxy.counters["dropped"], made.proxy.counters["errors"]) == (0, 0)
    return calls_of(made.recording)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_openai_client_gets_the_same_with_and_without(tmp_path: Path) -> None:
    def use(made: Scene) -> None:
        for ask in (
            lambda c: c.chat.completions.create(model="m", messages=MESSAGES).model_dump(),
            lambda c: c.chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS).model_dump(),
            lambda c: [e.model_dump() for e in c.chat.completions.create(model="m", messages=MESSAGES, stream=True)],
            lambda c: c.responses.create(model="m", input=PRIVATE).model_dump(),
            lambda c: [e.model_dump() for e in c.responses.create(model="m", input=PRIVATE, stream=True)],
            lambda c: c.completions.create(model="m", prompt=PRIVATE).model_dump(),
            lambda c: c.embeddings.create(model="e", input=[PRIVATE, "other"]).model_dump(),
            lambda c: [m.model_dump() for m in c.models.list()],
            lambda c: c.audio.speech.create(model="t", voice="alloy", input=PRIVATE).read(),
        ):
            assert ask(made.client()) == ask(made.direct())

    rows = record(tmp_path, use)
    expected = ["chat", "chat", "chat", "responses", "responses", "text_completion", "embeddings", "models", "other"]
    assert list(rows.operation) == expected
    assert list(rows.status_code) == [200] * 9
    assert list(rows.response_model.dropna()) == ["m-1"] * 6 + ["e-1"]
    assert list(rows.connection_requests) == [1] * 9
    assert rows.connection_id.nunique() == 9
    assert set(rows.user_agent.str.partition("/")[0]) == {"OpenAI"}


def test_columns_of_a_chat(tmp_path: Path) -> None:
    def use(made: Scene) -> None:
        made.client(timeout=33).chat.completions.create(
            model="m", messages=MESSAGES, tools=TOOLS, max_tokens=99, temperature=0
        )

    (row,) = record(tmp_path, use).to_dict("records")
    expected = {
        "source": "proxy", "provider": "127.0.0.1", "path": "/v1/chat/completions", "request_model": "m", "stream": False,
        "input_tokens": 50, "cache_read_tokens": 32, "output_tokens": 12, "reasoning_tokens": 4, "tokens_estimated": False,
        "usage_rule": "inclusive", "max_tokens": 99, "temperature": 0.0, "tools_offered": 1, "finish_reason": "tool_calls",
        "retry_count": 0, "timeout_ms": 33_000.0, "processing_ms": 25.0, "client_disconnected": False,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert [message["role"] for message in json.loads(row["messages"])] == ["system", "user"]
    assert [call["name"] for call in json.loads(row["tool_calls"])] == ["search"]
    assert json.loads(row["attributes"])["request_id"] == "req_1"
    assert 0 < row["connect_ms"] < row["duration_ms"]


@pytest.mark.parametrize("has_usage", [True, False])
def test_columns_of_a_stream(tmp_path: Path, has_usage: bool) -> None:
    def use(made: Scene) -> None:
        options: Any = {"include_usage": True} if has_usage else openai.omit
        list(made.client().chat.completions.create(model="m", messages=MESSAGES, stream=True, stream_options=options))

    (row,) = record(tmp_path, use).to_dict("records")
    assert row["stream"]
    assert row["tokens_estimated"] is not has_usage
    assert row["output_tokens"] == (12 if has_usage else -(-len(ANSWER + " ") // 4))
    assert row["time_to_first_byte_ms"] < row["time_to_first_token_ms"] < row["last_token_ms"] < row["duration_ms"]
    speed = (row["output_tokens"] - 1) / (row["last_token_ms"] - row["time_to_first_token_ms"]) * 1e3
    assert row["output_tokens_per_s"] == pytest.approx(speed)


def test_the_async_client_and_many_at_once(tmp_path: Path) -> None:
    async def ask(url: str) -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=url, api_key="sk-planted-key") as client:
            asking = [client.chat.completions.create(model="m", messages=MESSAGES) for _ in range(20)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*asking)]

    rows = record(tmp_path, lambda made: asyncio.run(ask(made.proxy.url)))
    assert len(rows) == 20
    assert rows.prompt_digest.nunique() == rows.response_digest.nunique() == 1


def test_each_attempt_is_a_row(tmp_path: Path) -> None:
    provider = Provider((429, {"retry-after-ms": "20"}), (500, {}))

    def use(made: Scene) -> None:
        answer = made.client().chat.completions.create(model="m", messages=MESSAGES)
        assert answer.choices[0].message.content == ANSWER

    rows = record(tmp_path, use, provider)
    assert list(rows.retry_count) == [0, 1, 2]
    assert list(rows.status_code) == [429, 500, 200]
    assert rows.error_type.iloc[:2].tolist() == ["rate_limit", "server_error"]
    assert pd.isna(rows.error_type.iloc[2])
    assert rows.retry_after_ms.iloc[0] == 20
    assert rows.request_digest.nunique() == 1
    assert rows.input_tokens.isna().tolist() == [True, True, False]


def test_anthropic_messages(tmp_path: Path) -> None:
    def use(made: Scene) -> None:
        body = json.dumps({"model": "claude", "max_tokens": 9, "stream": True, "messages": MESSAGES[1:]}).encode()
        headers = {
            "x-api-key": "planted-anthropic-key",
            "anthropic-version": "2023-06-01",
            "Content-Type": "application/json",
        }
        request = urllib.request.Request(f"{made.proxy.url}/messages", body, headers)
        with urllib.request.urlopen(request) as answer:
            assert ANSWER.encode() in answer.read()

    (row,) = record(tmp_path, use).to_dict("records")
    assert (row["input_tokens"], row["cache_read_tokens"], row["output_tokens"]) == (55, 40, 12)
    assert (row["usage_rule"], row["finish_reason"], row["max_tokens"]) == ("exclusive", "stop", 9)


def test_calls_hang_in_the_callers_trace(tmp_path: Path) -> None:
    header = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    rows = record(
        tmp_path, lambda made: made.client().chat.completions.create(model="m", messages=MESSAGES, extra_headers=header)
    )
    assert (rows.trace_id[0], rows.parent_span_id[0]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


def on_disk(recording: Recording) -> bytes:
    """Everything in the recording's files, Parquet read back as text too."""
    files = b"".join(path.read_bytes() for path in recording.path.rglob("*") if path.is_file())
    with recording:
        rows: str = recording.query("SELECT * FROM llm_calls").to_csv()
    return files + rows.encode()


def ask_with_secrets(made: Scene) -> None:
    headers = {"api-key": "planted-azure-key", "x-api-key": "planted-anthropic-key", "Cookie": "planted-azure-key"}
    query = {"key": "planted-query-key"}
    client = made.client()
    client.chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS, extra_headers=headers, extra_query=query)
    client.embeddings.create(model="e", input=PRIVATE, user=PRIVATE)
    client.responses.create(model="m", input=PRIVATE, instructions=PRIVATE, metadata={"session_id": PRIVATE})
    wait_for(lambda: made.proxy.counters.get("rows") == 3)
    live = b"".join(path.read_bytes() for path in made.recording.path.rglob("*.jsonl"))
    assert live.count(b"\n") == 3
    assert not any(secret.encode() in live for secret in SECRETS)


def test_no_secret_and_no_prompt_is_on_disk(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        ask_with_secrets(made)
    kept = on_disk(made.recording)
    assert not any(secret.encode() in kept for secret in SECRETS)
    assert not any(word in kept for word in (b"Rosalind", b"Notting", b"You help", b"lends them"))


def test_full_content_keeps_prompts_and_still_no_secret(tmp_path: Path) -> None:
    with scene(tmp_path, content="full") as made:
        ask_with_secrets(made)
    kept = on_disk(made.recording)
    assert not any(secret.encode() in kept for secret in SECRETS)
    assert PRIVATE.encode() in kept
    assert ANSWER.encode() in kept


def test_a_recorder_that_dies_disturbs_nobody(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        client = made.client(max_retries=0)
        (recorder,) = psutil.Process(made.proxy.ready["pid"]).children()
        stream = iter(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
        next(stream)
        recorder.kill()
        assert len(list(stream)) > 5
        for _ in range(10):
            assert client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content == ANSWER
        wait_for(lambda: made.proxy.counters["recorder_restarts"] == 1)
        client.chat.completions.create(model="m", messages=MESSAGES)
        wait_for(lambda: made.proxy.counters["exchanges"] == 12)
    counters = made.proxy.counters
    rows = calls_of(made.recording)
    assert len(rows) == counters["rows"] >= 1
    assert counters["rows"] + counters["dropped"] == counters["exchanges"]
    with made.recording:
        events = made.recording.query("SELECT * FROM events WHERE kind = 'source'")
    assert events.title.str.contains("the recorder ended and was started again").any()


def test_a_recording_that_is_taken_away_disturbs_nobody(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        client = made.client(max_retries=0)
        client.chat.completions.create(model="m", messages=MESSAGES)
        wait_for(lambda: made.proxy.counters.get("rows") == 1)
        made.recording.path.rename(tmp_path / "elsewhere")
        for _ in range(3):
            assert client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content == ANSWER
        wait_for(lambda: made.proxy.counters["errors"] == 3)
        (tmp_path / "elsewhere").rename(made.recording.path)
        client.chat.completions.create(model="m", messages=MESSAGES)
        wait_for(lambda: made.proxy.counters["rows"] >= 2)
    with made.recording:
        (title,) = made.recording.query("SELECT title FROM events").title
    assert title.startswith("3 rows could not be written")


def test_what_is_under_way_at_the_end_is_unfinished(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        asking = threading.Thread(target=ask_to_hang, args=(made.proxy.url,))
        asking.start()
        wait_for(lambda: bool(made.upstream.seen))
    asking.join()
    (row,) = calls_of(made.recording).to_dict("records")
    assert row["error_type"] == "unfinished"
    assert row["duration_ms"] > 0


def ask_to_hang(url: str) -> None:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"{url}/hang", data=b"{}")


def test_a_caller_that_runs_out_of_time_is_seen(tmp_path: Path) -> None:
    def use(made: Scene) -> None:
        with pytest.raises(openai.APITimeoutError):
            made.client(timeout=0.3, max_retries=1).post("/hang", cast_to=object, body={})

    rows = record(tmp_path, use)
    assert list(rows.error_type) == ["timeout", "timeout"]
    assert list(rows.retry_count) == [0, 1]
    assert rows.client_disconnected.all()


def test_a_killed_proxy_leaves_its_rows_and_no_process(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        (recorder,) = psutil.Process(made.proxy.ready["pid"]).children()
        for _ in range(5):
            made.client().chat.completions.create(model="m", messages=MESSAGES)
        wait_for(lambda: made.proxy.counters.get("exchanges") == 5)
        time.sleep(10 * FLUSH_AFTER_S)  # an exchange that is younger is lost with the proxy
        os.kill(made.proxy.ready["pid"], signal.SIGKILL)
        recorder.wait(20)
    assert len(calls_of(made.recording)) == 5


def test_a_provider_that_is_not_there_looks_like_a_server_error(tmp_path: Path) -> None:
    with running(Provider()) as upstream:
        gone = upstream.url
    recording = Recording.create(tmp_path / "r.perfnb")
    with LlmProxy(recording.path, gone) as proxy:
        client = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="x", max_retries=0)
        with pytest.raises(openai.InternalServerError, match="gave no answer"):
            client.chat.completions.create(model="m", messages=MESSAGES)
    (row,) = calls_of(recording).to_dict("records")
    assert (row["error_type"], pd.isna(row["status_code"])) == ("connection", True)


def test_wrong_use_is_told(tmp_path: Path) -> None:
    with pytest.raises(WrongUse):
        LlmProxy(tmp_path, "api.openai.com")
    recording = Recording.create(tmp_path / "r.perfnb")
    with LlmProxy(recording.path, "http://127.0.0.1:9/v1") as first:
        second = LlmProxy(recording.path, "http://127.0.0.1:9/v1", port=first.ready["port"])
        with pytest.raises(NotReachable, match="can't listen"):
            second.__enter__()
