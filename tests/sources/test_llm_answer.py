import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.prompts.prompt import Tool
from perfnb.sources.traffic.llm_answer import Answer, streamed_answer, whole_answer
from perfnb.sources.traffic.llm_usage import usage_columns


def stream(*bodies: Any, names: bool = False) -> Answer:
    """Read ``bodies`` as events, one a second; ``names`` writes each body's type as the event's name."""
    pieces = []
    for number, body in enumerate(bodies):
        name = f"event: {body['type']}\n" if names else ""
        data = body if isinstance(body, str) else json.dumps(body)
        pieces.append((float(number), f"{name}data: {data}\n\n".encode()))
    return streamed_answer(pieces)


def chunk(**delta: Any) -> dict[str, Any]:
    finish = delta.pop("finish_reason", None)
    return {"model": "gpt-x-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def test_a_streamed_chat() -> None:
    answer = stream(
        chunk(role="assistant", content=""),
        chunk(content=""),
        chunk(content="Hel"),
        chunk(content="lo"),
        chunk(finish_reason="stop"),
        {"choices": [], "usage": USAGE},
        "[DONE]",
    )
    assert (answer.text, answer.model, answer.finish_reason) == ("Hello", "gpt-x-1", "stop")
    assert (answer.first, answer.last, answer.is_done) == (2.0, 3.0, True)
    assert answer.usage == USAGE


def test_streamed_tool_calls_are_put_together() -> None:
    def call(index: int, **function: Any) -> dict[str, Any]:
        call_id = function.pop("id", None)
        return chunk(tool_calls=[{"index": index, "id": call_id, "function": function}])

    answer = stream(
        chunk(role="assistant", content=None),
        call(0, id="c1", name="search", arguments=""),
        call(0, arguments='{"q":'),
        call(0, arguments='"x"}'),
        call(1, id="c2", name="open", arguments="{}"),
        chunk(finish_reason="tool_calls"),
    )
    assert answer.tool_calls == [Tool("search", '{"q":"x"}', "c1"), Tool("open", "{}", "c2")]
    assert (answer.first, answer.last) == (1.0, 4.0)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_that_is_shown_counts_as_a_first_token_but_not_as_text(key: str) -> None:
    answer = stream(chunk(role="assistant"), chunk(**{key: "hmm"}), chunk(content="yes"))
    assert (answer.first, answer.last, answer.text) == (1.0, 2.0, "yes")
    assert answer.characters == len("hmmyes")


def test_a_streamed_text_completion() -> None:
    answer = stream(
        {"choices": [{"text": "a", "finish_reason": None}]}, {"choices": [{"text": "b", "finish_reason": "length"}]}
    )
    assert (answer.text, answer.finish_reason, answer.first) == ("ab", "length", 0.0)


def test_streamed_responses() -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 1}}
    answer = stream(
        {"type": "response.created", "response": {"model": "gpt-x-1", "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning"}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "thinking"},
        {"type": "response.output_text.delta", "output_index": 1, "delta": "Hi"},
        {
            "type": "response.output_item.added",
            "output_index": 2,
            "item": {"type": "function_call", "name": "f", "call_id": "c"},
        },
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{}"},
        {"type": "response.output_text.done", "output_index": 1, "text": "Hi"},
        {"type": "response.completed", "response": {"model": "gpt-x-1", "status": "completed", "usage": usage}},
        names=True,
    )
    assert (answer.text, answer.tool_calls) == ("Hi", [Tool("f", "{}", "c")])
    assert (answer.first, answer.last, answer.is_done) == (2.0, 5.0, True)
    assert (answer.finish_reason, answer.usage, answer.model) == ("tool_calls", usage, "gpt-x-1")


def test_a_streamed_message_of_anthropic() -> None:
    answer = stream(
        {"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 7, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 20}},
        {"type": "message_stop"},
        names=True,
    )
    assert (answer.text, answer.tool_calls) == ("Hi", [Tool("f", '{"a":1}', "t")])
    assert (answer.first, answer.last, answer.is_done) == (3.0, 5.0, True)
    assert (answer.finish_reason, answer.model) == ("tool_calls", "claude-x")
    assert answer.usage == {"input_tokens": 7, "output_tokens": 20}


WHOLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chat": (
        {"model": "m", "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": USAGE},
        {"text": "Hi", "finish_reason": "stop", "usage": USAGE, "model": "m"},
    ),
    "chat with tools": (
        {"choices": [{"message": {"content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
                      "finish_reason": "tool_calls"}]},
        {"text": "", "tool_calls": [Tool("f", "{}", "c")], "finish_reason": "tool_calls"},
    ),
    "completion": ({"choices": [{"text": "Hi", "finish_reason": "length"}]}, {"text": "Hi", "finish_reason": "length"}),
    "responses": (
        {"status": "completed", "service_tier": "flex", "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]},
        {"text": "Hi", "finish_reason": "stop", "service_tier": "flex"},
    ),
    "responses cut off": (
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []},
        {"finish_reason": "length"},
    ),
    "Anthropic": (
        {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi"},
                     {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}], "stop_reason": "end_turn"},
        {"text": "Hi", "tool_calls": [Tool("f", '{"a":1}', "t")], "finish_reason": "stop", "reasoning_characters": 2},
    ),
    "embeddings": ({"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 3}}, {"usage": {"prompt_tokens": 3}, "text": ""}),
    "error": ({"error": {"message": "SECRET", "type": "invalid_request_error", "code": None}}, {"error": "invalid_request_error"}),
    "error in a list": ({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, {"error": "429"}),
    "null error": ({"error": None, "status": "completed", "output": []}, {"error": ""}),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), WHOLE.values(), ids=WHOLE)
def test_whole_answers(body: dict[str, Any], expected: dict[str, Any]) -> None:
    answer = whole_answer(json.dumps(body).encode())
    assert {name: getattr(answer, name) for name in expected} == expected
    assert answer.first is None


@pytest.mark.parametrize(
    ("bodies", "error"),
    [
        ([chunk(content="a"), {"error": {"code": "rate_limit_exceeded", "message": "SECRET"}}], "rate_limit_exceeded"),
        ([{"type": "error", "error": {"type": "overloaded_error"}}], "overloaded_error"),
        ([{"type": "error", "code": "server_error", "message": "SECRET"}], "server_error"),
        (
            [{"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error"}}}],
            "server_error",
        ),
        ([{"error": "SECRET words"}], "error"),
        ([chunk(content="an error occurred in line 3")], ""),
    ],
)
def test_errors_inside_a_stream_are_seen_and_never_quoted(bodies: list[Any], error: str) -> None:
    assert stream(*bodies).error == error


IN, OUT = "prompt_tokens", "completion_tokens"
USAGES: dict[str, tuple[dict[str, Any], bool, dict[str, Any]]] = {
    "chat": (
        {IN: 100, OUT: 20, "prompt_tokens_details": {"cached_tokens": 80}, "completion_tokens_details": {"reasoning_tokens": 5}},
        False,
        {"input_tokens": 100, "cache_read_tokens": 80, "output_tokens": 20, "reasoning_tokens": 5, "usage_rule": "inclusive"},
    ),
    "responses": (
        {"input_tokens": 100, "output_tokens": 20, "input_tokens_details": {"cached_tokens": 80}},
        False,
        {"input_tokens": 100, "cache_read_tokens": 80, "output_tokens": 20, "usage_rule": "inclusive"},
    ),
    "Anthropic": (
        {"input_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 5, "output_tokens": 20},
        True,
        {"input_tokens": 95, "cache_read_tokens": 80, "cache_write_tokens": 5, "usage_rule": "exclusive"},
    ),
    "Anthropic without cache": ({"input_tokens": 10, "output_tokens": 2}, True, {"input_tokens": 10, "usage_rule": "exclusive"}),
    "more cached than input": (
        {IN: 10, OUT: 1, "prompt_tokens_details": {"cached_tokens": 80}}, False, {"input_tokens": 90, "usage_rule": "exclusive"},
    ),
    "reasoning beside output": (
        {IN: 10, OUT: 5, "total_tokens": 35, "completion_tokens_details": {"reasoning_tokens": 20}},
        False,
        {"output_tokens": 25, "reasoning_tokens": 20},
    ),
    "cache hits named otherwise": ({IN: 10, OUT: 1, "prompt_cache_hit_tokens": 4}, False, {"cache_read_tokens": 4, "input_tokens": 10}),
    "embeddings": ({IN: 10, "total_tokens": 10}, False, {"input_tokens": 10, "output_tokens": 0}),
    "nothing": ({}, False, {}),
    "nonsense": ({IN: "many", OUT: None}, False, {}),
}  # fmt: skip


@pytest.mark.parametrize(("usage", "is_anthropic", "expected"), USAGES.values(), ids=USAGES)
def test_usage_has_one_meaning(usage: dict[str, Any], is_anthropic: bool, expected: dict[str, Any]) -> None:
    columns = usage_columns(usage, is_anthropic=is_anthropic)
    assert {name: columns[name] for name in expected} == expected
    assert bool(columns) == bool(expected)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["type", "delta", "content", "choices", "message", "tool_calls", "function", "output", "usage", "error", "item",
         "response", "content_block", "index", "x_groq", "status", "text", "arguments"]), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(json_values, max_size=3))
def test_takes_any_json(bodies: list[Any]) -> None:
    stream(*[json.dumps(body) for body in bodies])
    for body in bodies:
        answer = whole_answer(json.dumps(body).encode())
        usage_columns(answer.usage)
        assert isinstance(answer.text, str)


@given(st.binary(max_size=100))
def test_takes_any_bytes(data: bytes) -> None:
    assert whole_answer(data).text == "" or b"{" in data
