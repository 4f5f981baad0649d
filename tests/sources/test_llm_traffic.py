import json
from typing import Any

import pytest

from perfnb.prompts.digest import Digester, prompt_tokens
from perfnb.recording import TABLES
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.llm_traffic import bare_row, call_row, provider_of, retry_after_ms
from perfnb.sources.traffic.traceparent import caller

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PROMPT = {"model": "gpt-x", "messages": [{"role": "user", "content": "How do I open a file?" * 4}]}
USAGE = {"prompt_tokens": 40, "completion_tokens": 11, "total_tokens": 51}
WHOLE = {"model": "gpt-x-1", "choices": [{"message": {"content": "open()"}, "finish_reason": "stop"}], "usage": USAGE}
DIGESTER = Digester(b"k" * 32)


def exchange(
    request: Any = PROMPT,
    answer: Any = WHOLE,
    *,
    path: str = "/v1/chat/completions",
    times: tuple[float, ...] = (50.0,),
    sent: dict[str, str] | None = None,
    got: dict[str, str] | None = None,
    **known: Any,
) -> Exchange:
    """One exchange: ``answer`` is a body, or a list of bodies that were streamed at ``times``."""
    is_stream = isinstance(answer, list)
    made = Exchange("POST", path, 1_000, 0.0)
    made.status, made.answered, made.ended = 200, times[0] if times else None, (times[-1] if times else 60.0) + 10
    made.request_headers = {"content-type": "application/json", **(sent or {})}
    made.response_headers = {"content-type": "text/event-stream" if is_stream else "application/json", **(got or {})}
    made.sent(request if isinstance(request, bytes) else json.dumps(request).encode(), 10**9)
    for time, body in zip(times, answer if is_stream else [answer], strict=False):
        data = json.dumps(body).encode()
        made.received(b"data: " + data + b"\n\n" if is_stream else data, time, 10**9)
    for name, value in known.items():
        setattr(made, name, value)
    return made


def row_of(*arguments: Any, **known: Any) -> dict[str, Any]:
    row = call_row(exchange(*arguments, **known), DIGESTER, "openai")
    assert set(row) <= set(TABLES["llm_calls"].types)
    return dict(row)


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


STREAM = [{"choices": [{"delta": {"role": "assistant"}}]}, delta("a"), delta("b"), {"choices": [], "usage": USAGE}]


def test_a_whole_answer() -> None:
    row = row_of()
    assert (row["request_model"], row["response_model"], row["finish_reason"]) == ("gpt-x", "gpt-x-1", "stop")
    assert (row["input_tokens"], row["output_tokens"], row["tokens_estimated"]) == (40, 11, False)
    assert (row["duration_ms"], row["time_to_first_byte_ms"], row["time_to_first_token_ms"]) == (60.0, 50.0, None)
    assert row["error_type"] is None
    assert prompt_tokens(row) == 40
    assert row["attributes"]["usage"] == USAGE


def test_a_streamed_answer_is_timed_by_its_content() -> None:
    row = row_of(PROMPT | {"stream": True}, STREAM, times=(5.0, 20.0, 70.0, 71.0))
    assert (row["time_to_first_byte_ms"], row["time_to_first_token_ms"], row["last_token_ms"]) == (5.0, 20.0, 70.0)
    assert row["output_tokens_per_s"] == pytest.approx((11 - 1) / 0.05)
    assert row["stream"] is True


def test_tokens_are_estimated_where_the_provider_tells_none() -> None:
    row = row_of(PROMPT | {"stream": True}, STREAM[:3], times=(5.0, 20.0, 70.0))
    assert row["tokens_estimated"] is True
    assert row["usage_rule"] == "estimated"
    assert row["input_tokens"] == prompt_tokens(row) + 3 * len(row["messages"]) + 3 == 21 + 6
    assert row["output_tokens"] == 1


@pytest.mark.parametrize(
    ("known", "error"),
    [
        ({"status": 429}, "rate_limit"),
        ({"status": 500}, "server_error"),
        ({"status": 529}, "server_error"),
        ({"status": 404}, "client_error"),
        ({"status": 504}, "timeout"),
        ({"status": 408}, "timeout"),
        ({"end": "unreachable", "status": None}, "connection"),
        ({"end": "broken"}, "connection"),
        ({"end": "disconnected"}, "disconnected"),
        ({"end": "unfinished"}, "unfinished"),
        ({"answer": {"error": {"code": "rate_limit_exceeded"}}}, "rate_limit"),
        ({"answer": [delta("a"), {"error": {"type": "overloaded_error"}}], "times": (1.0, 2.0)}, "server_error"),
        ({"answer": [{"error": {"code": "content_filter"}}]}, "content_filter"),
        ({}, None),
    ],
)
def test_what_went_wrong_has_a_name(known: dict[str, Any], error: str | None) -> None:
    row = row_of(**known)
    assert row["error_type"] == error
    assert row["client_disconnected"] == (error == "disconnected")


@pytest.mark.parametrize(
    ("timeout", "ended", "last", "error"),
    [
        ("2", 2000.0, (), "timeout"),
        ("2", 1000.0, (), "disconnected"),
        ("2", 2500.0, (1000.0,), "disconnected"),
        ("2", 3010.0, (1000.0,), "timeout"),
        ("0", 3000.0, (), "disconnected"),
    ],
)
def test_a_caller_that_left_at_its_timeout_timed_out(
    timeout: str, ended: float, last: tuple[float, ...], error: str
) -> None:
    sent = {"x-stainless-read-timeout": timeout}
    row = row_of(answer=[delta("a")], times=last, sent=sent, end="disconnected", ended=ended)
    assert row["error_type"] == error
    assert row["timeout_ms"] == float(timeout) * 1000


def test_a_caller_that_left_after_the_last_event_missed_nothing() -> None:
    made = exchange(answer=[delta("a")], end="disconnected")
    made.received(b"data: [DONE]\n\n", 51.0, 10**9)
    row = call_row(made, DIGESTER, "openai")
    assert (row["error_type"], row["client_disconnected"]) == (None, False)


@pytest.mark.parametrize("status", [429, 500, 401])
def test_a_failed_attempt_used_no_tokens(status: int) -> None:
    row = row_of(answer={"error": {"message": "no", "code": "x"}}, status=status)
    assert row.get("input_tokens") is None
    assert row["attributes"]["error_code"] == "x"


def test_headers_that_tell_something() -> None:
    sent = {
        "traceparent": f"00-{TRACE}-{SPAN}-01", "x-stainless-retry-count": "2", "x-stainless-timeout": "30",
        "user-agent": "OpenAI/Python 3", "x-session-id": "s1",
    }  # fmt: skip
    got = {
        "openai-processing-ms": "123",
        "retry-after": "1.5",
        "x-request-id": "r1",
        "x-ratelimit-remaining-tokens": "9",
    }
    row = row_of(sent=sent, got=got, connection_id=3, connection_requests=7, connect_ms=12.5)
    expected = {
        "trace_id": TRACE, "parent_span_id": SPAN, "retry_count": 2, "timeout_ms": 30_000.0, "processing_ms": 123.0,
        "retry_after_ms": 1500.0, "connection_id": 3, "connection_requests": 7, "connect_ms": 12.5,
        "user_agent": "OpenAI/Python 3", "conversation_id": DIGESTER.digest("s1"),
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert row["attributes"]["request_id"] == "r1"
    assert row["attributes"]["rate_limits"] == {"x-ratelimit-remaining-tokens": "9"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 250.0),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:30 GMT"}, 30_000.0),
        ({"retry-after": "Fri, 20 Nov 2026 09:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_ms(headers, now=1795168800.0) == expected


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("my.openai.azure.com", "azure"),
        ("API.Anthropic.com", "anthropic"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "aws"),
        ("evilapi.openai.com.example", "evilapi.openai.com.example"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_provider_by_host(host: str, provider: str) -> None:
    assert provider_of(host) == provider


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", (TRACE, SPAN)),
        (f"cc-{TRACE}-{SPAN}-01-what", (TRACE, SPAN)),
        (f"00-{TRACE}-{SPAN}-01-what", (None, None)),
        (f"ff-{TRACE}-{SPAN}-01", (None, None)),
        (f"00-{'0' * 32}-{SPAN}-01", (None, None)),
        (f"00-{TRACE}-{'0' * 16}-01", (None, None)),
        (f"00-{TRACE.upper()}-{SPAN}-01", (None, None)),
        ("", (None, None)),
        ("nonsense", (None, None)),
    ],
)
def test_who_called(header: str, expected: tuple[str | None, str | None]) -> None:
    assert caller(header) == expected


@pytest.mark.parametrize(
    "known",
    [
        {"request": b"not json"},
        {"request": b"[1]"},
        {"request": b""},
        {"request": b"\xff\xfe"},
        {"got": {"content-encoding": "rot13"}},
        {"got": {"content-encoding": "gzip"}},
        {"path": "/v1/audio/speech"},
        {"path": "/v1/models", "request": b"", "answer": {"data": [{"id": "m"}]}},
        {"answer": "a string"},
        {"times": ()},
    ],
)
def test_what_can_not_be_read_still_gives_a_row(known: dict[str, Any]) -> None:
    row = row_of(**known)
    assert row["duration_ms"] > 0
    assert row["status_code"] == 200


def test_a_body_too_long_to_keep_still_gives_a_row() -> None:
    made = Exchange("POST", "/v1/chat/completions", 1, 0.0)
    made.sent(b"x" * 100, 10)
    made.received(b"x" * 100, 1.0, 10)
    made.status, made.ended = 200, 2.0
    row = call_row(made, DIGESTER, "openai")
    assert (row["request_bytes"], row["response_bytes"]) == (100, 100)
    assert row["attributes"]["too_long_to_read"] is True


def test_a_bare_row_has_the_times_alone() -> None:
    row = bare_row(exchange(), "openai")
    assert (row["duration_ms"], row["operation"], row["status_code"]) == (60.0, "chat", 200)
    assert set(row) <= set(TABLES["llm_calls"].types)


def test_embeddings_have_inputs_and_no_answer_text() -> None:
    answer = {"data": [{"embedding": [0.1]}] * 2, "model": "e", "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    row = row_of({"model": "e", "input": ["one", "two"]}, answer, path="/v1/embeddings")
    assert (row["operation"], row["inputs"], row["input_tokens"], row["output_tokens"]) == ("embeddings", 2, 4, 0)
    assert row.get("response_digest") is None
