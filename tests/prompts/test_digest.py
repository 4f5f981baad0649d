import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.prompts.digest import Digester, prompt_tokens, scale_tokens
from perfnb.prompts.prompt import Tool, operation_of
from perfnb.recording import TABLES

KEY = bytes(range(32))
SECRET = "the patient's name is Rosalind Franklin and her number is 555-0199"
PASSAGES = "\n\n".join(f"[{i}] {'A passage about connection pools and how they are sized. ' * 4}" for i in (1, 2, 3))
SCHEMA = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}


def digester(content: Any = "digest") -> Digester:
    return Digester(KEY, content)


CHAT = {
    "model": "gpt-x",
    "messages": [
        {"role": "system", "content": "You help." * 4},
        {"role": "user", "content": "first question"},
        {"role": "assistant", "content": "first answer"},
        {"role": "user", "content": f"{PASSAGES}\n\nQuestion: {SECRET}"},
    ],
    "tools": [SCHEMA],
    "max_tokens": 100,
    "temperature": 0.2,
    "stream": True,
    "stream_options": {"include_usage": True},
    "metadata": {"session_id": "s1"},
}
RESPONSES = {
    "model": "gpt-x",
    "instructions": "You help.",
    "input": [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": "data:"}],
        },
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "search", "arguments": '{"q": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "found it"},
    ],
    "max_output_tokens": 50,
    "reasoning": {"effort": "high"},
}
MESSAGES = {
    "model": "claude-x",
    "system": [{"type": "text", "text": "You help.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "find it"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "search", "input": {"q": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "found it"}]},
    ],
    "tools": [{"name": "search", "input_schema": {"type": "object"}}],
    "max_tokens": 1024,
}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[str]]] = {
    "chat": (
        "/v1/chat/completions",
        CHAT,
        {
            "operation": "chat", "request_model": "gpt-x", "stream": True, "max_tokens": 100, "temperature": 0.2,
            "tools_offered": 1, "system_tokens": 9, "history_messages": 2, "history_tokens": 7, "passages": 3,
            "inputs": None,
        },
        ["system", "user", "assistant", "user"],
    ),
    "responses": (
        "/v1/responses",
        RESPONSES,
        {"operation": "responses", "max_tokens": 50, "system_tokens": 3, "stream": False, "tools_offered": 0},
        ["system", "user", "assistant", "assistant", "tool"],
    ),
    "responses with a text": (
        "/v1/responses", {"model": "m", "input": "hello"}, {"operation": "responses"}, ["user"],
    ),
    "Anthropic": (
        "/v1/messages",
        MESSAGES,
        {"operation": "chat", "max_tokens": 1024, "tools_offered": 1, "system_tokens": 3, "history_messages": 0},
        ["system", "user", "assistant", "tool"],
    ),
    "completions": (
        "/v1/completions", {"model": "m", "prompt": ["one two", "three"]}, {"operation": "text_completion"}, ["prompt"] * 2,
    ),
    "embeddings": (
        "/v1/embeddings", {"model": "e", "input": ["one", "two", "two"]}, {"operation": "embeddings", "inputs": 3},
        ["input"] * 3,
    ),
    "embeddings of one text": ("/v1/embeddings", {"model": "e", "input": "one"}, {"inputs": 1}, ["input"]),
    "embeddings of token numbers": ("/v1/embeddings", {"input": [1, 2, 3]}, {"inputs": 1}, ["input"]),
    "Azure": (
        "/openai/deployments/my-gpt/chat/completions?api-version=1",
        {"messages": [{"role": "user", "content": "x"}]},
        {"operation": "chat", "request_model": "my-gpt"},
        ["user"],
    ),
    "other": ("/v1/audio/speech", {"model": "tts", "input": "say it"}, {"operation": "other", "prompt_digest": None}, []),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "expected", "roles"), CASES.values(), ids=CASES)
def test_columns_of_a_request(path: str, body: dict[str, Any], expected: dict[str, Any], roles: list[str]) -> None:
    columns = digester().request(body, path)
    assert {name: columns[name] for name in expected} == expected
    assert [message["role"] for message in columns["messages"]] == roles
    assert set(columns) <= set(TABLES["llm_calls"].types)


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/v1/models", "models"),
        ("/v1/models/gpt-x", "models"),
        ("/v1/files", "other"),
        ("/chat/completions/", "chat"),
        ("/v1beta/openai/embeddings", "embeddings"),
        ("/", "other"),
    ],
)
def test_operation_by_path(path: str, operation: str) -> None:
    assert operation_of(path) == operation


def test_tools_are_tied_to_their_results() -> None:
    for body, path in ((RESPONSES, "/responses"), (MESSAGES, "/messages")):
        messages = digester().request(body, path)["messages"]
        (call,) = next(message["tool_calls"] for message in messages if "tool_calls" in message)
        result = next(message for message in messages if message["role"] == "tool")
        assert call["name"] == "search"
        assert call["id_digest"] == result["id_digest"]
        assert result["digest"] == digester().digest("found it")


def test_arguments_that_say_the_same_have_one_digest() -> None:
    calls = [Tool("f", '{"a": 1, "b": [2]}'), Tool("f", '{"b":[2],"a":1}'), Tool("f", '{"b":[3],"a":1}')]
    digests = [call["arguments_digest"] for call in digester().answer("", calls)["tool_calls"]]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("change", [{"stream": False}, {"metadata": {"x": 1}}, {"user": "u"}, {"stream_options": None}])
def test_what_is_volatile_does_not_change_the_digest(change: dict[str, Any]) -> None:
    before, after = (digester().request(body, "/chat/completions") for body in (CHAT, CHAT | change))
    assert before["request_digest"] == after["request_digest"]
    assert before["prompt_digest"] == after["prompt_digest"]


def test_settings_change_the_request_but_not_the_prompt() -> None:
    before, after = (digester().request(body, "/chat/completions") for body in (CHAT, CHAT | {"temperature": 1}))
    assert before["request_digest"] != after["request_digest"]
    assert before["prompt_digest"] == after["prompt_digest"]


def test_the_conversation_is_hashed() -> None:
    columns = digester().request(CHAT, "/chat/completions")
    assert columns["conversation_id"] == digester().digest("s1")
    assert digester().request({"messages": []}, "/chat/completions")["conversation_id"] is None


def test_digest_mode_keeps_no_text() -> None:
    kept = (
        digester().request(CHAT, "/chat/completions"),
        digester().answer(SECRET, [Tool("search", f'{{"q": "{SECRET}"}}')]),
    )
    assert not any(part in json.dumps(kept) for part in ("Rosalind", "patient", "question", "connection"))


def test_each_passage_has_its_size() -> None:
    sizes = [len(passage) for passage in PASSAGES.split("\n\n")]
    question = digester().request(CHAT, "/chat/completions")["messages"][3]
    assert question["tokens_of_passages"] == pytest.approx([size / 4 for size in sizes], abs=2)
    assert sum(question["tokens_of_passages"]) == question["passage_tokens"]


def test_full_mode_keeps_it() -> None:
    columns = digester("full").request(CHAT, "/chat/completions")
    assert SECRET in columns["messages"][3]["text"]
    assert digester("full").answer(SECRET, [])["response_text"] == SECRET


def test_images_are_counted_and_never_kept() -> None:
    message = digester("full").request(RESPONSES, "/responses")["messages"][1]
    assert (message["other_parts"], message["text"]) == (1, "look")


@pytest.mark.parametrize("input_tokens", [1, 7, 100, 451, 10_000])
def test_scaled_tokens_add_up(input_tokens: int) -> None:
    columns = scale_tokens(digester().request(CHAT, "/chat/completions"), input_tokens)
    assert prompt_tokens(columns) == input_tokens
    assert columns["system_tokens"] == columns["messages"][0]["tokens"]
    assert columns["passage_tokens"] <= columns["messages"][3]["tokens"]


@pytest.mark.parametrize(("body", "path"), [(RESPONSES, "/responses"), (CHAT | {"conversation": "c"}, "/responses")])
def test_tokens_are_not_scaled_where_part_of_the_prompt_is_unseen(body: dict[str, Any], path: str) -> None:
    columns = digester().request(body, path)
    assert scale_tokens(columns, 100_000) == columns


def test_every_key_gives_other_digests() -> None:
    a, b = Digester(b"1" * 32), Digester(b"2" * 32)
    assert a.digest("x") != b.digest("x")
    assert len(a.digest("x")) == 16


def test_a_text_seen_before_gives_the_same_answer() -> None:
    one = digester()
    first, second = one.text(PASSAGES), one.text(PASSAGES)
    assert first == second == digester().text(PASSAGES)
    assert one.text(PASSAGES, passages_in="none").passages == 0


ARTICLES = "\n\n".join(f"[Article {i}] {'Tents are stored dry, in a cool and dark place. ' * 6}" for i in range(12))
SYSTEM, ASKED, ANSWERED = {"role": "system", "content": "s" * 40}, {"role": "user", "content": "u" * 80}, "a" * 120
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": ""}}]}
RESULT = {"role": "tool", "tool_call_id": "t", "content": ARTICLES}
TURN = [ASKED, CALLED, RESULT, {"role": "assistant", "content": ANSWERED}]
CONTEXT = {"role": "user", "content": PASSAGES}


@pytest.mark.parametrize(
    ("messages", "history", "passages"),
    [
        ([SYSTEM, ASKED], [], 0),
        ([ASKED, CALLED, RESULT], [], 12),  # what the question's own tools answered
        ([SYSTEM, *TURN, ASKED], TURN, 0),
        ([SYSTEM, *TURN, *TURN, ASKED, CALLED, RESULT], TURN * 2, 12),
        ([{"role": "system", "content": PASSAGES}, *TURN, ASKED], TURN, 3),
        ([SYSTEM, CONTEXT, ASKED], [CONTEXT], 3),  # context in a message of its own
        ([SYSTEM, CONTEXT, {"role": "assistant", "content": ANSWERED}, ASKED], 2, 0),  # the context of an earlier turn
        ([SYSTEM], [], 0),
    ],
)
def test_history_is_all_before_the_question(messages: list[Any], history: Any, passages: int) -> None:
    columns = digester().request({"messages": messages}, "/chat/completions")
    before = history if isinstance(history, list) else messages[1:3]
    sizes = digester().request({"messages": before}, "/chat/completions")["messages"]
    assert columns["history_tokens"] == sum(entry["tokens"] for entry in sizes)
    assert columns["history_messages"] == sum(entry["role"] in ("user", "assistant") for entry in sizes)
    assert columns["passages"] == passages


def test_only_tools_are_read_as_tools() -> None:
    texts = [
        {"role": role, "content": ARTICLES, "name": "search"} for role in ("tool", "function", "user", "assistant")
    ]
    found = digester().request({"messages": texts}, "/chat/completions")["messages"]
    assert [entry["passages"] for entry in found] == [12, 12, 0, 0]


WORDS = "how do I store a wet tent over the whole winter"


@pytest.mark.parametrize(
    "prompt",
    [
        f"{WORDS}\n\n{ARTICLES}",
        f"{ARTICLES}\n\n{WORDS}",
        f"{ARTICLES}\n\nQuestion: {WORDS}?\n\n{'Write an answer and cite the articles. ' * 40}",
        f"{ARTICLES}\n\n**User query:**\n{WORDS}\n\n{'Write an answer and cite the articles. ' * 40}",
    ],
)
def test_the_question_of_a_long_prompt_has_a_sketch(prompt: str) -> None:
    body = {"messages": [{"role": "user", "content": f"{'Answer from the articles below. ' * 5}{prompt}"}]}
    (message,) = digester().request(body, "/chat/completions")["messages"]
    assert set(digester().sketch(WORDS)) <= set(message["edges"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "model",
    "messages",
    "input",
    "prompt",
    "system",
    "tools",
    "functions",
    "max_tokens",
    "temperature",
    "conversation",
    "metadata",
    "reasoning",
]


@given(st.dictionaries(st.sampled_from(KEYS), json_values), st.sampled_from([case[0] for case in CASES.values()]))
def test_takes_any_body(body: dict[str, Any], path: str) -> None:
    columns = digester("full").request(body, path)
    json.dumps(columns).encode()


MESSAGE_KEYS = ["role", "content", "tool_calls", "function_call", "type", "tool_call_id", "output", "summary", "name"]


@given(
    st.lists(st.dictionaries(st.sampled_from(MESSAGE_KEYS), json_values), max_size=3),
    st.sampled_from(["messages", "input"]),
)
def test_takes_any_messages(messages: list[Any], key: str) -> None:
    path = "/chat/completions" if key == "messages" else "/responses"
    assert len(digester().request({key: messages}, path)["messages"]) == len(messages)
