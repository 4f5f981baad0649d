"""Streams whose emitters tell too little, and names of spans that many share."""

import json
from typing import Any

import pytest
from sources.otlp_spans import call, event, row, rows, span

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
LANGCHAIN = "openinference.instrumentation.langchain"
FIRST = "First Token Stream Event"


@pytest.mark.parametrize(
    ("scope", "given", "first", "expected"),
    [
        (LANGCHAIN, False, False, None),
        (LANGCHAIN, True, False, True),
        (LANGCHAIN, False, True, True),
        (LANGCHAIN, None, True, True),
        ("openinference.instrumentation.openai", False, False, False),
        ("openinference.instrumentation.openai", None, False, False),
        ("openinference.instrumentation.openai", True, False, True),
        ("other", False, True, False),
    ],
)
def test_a_flag_that_is_always_false_tells_nothing(
    scope: str, given: bool | None, first: bool, expected: bool | None
) -> None:
    settings = {"_type": "openai-chat"} | ({} if given is None else {"stream": given})
    made = call(
        CHAT | {"llm.invocation_parameters": json.dumps(settings)},
        scope=scope,
        events=[event(FIRST, 300)] if first else [],
    )
    assert made["stream"] is expected


def test_a_call_lasts_at_least_until_its_last_chunk() -> None:
    made = call(CHAT, ms=1, events=[event(FIRST, 320)])
    assert (made["duration_ms"], made["time_to_first_token_ms"]) == (320.0, 320.0)
    made = call(
        CHAT | {"gen_ai.usage.output_tokens": 11}, ms=1, events=[event("gen_ai.content.chunk", at) for at in (320, 820)]
    )
    assert (made["duration_ms"], made["last_token_ms"], made["output_tokens_per_s"]) == (820.0, 820.0, 20.0)


@pytest.mark.parametrize("at", [320, 2000])
def test_other_events_and_chunks_within_the_span_lengthen_nothing(at: float) -> None:
    assert call(CHAT, events=[event(FIRST, at), event("exception", 9000)])["duration_ms"] == 2000.0


def test_the_span_keeps_its_own_duration() -> None:
    assert rows(span(CHAT, ms=1, events=[event(FIRST, 320)]))["spans"][0]["duration_ms"] == 1.0


@pytest.mark.parametrize(
    ("name", "attributes", "expected"),
    [
        ("haystack.component.run", {"haystack.component.name": "retriever", "haystack.component.type": "R"}, "haystack.component.run retriever"),
        ("haystack.component.run", {"a": 1, "crew.task_name": "write", "task.name": "plan"}, "haystack.component.run plan"),
        ("step", {"workflow.step.name": "embed"}, "step embed"),
        ("node", {"graph.node.name": "my tools"}, "node my tools"),
        ("db.execute", {"db.operation.name": "SELECT"}, "db.execute SELECT"),
        ("haystack.pipeline.run", {}, "haystack.pipeline.run"),
        ("SELECT documents", {"db.operation.name": "SELECT"}, "SELECT documents"),
        ("chat gpt-4o", {"gen_ai.operation.name": "chat"}, "chat gpt-4o"),
        ("retriever.run", {"component.name": "retriever"}, "retriever.run"),
        ("run", {"component.name": ""}, "run"),
        ("run", {"subcomponent.name": "x"}, "run"),
        ("prerun", {"component.name": "x"}, "prerun"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("content", ["digest", "full"])
def test_names_that_many_spans_share_say_which_part_it_is(
    name: str, attributes: dict[str, Any], expected: str, content: str
) -> None:
    (made,) = rows(span(attributes, name=name), content=content)["spans"]
    assert made["name"] == expected


def test_the_name_of_a_part_holds_no_sentence() -> None:
    made = row({"task.name": "tell Ottilie where her order is please"}, name="run")
    assert made["name"].startswith("run digest ")
