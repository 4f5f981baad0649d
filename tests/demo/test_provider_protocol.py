"""The provider speaks the protocol: everything here goes through the real openai client over real HTTP."""

from pathlib import Path

import openai
import pytest
from running_provider import RunningProvider, running_provider

SYSTEM = {
    "role": "system",
    "content": "Answer from this. The csv reader returns each row of the file as a list of strings. " * 8,
}
USER = {"role": "user", "content": "What does the csv reader return?"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "search_docs",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
        },
    }
]


def test_a_chat_in_one_piece(provider: RunningProvider) -> None:
    raw = provider.client.chat.completions.with_raw_response.create(model="sim-balanced", messages=[SYSTEM, USER])
    answer = raw.parse()
    assert "csv reader returns" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == pytest.approx(len(SYSTEM["content"] + USER["content"]) / 4, abs=8)
    assert answer.usage.completion_tokens > 30
    assert float(raw.headers["openai-processing-ms"]) > 0


def test_a_streamed_chat_is_the_same_text_with_usage_at_the_end(provider: RunningProvider) -> None:
    chunks = list(
        provider.client.chat.completions.create(
            model="sim-balanced", messages=[SYSTEM, USER], stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "csv reader returns" in text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == len(chunks) - 3
    assert not any(chunk.usage for chunk in chunks[:-1])


def test_without_the_option_a_stream_has_no_usage(provider: RunningProvider) -> None:
    chunks = provider.client.chat.completions.create(model="sim-balanced", messages=[SYSTEM, USER], stream=True)
    assert not any(chunk.usage for chunk in chunks)


def test_an_output_cap_cuts_the_answer(provider: RunningProvider) -> None:
    answer = provider.client.chat.completions.create(
        model="sim-balanced", messages=[SYSTEM, USER], max_completion_tokens=10
    )
    assert answer.usage.completion_tokens == 10
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called(provider: RunningProvider, stream: bool) -> None:
    options = {"model": "sim-balanced", "messages": [USER], "tools": TOOLS}
    if stream:
        chunks = list(provider.client.chat.completions.create(**options, stream=True))
        parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or ()]
        name = "".join(part.function.name or "" for part in parts)
        arguments = "".join(part.function.arguments or "" for part in parts)
        finish = chunks[-1].choices[0].finish_reason
    else:
        choice = provider.client.chat.completions.create(**options).choices[0]
        name, arguments = choice.message.tool_calls[0].function.name, choice.message.tool_calls[0].function.arguments
        finish = choice.finish_reason
    assert (name, arguments, finish) == ("search_docs", '{"query": "csv reader return"}', "tool_calls")


def test_reasoning_is_part_of_the_output(provider: RunningProvider) -> None:
    usage = provider.client.chat.completions.create(
        model="sim-reasoning", messages=[SYSTEM, USER], reasoning_effort="high"
    ).usage
    assert 300 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens


def test_a_long_prompt_seen_before_is_cached_in_steps_of_128_tokens(provider: RunningProvider) -> None:
    long = {"role": "system", "content": f"Rules for caching. {'The csv reader returns rows of strings. ' * 150}"}

    def cached(question: str) -> int:
        answer = provider.client.chat.completions.create(
            model="sim-small", messages=[long, {"role": "user", "content": question}]
        )
        return answer.usage.prompt_tokens_details.cached_tokens

    assert cached("One?") == 0
    again = cached("Two, which is another question?")
    assert again >= 1024
    assert again % 128 == 0


def test_responses(provider: RunningProvider) -> None:
    whole = provider.client.responses.create(model="sim-balanced", instructions=SYSTEM["content"], input="csv reader?")
    assert "csv reader returns" in whole.output_text
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    events = list(
        provider.client.responses.create(
            model="sim-balanced", instructions=SYSTEM["content"], input="csv reader?", stream=True
        )
    )
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].response.output_text == text


def test_completions(provider: RunningProvider) -> None:
    prompt = f"{SYSTEM['content']}\nQuestion: csv reader?"
    whole = provider.client.completions.create(model="sim-balanced", prompt=prompt)
    assert "csv reader returns" in whole.choices[0].text
    chunks = provider.client.completions.create(model="sim-balanced", prompt=prompt, stream=True)
    assert "csv reader returns" in "".join(chunk.choices[0].text for chunk in chunks)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(provider: RunningProvider, encoding: str) -> None:
    answer = provider.client.embeddings.create(
        model="sim-embedding", input=["a csv row", "b"], encoding_format=encoding
    )
    assert [each.index for each in answer.data] == [0, 1]
    plain = provider.client.embeddings.create(model="sim-embedding", input="a csv row")
    assert len(plain.data[0].embedding) == 256
    if encoding == "float":
        assert plain.data[0].embedding == pytest.approx(answer.data[0].embedding, abs=1e-6)


def test_models_and_moderations(provider: RunningProvider) -> None:
    assert "sim-balanced" in [model.id for model in provider.client.models.list()]
    assert not provider.client.moderations.create(input="hello").results[0].flagged


@pytest.mark.parametrize(
    ("body", "says"),
    [({"model": "sim-small"}, "messages"), ({"messages": []}, "model"), ({"model": "m", "messages": 3}, "messages")],
)
def test_a_senseless_request_is_told_what_it_lacks(
    provider: RunningProvider, body: dict[str, object], says: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        provider.client.post("/chat/completions", body=body, cast_to=object)


def test_every_token_comes_when_the_model_wanted_it_to_and_the_books_add_up(tmp_path: Path) -> None:
    with running_provider(tmp_path, "--time-scale", "4") as provider:
        for streamed in (True, False):
            answer = provider.client.chat.completions.create(
                model="sim-balanced", messages=[SYSTEM, USER], stream=streamed
            )
            list(answer)
        books = provider.get("/_bill")
    calls = books["calls"]
    speed = books["speeds"]["balanced"]
    for call in calls:
        expected_ms = (speed["base_ms"] + speed["per_input_token_ms"] * call["usage"]["input_tokens"]) / 4
        assert call["first_due_ms"] == pytest.approx(expected_ms, rel=0.3)
        assert call["last_due_ms"] > call["first_due_ms"] + call["usage"]["output_tokens"]
        assert call["last_ms"] >= call["last_due_ms"] - 1  # never early
    assert calls[0]["first_ms"] >= calls[0]["first_due_ms"] - 1
    total = books["models"]["sim-balanced"]
    assert total["calls"] == 2
    assert total["output_tokens"] == sum(call["usage"]["output_tokens"] for call in calls)
