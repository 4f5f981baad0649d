import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sources.otlp_spans import call, event, row, rows, span

from perfnb.prompts.digest import Digester
from perfnb.recording.schema import TABLES
from perfnb.sources.otlp.dialects import Roles, read, table
from perfnb.sources.otlp.rows import RowMaker
from perfnb.sources.otlp.tolerant import document, traces_from_document

CAPTURED = Path(__file__).parent / "otlp_fixtures"
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}


def captured(name: str, content: str = "digest") -> dict[str, list[dict[str, Any]]]:
    traces = traces_from_document(document((CAPTURED / f"{name}.jsonl").read_bytes()))
    return RowMaker(Digester(b"k" * 32, content), content).rows(traces.groups)  # type: ignore[arg-type]


@pytest.mark.parametrize("dialect", ["otel", "openinference", "openllmetry"])
def test_the_same_conversation_reads_the_same_in_every_dialect(dialect: str) -> None:
    asked, followed, streamed, embedded, limited = captured(dialect)["llm_calls"]
    for each in (asked, followed, streamed):
        assert (each["input_tokens"], each["cache_read_tokens"], each["output_tokens"]) == (2006, 1920, 300)
        assert (each["provider"], each["operation"], each["usage_rule"]) == ("openai", "chat", "inclusive")
        assert each["response_model"] == "gpt-5-mini-2026"
    assert (asked["max_tokens"], asked["temperature"], asked["finish_reason"]) == (400, 0.2, "tool_calls")
    assert [m["role"] for m in asked["messages"]] == ["system", "user"]
    assert [t["name"] for t in asked["tool_calls"]] == ["find_order"]
    assert asked["tools_offered"] == 1
    assert [m["role"] for m in followed["messages"]] == ["system", "user", "assistant", "tool"]
    assert followed["messages"][3]["id_digest"] == asked["tool_calls"][0]["id_digest"]
    assert (asked["stream"], streamed["stream"]) == (False, True)
    assert 0 < streamed["time_to_first_token_ms"] < streamed["duration_ms"]
    assert (embedded["operation"], embedded["input_tokens"]) == ("embeddings", 12)
    assert (limited["error_type"], limited["input_tokens"]) == ("rate_limit", None)


def test_what_was_said_has_the_same_digests_in_every_dialect() -> None:
    dialects = [captured(name)["llm_calls"] for name in ("otel", "openinference", "openllmetry")]
    assert len({calls[2]["prompt_digest"] for calls in dialects}) == 1
    assert len({calls[1]["response_digest"] for calls in dialects}) == 1
    assert len({calls[0]["tool_calls"][0]["arguments_digest"] for calls in dialects}) == 1


@pytest.mark.parametrize("dialect", ["otel", "openinference", "openllmetry"])
def test_contents_stay_out_unless_asked_for(dialect: str) -> None:
    words = ("helpful support", "order 4711", "left on Monday", "shipped", "parcel")
    written = json.dumps(captured(dialect))
    assert not [word for word in words if word in written]
    assert "order 4711" in json.dumps(captured(dialect, "full")["llm_calls"])
    assert "left on Monday" in json.dumps(captured(dialect, "full")["spans"])


@pytest.mark.parametrize("dialect", ["otel", "openinference", "openllmetry"])
def test_retries_stay_visible_as_http_spans_below_the_call(dialect: str) -> None:
    made = captured(dialect)
    limited = made["llm_calls"][4]
    below = [s for s in made["spans"] if s["parent_span_id"] == limited["span_id"]]
    assert [(s["operation"], s["http_status_code"], s["kind"]) for s in below] == [("http", 429, "CLIENT")] * 2


def test_rows_have_only_columns_of_the_schema() -> None:
    made = captured("openinference")
    made["http_requests"] = rows(span({"http.request.method": "GET", "url.path": "/a"}, kind=2))["http_requests"]
    for name, found in made.items():
        assert found
        assert not {column for each in found for column in each} - set(TABLES[name].types)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param(
            {
                "ai.operationId": "ai.streamText.doStream",
                "ai.model.provider": "openai.chat",
                "ai.model.id": "gpt-5",
                "ai.usage.promptTokens": 100,
                "ai.usage.completionTokens": 20,
                "ai.response.msToFirstChunk": 300.5,
                "ai.response.finishReason": "stop",
            },
            {"provider": "openai", "request_model": "gpt-5", "input_tokens": 100, "output_tokens": 20,
             "time_to_first_token_ms": 300.5, "stream": True, "finish_reason": "stop"},
            id="AI SDK 4",
        ),
        pytest.param(
            {
                "operation.name": "ai.generateText.doGenerate my-function",
                "gen_ai.request.model": "claude",
                "ai.usage.inputTokens": 650361,
                "ai.usage.inputTokenDetails.cacheReadTokens": 649452,
                "ai.usage.inputTokenDetails.cacheWriteTokens": 907,
                "ai.usage.outputTokens": 369,
            },
            {"input_tokens": 650361, "cache_read_tokens": 649452, "cache_write_tokens": 907, "usage_rule": "inclusive"},
            id="AI SDK 6",
        ),
        pytest.param(
            {
                "langfuse.observation.type": "generation",
                "langfuse.observation.model.name": "gpt-5",
                "langfuse.observation.usage_details": '{"input": 86, "output": 100, "input_cached_tokens": 1920, '
                '"output_reasoning_tokens": 200, "total": 2306}',
                "langfuse.observation.model.parameters": '{"temperature": 0.5, "max_tokens": 9}',
                "langfuse.observation.completion_start_time": '"2026-09-21T13:06:40.250Z"',
            },
            {"request_model": "gpt-5", "input_tokens": 2006, "cache_read_tokens": 1920, "output_tokens": 300,
             "reasoning_tokens": 200, "usage_rule": "exclusive", "temperature": 0.5, "max_tokens": 9},
            id="Langfuse buckets are disjoint",
        ),
        pytest.param(
            {
                "mlflow.spanType": '"CHAT_MODEL"',
                "mlflow.llm.model": '"gpt-5"',
                "mlflow.chat.tokenUsage": '{"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}',
            },
            {"operation": "chat", "request_model": "gpt-5", "input_tokens": 10, "output_tokens": 5},
            id="MLflow quotes its strings",
        ),
        pytest.param(
            {
                "sentry.op": "gen_ai.chat",
                "gen_ai.request.model": "gpt-5",
                "gen_ai.usage.input_tokens": 10,
                "gen_ai.usage.input_tokens.cached": 8,
                "gen_ai.usage.output_tokens.reasoning": 3,
                "gen_ai.usage.output_tokens": 5,
                "gen_ai.response.streaming": True,
            },
            {"input_tokens": 10, "cache_read_tokens": 8, "reasoning_tokens": 3, "stream": True},
            id="Sentry",
        ),
        pytest.param(
            {
                **CHAT,
                "gen_ai.system": "openai",
                "gen_ai.request.is_stream": True,
                "gen_ai.server.time_to_first_token": 0.35,
                "gen_ai.usage.prompt_tokens_details.cached_tokens": 4,
                "gen_ai.usage.input_tokens": 10,
            },
            {"provider": "openai", "time_to_first_token_ms": 350.0, "cache_read_tokens": 4},
            id="OpenLIT counts seconds",
        ),
        pytest.param(
            {**CHAT, "gen_ai.server.time_to_first_token": 350, "gen_ai.usage.cache_write_input_tokens": 7},
            {"time_to_first_token_ms": 350.0, "cache_write_tokens": 7},
            id="Strands counts milliseconds",
        ),
        pytest.param(
            {**CHAT, "gen_ai.response.time_to_first_token": 250_000_000},
            {"time_to_first_token_ms": 250.0},
            id="nanoseconds",
        ),
        pytest.param(
            {
                "llm.request.type": "chat",
                "gen_ai.system": "OpenAI",
                "gen_ai.request.model": "m",
                "gen_ai.usage.prompt_tokens": 11,
                "gen_ai.usage.completion_tokens": 2,
                "llm.usage.total_tokens": 13,
                "llm.is_streaming": False,
                "gen_ai.prompt.0.role": "user",
                "gen_ai.prompt.0.content": "hello",
                "gen_ai.completion.0.content": "hi",
                "gen_ai.completion.0.tool_calls.0.name": "look",
                "gen_ai.completion.0.tool_calls.0.arguments": "{}",
            },
            {"provider": "openai", "input_tokens": 11, "output_tokens": 2, "stream": False},
            id="OpenLLMetry before 0.50",
        ),
        pytest.param(
            {**CHAT, "model_name": "x", "gen_ai.usage.details.cache_read_tokens": 3, "gen_ai.usage.input_tokens": 9},
            {"request_model": "m", "cache_read_tokens": 3},
            id="Pydantic AI",
        ),
        pytest.param(
            {"request_data": '{"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}',
             "gen_ai.request.model": "gpt-5", "gen_ai.usage.input_tokens": 4, "logfire.span_type": "span"},
            {"operation": "chat", "input_tokens": 4},
            id="Logfire without an operation name",
        ),
        pytest.param(
            {"gen_ai.operation.name": "generate_content", "gen_ai.response.model": "gemini", "gen_ai.usage.total_tokens": 30,
             "gen_ai.usage.output_tokens": 10},
            {"operation": "chat", "request_model": "gemini", "input_tokens": 20},
            id="input from the total",
        ),
    ],
)  # fmt: skip
def test_dialects(attributes: dict[str, Any], expected: dict[str, Any]) -> None:
    made = call(attributes)
    assert {name: made[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("attributes", "scope", "expected"),
    [
        ({"gen_ai.usage.input_tokens": 2000, "gen_ai.usage.cache_read.input_tokens": 1900}, "", (2000, "inclusive")),
        ({"gen_ai.usage.input_tokens": 10, "gen_ai.usage.cache_read.input_tokens": 1900}, "", (1910, "exclusive")),
        (
            {"gen_ai.usage.input_tokens": 90, "gen_ai.usage.cache_read_input_tokens": 10, "gen_ai.usage.output_tokens": 5,
             "gen_ai.usage.total_tokens": 105},
            "",
            (100, "exclusive"),
        ),
        (
            {"gen_ai.usage.input_tokens": 90, "gen_ai.usage.cache_read_input_tokens": 10},
            "opentelemetry.instrumentation.bedrock",
            (100, "exclusive"),
        ),
        (
            {"gen_ai.usage.input_tokens": 90, "gen_ai.usage.cache_read_input_tokens": 10},
            "opentelemetry.instrumentation.bedrock_other",
            (100, "exclusive"),
        ),
        ({"gen_ai.usage.input_tokens": 90, "gen_ai.usage.cache_read_input_tokens": 10}, "airline", (90, "inclusive")),
        (
            {"ai.usage.inputTokens": 90, "ai.usage.cachedInputTokens": 10, "ai.model.provider": "anthropic.messages"},
            "ai",
            (100, "exclusive"),
        ),
        (
            {"ai.usage.inputTokens": 90, "ai.usage.inputTokenDetails.cacheReadTokens": 10, "ai.model.provider": "anthropic"},
            "ai",
            (90, "inclusive"),
        ),
        ({}, "", (None, None)),
    ],
)  # fmt: skip
def test_cached_tokens_are_inside_input_once(attributes: dict[str, Any], scope: str, expected: tuple[Any, ...]) -> None:
    made = call(CHAT | attributes, scope=scope)
    assert (made["input_tokens"], made["usage_rule"]) == expected


def test_breakdowns_by_modality_are_not_added() -> None:
    made = call(
        CHAT
        | {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.text.input_tokens": 8, "gen_ai.usage.audio.input_tokens": 2}
    )
    assert made["input_tokens"] == 10


@pytest.mark.parametrize(
    ("attributes", "kind", "expected"),
    [
        ({"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 9, "gen_ai.request.model": "m"}, 1, "agent"),
        ({"ai.operationId": "ai.generateText", "ai.usage.inputTokens": 9, "ai.model.id": "m"}, 1, "agent"),
        ({"openinference.span.kind": "CHAIN", "llm.token_count.prompt": 9, "llm.model_name": "m"}, 1, "step"),
        ({"agent_name": "a", "model_name": "m", "gen_ai.usage.input_tokens": 9}, 1, "agent"),
        ({"gen_ai.operation.name": "invoke_workflow"}, 1, "step"),
        ({"traceloop.span.kind": "workflow", "gen_ai.usage.input_tokens": 3}, 1, "step"),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t"}, 1, "tool"),
        ({"gen_ai.tool.name": "t", "gen_ai.tool.call.id": "1"}, 1, "tool"),
        ({"openinference.span.kind": "RETRIEVER"}, 1, "retrieval"),
        ({"openinference.span.kind": "RERANKER"}, 1, "rerank"),
        ({"db.system.name": "qdrant", "db.operation.name": "query_points"}, 3, "retrieval"),
        ({"db.system": "qdrant", "db.operation": "upsert"}, 3, "database"),
        ({"db.system": "postgresql", "db.statement": "SELECT 1"}, 3, "database"),
        ({"http.request.method": "GET"}, 3, "http"),
        ({"http.method": "GET", "http.route": "/"}, 2, "server"),
        ({"rpc.system": "grpc"}, 3, "rpc"),
        ({"messaging.system": "kafka"}, 4, "message"),
        ({"gen_ai.operation.name": "something_new"}, 1, "step"),
        ({"langfuse.observation.type": "span", "openinference.span.kind": "TOOL"}, 1, "tool"),
        ({"cache.hit": True, "cache.key": ["a"]}, 1, "cache"),
        ({}, 1, "step"),
    ],
)  # fmt: skip
def test_every_span_has_a_kind_of_work_and_sums_are_no_calls(
    attributes: dict[str, Any], kind: int, expected: str
) -> None:
    made = rows(span(attributes, kind=kind))
    assert made["spans"][0]["operation"] == expected
    assert made["llm_calls"] == []


def test_pending_spans_of_logfire_are_left_out() -> None:
    assert rows(span(CHAT | {"logfire.span_type": "pending_span"})) == {
        "spans": [],
        "llm_calls": [],
        "http_requests": [],
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [("First Token Stream Event", 120.0), ("gen_ai.content.completion.chunk", 120.0), ("something else", None)],
)
def test_the_first_token_is_told_by_events_of_several_dialects(name: str, expected: float | None) -> None:
    events = [event(name, 120), event(name, 300), event(name, 900)]
    assert call(CHAT, events=events)["time_to_first_token_ms"] == expected


def test_an_event_per_chunk_is_kept_once_with_its_number() -> None:
    made = rows(span(CHAT, events=[event("gen_ai.content.completion.chunk", at) for at in (10, 20, 30)]))
    (kept,) = made["spans"][0]["events"]
    assert (kept["count"], kept["name"]) == (3, "gen_ai.content.completion.chunk")
    assert made["llm_calls"][0]["last_token_ms"] == 30


def test_a_first_token_after_the_end_is_not_believed() -> None:
    assert call(CHAT | {"gen_ai.response.time_to_first_chunk": 5.0}, ms=2000)["time_to_first_token_ms"] is None


@pytest.mark.parametrize(
    ("attributes", "events", "status", "expected"),
    [
        ({"error.type": "429"}, [], 2, "rate_limit"),
        ({}, [event("exception", **{"exception.type": "openai.APITimeoutError"})], 2, "timeout"),
        ({"error.type": "anthropic.OverloadedError"}, [], 2, "server_error"),
        ({"error.type": "odd"}, [], 2, "odd"),
        ({"http.response.status_code": 503}, [], 2, "server_error"),
        ({}, [], 2, "error"),
        ({}, [], 1, None),
    ],
)
def test_errors_have_one_name(attributes: dict[str, Any], events: list[Any], status: int, expected: str | None) -> None:
    assert call(CHAT | attributes, events=events, status=status)["error_type"] == expected


@pytest.mark.parametrize(
    ("attributes", "events", "expected"),
    [
        ({"retrieval.documents.0.document.content": "a", "retrieval.documents.1.document.score": 0.5}, [], 2),
        ({"gen_ai.retrieval.documents": '[{"id": "1"}, {"id": "2"}, {"id": "3"}]'}, [], 3),
        ({"db.vector.results.count": 7}, [], 7),
        ({}, [event("db.query.result"), event("db.query.result")], 2),
        ({}, [], None),
    ],
)
def test_documents_of_a_retrieval_are_counted(
    attributes: dict[str, Any], events: list[Any], expected: int | None
) -> None:
    made = row({"openinference.span.kind": "RETRIEVER"} | attributes, events=events)
    assert made["documents"] == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [({"cache.hit": True}, True), ({"cache_status": "MISS"}, False), ({"gen_ai.cache.hit": "true"}, True), ({}, None), ({"cache_hit": "?"}, None)],
)  # fmt: skip
def test_cache_hits(attributes: dict[str, Any], expected: bool | None) -> None:
    assert row(attributes)["cache_hit"] is expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (
            {"http.request.method": "POST", "http.route": "/chat", "http.response.status_code": 200},
            ("POST", "/chat", 200),
        ),
        ({"http.method": "GET", "http.target": "/users/42?q=secret", "http.status_code": 404}, ("GET", "/users/{id}", 404)),
        ({"http.request.method": "GET", "url.full": "http://h/a/6f9619ff-8b86-d011-b42d-00c04fc964ff/b"}, ("GET", "/a/{id}/b", None)),
    ],
)  # fmt: skip
def test_server_spans_are_requests(attributes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    (made,) = rows(span(attributes, kind=2))["http_requests"]
    assert (made["method"], made["route"], made["status_code"]) == expected


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "find", "gen_ai.tool.call.arguments": '{"a": 1, "b": 2}'}, "find"),
        ({"openinference.span.kind": "TOOL", "tool.name": "find", "input.value": '{"b":2,"a":1}'}, "find"),
        ({"traceloop.span.kind": "tool", "traceloop.entity.name": "find", "traceloop.entity.input": '{"b": 2, "a": 1}'}, "find"),
        ({"ai.operationId": "ai.toolCall", "ai.toolCall.name": "find", "ai.toolCall.args": '{"a":1,"b":2}'}, "find"),
    ],
)  # fmt: skip
def test_tools_are_told_alike_in_every_dialect(attributes: dict[str, Any], named: str) -> None:
    expected = Digester(b"k" * 32).digest('{"a":1,"b":2}')
    made = row(attributes)["attributes"]
    assert (made["perfnb.tool"], made["perfnb.input_digest"]) == (named, expected)


SECRETS = {
    "http.request.header.authorization": ["Bearer tok-4711-abc"],
    "openai.api_key": "sk-4711aaaaaaaaaaaaaaaa",
    "url.full": "https://user:pw4711@host/v1?api_key=4711abc&x=1",
    "db.connection_string": "host=db password=pw4711 dbname=x",
    "http.response.header.set_cookie": "sid=4711",
    "note": "used key sk-proj-4711aaaaaaaaaaaa today",
}


@pytest.mark.parametrize("content", ["digest", "full"])
def test_secrets_are_never_written(content: str) -> None:
    failed = event("exception", **{"exception.message": "Incorrect API key provided: sk-4711bbbbbbbbbbbb"})
    made = rows(
        span(SECRETS, events=[failed], status=2, status_message="Bearer 4711bbbbbbbbbb refused"), content=content
    )
    written = json.dumps(made)
    assert "4711" not in written
    assert ("x=1" if content == "full" else "x=\\u2026") in written


@pytest.mark.parametrize(
    "attributes",
    [
        {"app.question": "private words"},
        {"llm.openai.messages": "[private words]"},
        {"my.notes": "private words " * 100},
        {"gen_ai.prompt.variable.name": "private words"},
        {"db.query.parameter.0": "private words"},
        {"logfire.msg": "Asked private words"},
        {"gen_ai.tool.call.arguments": {"q": "private words"}},
    ],
)
def test_contents_under_any_name_stay_out(attributes: dict[str, Any]) -> None:
    assert "private words" not in json.dumps(rows(span(attributes)))
    assert "private words" in json.dumps(rows(span(attributes), content="full"))


def test_numbers_under_a_contents_name_stay() -> None:
    assert row({"llm.cost.prompt": 0.25, "top.question": 3})["attributes"] == {
        "llm.cost.prompt": 0.25,
        "top.question": 3,
    }


SAID = {
    "parts": {"gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"hello"}]}]'},
    "structured": {"gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "hello"}]}]},
    "indexed": {"llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": "hello"},
    "indexed contents": {
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.contents.0.message_content.type": "text",
        "llm.input_messages.0.message.contents.0.message_content.text": "hello",
    },
    "old indexed": {"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "hello"},
    "AI SDK": {"ai.prompt.messages": '[{"role":"user","content":[{"type":"text","text":"hello"}]}]'},
    "body": {"input.value": '{"messages":[{"role":"user","content":"hello"}]}'},
    "body as a Langfuse list": {"langfuse.observation.input": '[{"role":"user","content":"hello"}]'},
    "Logfire events": {"events": '[{"event.name":"gen_ai.user.message","role":"user","content":"hello"}]'},
    "Bedrock": {"gen_ai.request.messages": '[{"role":"user","content":[{"text":"hello"}]}]'},
}


def test_one_question_gives_one_digest_whatever_the_dialect() -> None:
    digests = {name: call(CHAT | attributes)["prompt_digest"] for name, attributes in SAID.items()}
    assert len(set(digests.values())) == 1, digests


def test_messages_in_events_count_like_those_in_attributes() -> None:
    legacy = [event("gen_ai.user.message", content="hello"), event("gen_ai.choice", message='{"content": "hi"}')]
    details = [event("gen_ai.client.inference.operation.details", **SAID["parts"])]
    kernel = [event("gen_ai.content.prompt", **{"gen_ai.prompt": '[{"role":"user","content":"hello"}]'})]
    expected = call(CHAT | SAID["parts"])["prompt_digest"]
    assert [call(CHAT, events=events)["prompt_digest"] for events in (legacy, details, kernel)] == [expected] * 3
    assert "response_digest" in call(CHAT, events=legacy)
    assert "hello" not in json.dumps(rows(span(CHAT, events=legacy)))


def test_tool_results_are_messages_whatever_the_dialect() -> None:
    forms = [
        {"role": "tool", "tool_call_id": "1", "content": "done"},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "done"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "done"}]},
        {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "1", "result": "done"}]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "1", "content": "done"}}]},
    ]
    made = [call(CHAT | {"gen_ai.input.messages": [form]})["messages"] for form in forms]
    assert [[(m["role"], m["id_digest"]) for m in messages] for messages in made] == [
        [("tool", made[0][0]["id_digest"])]
    ] * 5


def test_no_attribute_name_is_in_two_facts() -> None:
    names = [name for names in table()["facts"].values() for name in names]
    names += [*table()["unpack"], *table()["first_token"]]
    assert not {name for name in names if names.count(name) > 1}


def test_newer_names_win() -> None:
    names = table()["facts"]["cache_write_tokens"]
    for newer, older in itertools.pairwise(names):
        assert read({older: 1, newer: 2}).facts["cache_write_tokens"] == 2


def test_names_made_from_ids_do_not_fill_the_memory() -> None:
    roles = Roles()
    for number in range(45_000):
        roles[f"user.{number}.seen"]
    assert len(roles) <= 20_001


def test_the_instrumentation_installed_here_reads_as_the_captured_one() -> None:
    ran = subprocess.run([sys.executable, CAPTURED / "capture.py", "otel"], capture_output=True, timeout=60, check=True)
    traces = traces_from_document(document(ran.stdout))
    made = RowMaker(Digester(b"k" * 32)).rows(traces.groups)["llm_calls"]
    same = (
        "operation",
        "stream",
        "input_tokens",
        "cache_read_tokens",
        "output_tokens",
        "error_type",
        "prompt_digest",
        "response_digest",
    )
    expected = captured("otel")["llm_calls"]
    assert [[call.get(name) for name in same] for call in made] == [
        [call.get(name) for name in same] for call in expected
    ]


@pytest.mark.parametrize("name", ["db.statement", "db.query.text"])
def test_values_that_an_app_writes_into_sql_are_left_out_unless_texts_are_kept(name: str) -> None:
    written = "SELECT id FROM users\n WHERE mail = 'ann@example.org' AND age > 41 LIMIT 40"
    attributes = {"db.system": "postgresql", name: written}
    assert row(attributes)["statement"] == "SELECT id FROM users WHERE mail = ? AND age > ? LIMIT 40"
    (kept,) = rows(span(attributes), content="full")["spans"]
    assert kept["statement"] == written


@pytest.mark.parametrize("text", ["GET cache:answers", "SELECT id FROM t WHERE id = %s", '{"find": "documents"}'])
def test_other_statements_stay_as_they_are(text: str) -> None:
    assert row({"db.system": "other", "db.statement": text})["statement"] == text
