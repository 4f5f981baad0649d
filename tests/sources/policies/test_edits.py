import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.errors import WrongUse
from perfnb.prompts.passages import passages
from perfnb.sources.traffic.policies.arms import ARMS, State, arm_of
from perfnb.sources.traffic.policies.body import Body, Unreadable
from perfnb.sources.traffic.policies.edits import edited, edits
from perfnb.sources.traffic.policies.settings import policy_of

CHAT, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"
EDITS = edits("127.0.0.1")


def fail(name: str, error: Exception) -> None:
    raise AssertionError(name) from error


def after(body: Any, path: str = CHAT, **policy: Any) -> Any:
    changed, _ = edited(Body.read(json.dumps(body).encode(), path), policy_of(policy), EDITS, fail)
    return json.loads(changed.encoded())


def message(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


CALL = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
PASSAGES = [f"[{n}] " + f"passage {n} tells of deques and how they rotate. " * 5 for n in (1, 2, 3, 4)]
CONTEXT = "Answer from the passages.\n\n" + "\n\n".join(PASSAGES) + "\n\nQuestion: what rotates?"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT, {}, {"max_tokens": 300}),
        (CHAT, {"max_tokens": 500}, {"max_tokens": 300}),
        (CHAT, {"max_completion_tokens": 500}, {"max_completion_tokens": 300}),
        (CHAT, {"max_tokens": 20}, {"max_tokens": 20}),
        (CHAT, {"max_tokens": None}, {"max_tokens": 300}),
        (RESPONSES, {"input": "x"}, {"input": "x", "max_output_tokens": 300}),
        ("/v1/completions", {"prompt": "x"}, {"prompt": "x", "max_tokens": 300}),
        (ANTHROPIC, {"max_tokens": 1024}, {"max_tokens": 300}),
        (
            ANTHROPIC,
            {"max_tokens": 9000, "thinking": {"budget_tokens": 4000}},
            {"max_tokens": 9000, "thinking": {"budget_tokens": 4000}},
        ),
        ("/v1/embeddings", {"input": "x"}, {"input": "x"}),
    ],
)
def test_output_cap(path: str, body: Any, expected: Any) -> None:
    assert after(body, path, output_cap={"max_tokens": 300}) == expected


def test_output_cap_by_the_name_that_openai_takes() -> None:
    changed, _ = edited(Body.read(b"{}", CHAT), policy_of({"output_cap": {"max_tokens": 9}}), edits("openai"), fail)
    assert json.loads(changed.encoded()) == {"max_completion_tokens": 9}


@pytest.mark.parametrize(
    ("model", "words", "expected"),
    [("big-1", 10, "small"), ("big-1", 2000, "middle"), ("other", 10, "other"), ("big-1", 500, "small")],
)
def test_route(model: str, words: int, expected: str) -> None:
    rules = [{"from": "big-*", "max_input_tokens": 500, "to": "small"}, {"from": "big-*", "to": "middle"}]
    body = {"model": model, "messages": [message("user", "abc " * words)]}
    assert after(body, route={"rules": rules}) == {**body, "model": expected}


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT, {"messages": [message("user")]}, {"messages": [message("user")]}),
        (
            CHAT,
            {"messages": [message("developer", "a", name="n"), message("system", "b"), message("user")]},
            {"messages": [message("developer", "NEW", name="n"), message("user")]},
        ),
        (RESPONSES, {"instructions": "a", "input": "q"}, {"instructions": "NEW", "input": "q"}),
        (
            RESPONSES,
            {"input": [message("system", [{"type": "input_text", "text": "a"}]), message("user")]},
            {"input": [message("system", [{"type": "input_text", "text": "NEW"}]), message("user")]},
        ),
        (
            ANTHROPIC,
            {"system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {"type": "x"}}]},
            {"system": [{"type": "text", "text": "NEW", "cache_control": {"type": "x"}}]},
        ),
    ],
)
def test_system_prompt(path: str, body: Any, expected: Any) -> None:
    assert after(body, path, system_prompt={"replace": "NEW"}) == expected


def test_history_trim_keeps_system_question_and_whole_tool_calls() -> None:
    history = [message("user", "1"), message("assistant", None, tool_calls=[CALL]), message("tool", tool_call_id="c1")]
    history += [message("assistant", "2"), message("user", "3"), message("assistant", "4")]
    messages = [message("system"), *history, message("user", "?"), message("assistant", "…")]
    kept = [after({"messages": messages}, history_trim={"messages": count})["messages"][1:-2] for count in range(8)]
    assert [len(each) for each in kept] == [0, 0, 2, 2, 2, 2, 6, 6]


def test_history_trim_of_anthropic_and_responses() -> None:
    use = {"type": "tool_use", "id": "t", "name": "search", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "found"}
    messages = [message("user"), message("assistant", [use]), message("user", [result]), message("assistant")]
    body = {"messages": [*messages, message("user", "?")]}
    assert after(body, ANTHROPIC, history_trim={"messages": 2})["messages"] == [message("user", "?")]
    items = [message("user"), {"type": "function_call", "call_id": "c", "name": "s", "arguments": "{}"}]
    items += [{"type": "function_call_output", "call_id": "c", "output": "o"}, message("user", "?")]
    assert after({"input": items}, RESPONSES, history_trim={"messages": 2})["input"] == [message("user", "?")]
    assert after({"input": "text"}, RESPONSES, history_trim={"messages": 0}) == {"input": "text"}


@pytest.mark.parametrize(("count", "tokens", "left"), [(2, None, 2), (9, None, 4), (None, 130, 2), (4, 1, 1)])
def test_context_trim(count: int | None, tokens: int | None, left: int) -> None:
    body = {"messages": [message("user", CONTEXT), message("assistant", CONTEXT)]}
    text, untouched = (
        each["content"] for each in after(body, context_trim={"passages": count, "max_tokens": tokens})["messages"]
    )
    assert untouched == CONTEXT
    assert all((passage.strip() in text) is (number < left) for number, passage in enumerate(PASSAGES))
    assert text.startswith("Answer from")
    assert text.endswith("Question: what rotates?")


def test_context_trim_takes_tags_along_and_leaves_json_whole() -> None:
    tagged = "".join(f"<document index='{n}'>\n{text}\n</document>\n" for n, text in enumerate(PASSAGES))
    text = after({"system": tagged + "Be brief."}, ANTHROPIC, context_trim={"passages": 1})["system"]
    assert (text.count("<document"), text.count("</document>"), text[-9:]) == (1, 1, "Be brief.")
    for more in ('"quoted"', ""):
        found = json.dumps([{"text": text.replace("\n", "") + more} for text in PASSAGES])
        body = {"messages": [message("tool", found), message("user", f"Chunks:\n{found}")]}
        assert len(passages(found)) == 4
        assert after(body, context_trim={"passages": 1}) == body


@pytest.mark.parametrize(
    ("path", "key", "result"),
    [
        (CHAT, "messages", {"role": "tool", "tool_call_id": "c1", "content": "%s"}),
        (RESPONSES, "input", {"type": "function_call_output", "call_id": "c1", "output": "%s"}),
        (
            ANTHROPIC,
            "messages",
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "%s"}]},
        ),
    ],
)
def test_context_trim_of_what_a_tool_answered(path: str, key: str, result: dict[str, Any]) -> None:
    titled = [f"[Deques {n}] {'They rotate in place and at both ends. ' * 6}".strip() for n in range(4)]
    body = json.loads(json.dumps({key: [result]}).replace("%s", "\\n\\n".join(titled)))
    kept = json.dumps(after(body, path, context_trim={"passages": 2}))
    assert [title in kept for title in titled] == [True, True, False, False]


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT, {"tools": [tool("a"), tool("b")], "tool_choice": "auto"}, {"tools": [tool("a")], "tool_choice": "auto"}),
        (CHAT, {"tools": [tool("a"), tool("b")], "tool_choice": tool("b")}, {"tools": [tool("a")]}),
        (CHAT, {"model": "m", "tools": [tool("b")], "tool_choice": "required", "seed": 1}, {"model": "m", "seed": 1}),
        (RESPONSES, {"tools": [{"type": "function", "name": "a"}, {"type": "web_search"}]},
         {"tools": [{"type": "function", "name": "a"}]}),
        (ANTHROPIC, {"tools": [{"name": "a"}, {"name": "b"}], "tool_choice": {"type": "any"}},
         {"tools": [{"name": "a"}], "tool_choice": {"type": "any"}}),
        (ANTHROPIC, {"tools": [{"name": "b"}], "messages": [message("assistant", [{"type": "tool_use", "name": "b"}])]},
         {"tools": [{"name": "b"}], "messages": [message("assistant", [{"type": "tool_use", "name": "b"}])]}),
    ],
)  # fmt: skip
def test_tool_subset(path: str, body: Any, expected: Any) -> None:
    assert after(body, path, tool_subset={"names": ["a"]}) == expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["model", "messages", "input", "system", "tools", "tool_choice", "max_tokens", "temperature"])
BODIES = st.dictionaries(NAMES | st.text(max_size=8), VALUES, max_size=8)
POLICY = policy_of(
    {
        "route": {"rules": [{"to": "small"}]},
        "system_prompt": {"replace": "NEW"},
        "history_trim": {"messages": 1},
        "context_trim": {"passages": 1},
        "tool_subset": {"names": ["a"]},
        "output_cap": {"max_tokens": 5},
    }
)
TOUCHED = {"model", "messages", "input", "system", "instructions", "tools", "tool_choice", "functions", "max_tokens"}
TOUCHED |= {"max_completion_tokens", "max_output_tokens", "prompt", "parallel_tool_calls", "function_call"}


@given(BODIES, st.sampled_from([CHAT, RESPONSES, ANTHROPIC, "/v1/completions", "/v1/embeddings"]))
def test_edits_of_anything_keep_everything_else(body: dict[str, Any], path: str) -> None:
    failures: list[Any] = []
    changed, applied = edited(
        Body.read(json.dumps(body).encode(), path), POLICY, EDITS, lambda *why: failures.append(why)
    )
    result = json.loads(changed.encoded())
    assert {k: v for k, v in result.items() if k not in TOUCHED} == {k: v for k, v in body.items() if k not in TOUCHED}
    assert failures == []
    assert applied or result == body


@given(BODIES, st.sampled_from([None, 1, 2]), st.booleans(), st.sampled_from(list(string.ascii_lowercase)))
def test_every_byte_but_the_changed_member_stays(body: dict[str, Any], indent: Any, ascii_: bool, name: str) -> None:
    text = json.dumps({**body, name: 1.50}, indent=indent, ensure_ascii=ascii_)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    read = Body.read(data, CHAT)
    assert read.encoded() == data
    read.set(name, [2])
    before, after_ = text.rpartition("1.5")[::2]
    assert read.encoded().decode() == f"{before}[2]{after_}"
    read.remove(name)
    assert json.loads(read.encoded()) == {key: value for key, value in body.items() if key != name}


def test_numbers_keep_how_they_are_written() -> None:
    body = Body.read(b' { "temperature" : 1e-1 , "seed":9007199254740993,"model":"a" }\n', CHAT)
    body.set("model", "b")
    body.set("n", 1)
    assert body.encoded() == b' { "temperature" : 1e-1 , "seed":9007199254740993,"model":"b", "n": 1 }\n'


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"a"}', b'{"a":1,}', b'{"a":1}{}', b"\xff\xfe{}", b"[" * 100_000])
def test_what_is_no_object_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        Body.read(data, CHAT)


def test_a_policy_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(body: Body, settings: Any) -> None:
        body.set("model", "half done")
        raise KeyError("oops")

    failures: list[str] = []
    policy = policy_of({"route": {"rules": []}, "output_cap": {"max_tokens": 5}})
    body = Body.read(b'{"model": "m"}', CHAT)
    changed, applied = edited(body, policy, {**EDITS, "route": broken}, lambda name, error: failures.append(name))
    assert json.loads(changed.encoded()) == {"model": "m", "max_tokens": 5}
    assert (failures, applied) == (["route"], ["output_cap"])


@pytest.mark.parametrize(
    "given_",
    [
        {"base": {"no_such": {}}},
        {"base": {"output_cap": {"max_tokens": 0}}},
        {"base": {"output_cap": {"max_tokens": "5"}}},
        {"base": {"output_cap": {"tokens": 5}}},
        {"base": {"output_cap": 5}},
        {"base": {"timeout": {}}},
        {"base": {"context_trim": {"passages": None}}},
        {"base": {"system_prompt": {}}},
        {"base": {"response_cache": {"mode": "fuzzy"}}},
        {"base": {"response_cache": {"threshold": 2}}},
        {"base": {"response_cache": {"redis": "redis://user:secret@host"}}},
        {"base": {"response_cache": {"redis": "redis://host?password=secret"}}},
        {"base": {"route": {"rules": [{"from": "a"}]}}},
        {"base": []},
        {"arms": {"trial": "t", "policies": {"A": {}}}},
        {"arms": {"policies": {"A": {}, "B": {}}}},
        {"label": {"trial": "t"}},
        {"other": 1},
        [],
    ],
    ids=str,
)
def test_a_state_that_makes_no_sense_is_told(given_: Any) -> None:
    with pytest.raises(WrongUse) as told:
        State.of(given_)
    assert "secret" not in str(told.value)


def test_arms_are_balanced_and_stay() -> None:
    arms = [arm_of("trial", f"{number:032x}") for number in range(2000)]
    assert arms == [arm_of("trial", f"{number:032X}") for number in range(2000)]
    assert 900 < arms.count("A") < 1100
    assert sum(a == arm_of("another", f"{n:032x}") for n, a in enumerate(arms)) < 1100
    assert set(arms) == set(ARMS)


def test_what_the_timeline_shows_holds_no_prompt() -> None:
    policies = {"A": {}, "B": {"system_prompt": {"replace": "PRIVATE"}}}
    state = State.of({"base": {"system_prompt": {"replace": "PRIVATE"}}, "arms": {"trial": "t", "policies": policies}})
    assert "PRIVATE" not in f"{state.shown()} {state}"
    assert str(state) == "system_prompt; t/A: no policy; t/B: system_prompt"
