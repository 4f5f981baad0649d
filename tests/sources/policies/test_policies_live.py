import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import openai
import pytest
from policy_scene import KEY, scene, text_of, traceparent

from perfnb.errors import NotReachable, WrongUse
from perfnb.recording import Recording
from perfnb.sources.llm_proxy import LlmProxy
from perfnb.sources.traffic.control import CONTROL, ProxyControl
from perfnb.sources.traffic.policies.arms import arm_of

QUESTION: Any = [{"role": "user", "content": "How do I use a deque from collections, in many words?"}]


def test_an_output_cap_set_and_taken_away(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        client = made.client()

        def tokens(**settings: Any) -> int:
            answer = client.chat.completions.create(model="sim-small", messages=QUESTION, **settings)
            assert answer.usage is not None
            return answer.usage.completion_tokens

        free = tokens()
        made.base(output_cap={"max_tokens": 7})
        assert (tokens(), tokens(max_tokens=500), tokens(max_tokens=3)) == (7, 7, 3)
        made.base()
        assert free > 7
        assert tokens() > 7
        rows = made.calls(5)
        assert list(rows.max_tokens.fillna(0)) == [0, 7, 7, 3, 0]
        notes = [json.loads(each) for each in rows.attributes]
        assert [each.get("policies") for each in notes] == [None, ["output_cap"], ["output_cap"], None, None]
        assert notes[2]["asked"]["max_tokens"] == 500
        assert notes[2]["asked"]["prompt_digest"] == rows.prompt_digest[2]
        assert list(made.events("knob").title) == ["LLM proxy: output_cap", "LLM proxy: no policy"]


def test_streams_tools_and_the_async_client(tmp_path: Path) -> None:
    tools: Any = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
        for name in ("search", "order_status")
    ]

    async def ask(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:
            asking = [client.chat.completions.create(model="sim-small", messages=QUESTION) for _ in range(8)]
            return [answer.choices[0].finish_reason for answer in await asyncio.gather(*asking)]

    with scene(tmp_path) as made:
        made.base(output_cap={"max_tokens": 5}, tool_subset={"names": ["search"]}, concurrency={"limit": 3})
        chat = made.client().chat.completions
        assert len(text_of(chat.create(model="sim-small", messages=QUESTION, stream=True)).split()) <= 5
        chat.create(model="sim-small", messages=QUESTION, tools=tools)
        assert asyncio.run(ask(made.proxy.url)) == ["length"] * 8
        rows = made.calls(10)
        assert list(rows.tools_offered)[:2] == [0, 1]
        assert rows.status_code.eq(200).all()
        assert sum("waited_ms" in json.loads(each) for each in rows.attributes) == 10


def test_two_arms_at_once(tmp_path: Path) -> None:
    traces = [secrets.token_hex(16) for _ in range(24)]
    with scene(tmp_path) as made:
        policies = {"A": {}, "B": {"route": {"rules": [{"from": "sim-*", "to": "sim-small"}]}}}
        made.control.set({"base": {"output_cap": {"max_tokens": 4}}, "arms": {"trial": "t1", "policies": policies}})

        async def ask_all() -> list[Any]:
            async with openai.AsyncOpenAI(base_url=made.proxy.url, api_key=KEY) as client:
                asking = [
                    client.chat.completions.create(
                        model="sim-balanced", messages=QUESTION, max_tokens=6, extra_headers=traceparent(trace)
                    )
                    for trace in traces
                ]
                return await asyncio.gather(*asking)

        answers = asyncio.run(ask_all())
        made.client().chat.completions.create(model="sim-balanced", messages=QUESTION)
        rows = made.calls(25).set_index("trace_id")
        for trace, answer in zip(traces, answers, strict=True):
            arm = arm_of("t1", trace)
            assert answer.model == {"A": "sim-balanced", "B": "sim-small"}[arm]
            assert rows.arm[trace] == f"t1/{arm}"
            assert rows.request_model[trace] == answer.model
        without = rows[rows.index.isna()]
        assert (without.arm.isna().all(), without.max_tokens.iloc[0]) == (True, 4)
        made.control.set({"base": {}, "label": {"trial": "t2", "arm": "B"}})
        made.client().chat.completions.create(model="sim-small", messages=QUESTION)
        assert made.calls(26).arm.iloc[-1] == "t2/B"


def test_control_is_private_and_tells_what_is_wrong(tmp_path: Path) -> None:
    with scene(tmp_path) as made:
        file = made.recording.path / CONTROL
        assert file.stat().st_mode & 0o777 == 0o600
        given = json.loads(file.read_text())
        with pytest.raises(NotReachable):
            ProxyControl(given["port"], "wrong").state()
        with pytest.raises(WrongUse, match="no policy 'output_cop'"):
            made.base(output_cop={})
        with pytest.raises(WrongUse, match="no state 7"):
            made.control.restore(7)
        assert made.control.state() == {"base": {}, "arms": None, "label": None}
        made.base(system_prompt={"replace": "SECRET-INSTRUCTIONS"})
        assert made.control.state()["base"] == {"system_prompt": {"replace": "SECRET-INSTRUCTIONS"}}
        made.control.restore(0)
        assert made.control.state()["base"] == {}
        path = made.recording.path
    kept = b"".join(each.read_bytes() for each in path.rglob("*") if each.is_file())
    assert b"SECRET-INSTRUCTIONS" not in kept
    assert not (path / CONTROL).exists()
    with pytest.raises(NotReachable, match="no proxy records"):
        ProxyControl.of(path)


def test_a_proxy_without_control_takes_no_orders(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "r.perfnb")
    with (
        LlmProxy(recording.path, "http://127.0.0.1:9/v1", has_control=False),
        pytest.raises(NotReachable, match="no proxy records"),
    ):
        ProxyControl.of(recording.path)
    recording.close()
