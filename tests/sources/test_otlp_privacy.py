"""No text of people is in the rows of a span unless texts are kept; names, numbers and settings are."""

import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sources.otlp_spans import event, row, rows, span

from perfnb.prompts.digest import Digester
from perfnb.sources.otlp.cleaner import Cleaner
from perfnb.sources.otlp.dialects import ROLES, Form, table
from perfnb.sources.otlp.intake import Intake
from perfnb.sources.otlp.rows import RowMaker
from perfnb.sources.otlp.spans import Group

ASKED = "Dear desk my name is Ottilie Brandwein and I owe 4711 crowns what now"
TOLD = f"digest {Digester(b'k' * 32).digest(ASKED)}, {len(ASKED)} characters"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("haystack.component.type", "PgvectorEmbeddingRetriever"),
        (
            "haystack.component.fully_qualified_type",
            "haystack_integrations.components.retrievers.pgvector.embedding_retriever.PgvectorEmbeddingRetriever",
        ),
        ("haystack.component.name", "document retriever"),
        ("gen_ai.request.model", "gpt-4.1-mini"),
        ("gen_ai.agent.name", "Docs Desk Agent"),
        ("gen_ai.workflow.edges", ["model -> tools", "tools -> model"]),
        ("gen_ai.response.finish_reasons", ["stop"]),
        ("smolagents.tools_names", ["search_docs", "final_answer"]),
        ("http.route", "/chat/{id}"),
        ("http.host", "127.0.0.1:40749"),
        ("url.full", "http://127.0.0.1:37443/v1/chat/completions"),
        ("user_agent.original", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605 (KHTML, like Gecko)"),
        ("db.collection.name", "documents"),
        ("code.function", "app_openai.chat"),
        ("thread.name", "ThreadPoolExecutor-0_0"),
        ("telemetry.sdk.language", "python"),
        ("exception.type", "smolagents.utils.AgentExecutionError"),
        ("my.version", "1.45.2"),
        ("my.time", "2026-09-21T13:06:40.250Z"),
        ("my.other_time", "2026-09-21 13:06:40"),
        ("my.path", "/srv/app/data/2026/09/21/passages-of-the-desk/part-00017-of-00100.parquet"),
        ("my.id", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        ("my.kind", "rate_limit_exceeded"),
        ("my.edge", "model -> tools"),
        ("my.settings", '{"model": "gpt-5", "temperature": 0.2, "stop": null, "tools": ["search_docs"], "deep": {"k": [1, 2]}}'),
        ("my.number", 4711),
        ("my.flag", True),
        ("my.numbers", [1, 2.5]),
    ],
)  # fmt: skip
def test_names_numbers_and_settings_stay(name: str, value: Any) -> None:
    assert row({name: value})["attributes"][name] == value


@pytest.mark.parametrize(
    "name",
    ["crewai.task.description", "smolagents.task", "langgraph.state", "query", "user.query", "search.text", "rag.query",
     "crew_inputs", "task.expected_output", "llm.user", "input_data", "inputs", "outputs", "result", "final_answer", "args",
     "kwargs", "tool.args", "arguments", "logfire.json", "tag.tags", "metadata", "anything", "gen_ai.anything", "error",
     "exception.message"],
)  # fmt: skip
def test_texts_under_any_name_become_digests_with_their_length(name: str) -> None:
    assert row({name: ASKED})["attributes"] == {name: TOLD}
    assert row({name: ASKED}, name="w")["attributes"][name] == row({name: ASKED})["attributes"][name]
    (kept,) = rows(span({name: ASKED}), content="full")["spans"]
    assert kept["attributes"] == {name: ASKED}


@pytest.mark.parametrize("name", ["query", "tool.args", "description", "app.note"])
def test_names_of_contents_keep_not_even_a_word(name: str) -> None:
    assert "Ottilie" not in json.dumps(row({name: "Ottilie"}))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"embedder": {"text": ASKED, "top_k": 3}}, {"embedder": {"text": TOLD, "top_k": 3}}),
        ({"prompt": {"question": "Ottilie?"}, "mode": "fast"}, {"prompt": {"question": "…"}, "mode": "fast"}),
        ([{"role": "user", "content": ASKED}], [{"role": "user", "content": TOLD}]),
        ({"deep": json.dumps({"deeper": ASKED})}, {"deep": json.dumps({"deeper": TOLD}, separators=(",", ":"))}),
        ({ASKED: 1}, {TOLD: 1}),
        ({"sql": "SELECT a FROM b WHERE c = 'Ottilie'"}, {"sql": "SELECT a FROM b WHERE c = ?"}),
        ({"api_key": "abc4711", "url": "http://h/?q=Ottilie"}, {"api_key": "***", "url": "http://h/?q=…"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_text", [True, False])
def test_structures_keep_all_but_their_texts(value: Any, expected: Any, is_text: bool) -> None:
    found = row({"haystack.pipeline.input_data": json.dumps(value) if is_text else value})["attributes"]
    made = found["haystack.pipeline.input_data"]
    made = json.loads(made) if is_text else made
    if "prompt" in made:
        made["prompt"]["question"] = re.sub("digest .*", "…", made["prompt"]["question"])
    assert made == expected


@pytest.mark.parametrize(
    "value",
    [
        "Wo ist meine Bestellung",
        "我的订单在哪里",
        "где мой заказ сейчас",
        "Dear%20desk%20my%20name",
        "Dear+desk+my+name",
        "{'text': 'Dear desk my name'}",
        '{"text": "Dear desk my na',
        "RGVhciBkZXNrIG15IG5hbWUgaXMgT3R0aWxpZSBCcmFuZHdlaW4gYW5kIEkgb3dlIDQ3MTE=" * 2,
        "line\nline two",
    ],
)
def test_texts_in_other_clothes_are_texts(value: str) -> None:
    assert row({"anything": value})["attributes"]["anything"].startswith("digest ")


def test_long_values_are_told_by_digest_and_length() -> None:
    made = row({"anything": "blah " * 400, "list": list(range(1000))})["attributes"]
    assert made["anything"].endswith(", 2000 characters")
    assert made["list"].startswith("digest ")


@pytest.mark.parametrize("name", ["db.query.text", "db.statement", "sql", "my.sql", "anything"])
def test_statements_are_without_values_wherever_they_stand(name: str) -> None:
    made = row({name: "SELECT a FROM b WHERE c = 'Ottilie' AND d = 4711"})
    assert made["attributes"][name] == "SELECT a FROM b WHERE c = ? AND d = ?"


def test_an_error_tells_its_type_and_frames_and_no_message() -> None:
    frames = 'Traceback (most recent call last):\n  File "/app/x.py", line 3, in f\n    g(q)'
    trace = f"{frames}\nValueError: {ASKED}\n{ASKED}"
    thrown = event(
        "exception", **{"exception.type": "ValueError", "exception.message": ASKED, "exception.stacktrace": trace}
    )
    made = row({}, events=[thrown], status=2, status_message=f"ValueError: {ASKED}")
    (kept,) = made["events"]
    assert kept["attributes"] == {
        "exception.type": "ValueError",
        "exception.message": TOLD,
        "exception.stacktrace": f"{frames}\nValueError",
    }
    assert made["error_type"] == "ValueError"
    assert "Ottilie" not in json.dumps(made)


def test_labels_of_metrics_hold_no_texts() -> None:
    point = {"timeUnixNano": "1", "asInt": "1", "attributes": [{"key": k, "value": {"stringValue": v}} for k, v in
             (("asked", ASKED), ("pool.name", "main pool"))]}  # fmt: skip
    document = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "gauge": {"dataPoints": [point]}}]}]}]}
    written: list[dict[str, Any]] = []

    def emit(table: str, given: Any) -> int:
        written.extend(given)
        return len(given)

    Intake(emit, Digester(b"k" * 32)).add_metrics(document)
    assert written[0]["attributes"] == {"asked": TOLD, "pool.name": "main pool"}


DECLARED = sorted(
    {name for names in table()["facts"].values() for name in names}
    | set(table()["unpack"]) | set(table()["first_token"]) | set(table()["content"]["names"])
    | {kind["attribute"] for kind in table()["kind"]}
    | {name for form in table()["forms"] if form["form"] != "verbatim" for name in form["names"]}
    | {"http.url", "http.target", "url.path", "url.query", "thread.name", "code.function", "service.name", "a.b"}
)  # fmt: skip
WORDS = st.lists(
    st.sampled_from(
        ["where", "is", "my", "order", "please", "tell", "Ottilie", "Brandwein", "why", "crowns", "desk", "ship", "late"]
    ),
    min_size=8, max_size=12, unique=True,
)  # fmt: skip
WRAPS = [
    lambda text: text,
    lambda text: json.dumps(text),
    lambda text: json.dumps({"a": {"b": [text, 1]}}),
    lambda text: json.dumps({"a": json.dumps({text: text})}),
    lambda text: [text, {"x": text}],
    lambda text: {"model": "m", "messages": [{"role": "user", "content": text}]},
    lambda text: f"http://host/a?q={text}",
    lambda text: f"SELECT * FROM t WHERE name = '{text}'",
    lambda text: f"answer: {text}\n{text}",
    lambda text: {"value": f'Traceback\n  File "/a.py", line 1, in f\nValueError: {text}'},
]


def run_of_four(words: list[str], written: str) -> list[str]:
    runs = (" ".join(words[at : at + 4]) for at in range(len(words) - 3))
    return [run for run in runs if run in written]


@settings(deadline=None)
@given(
    words=WORDS,
    name=st.one_of(st.sampled_from(DECLARED), st.from_regex(r"[a-z_]{1,8}(\.[a-z_]{1,8}){0,3}", fullmatch=True)),
    wrap=st.sampled_from(WRAPS),
    kind=st.sampled_from([{}, {"gen_ai.operation.name": "chat"}, {"openinference.span.kind": "TOOL"}, {"db.system": "redis"}]),
)  # fmt: skip
@example(words=["where", "is", "my", "order"] * 3, name="agent.name", wrap=WRAPS[4], kind={})
@example(words=["where", "is", "my", "order"] * 3, name="gen_ai.operation.name", wrap=WRAPS[0], kind={})
def test_no_four_words_of_a_sentence_are_written_whatever_they_stand_under(
    words: list[str], name: str, wrap: Any, kind: dict[str, Any]
) -> None:
    value = wrap(" ".join(words))
    said = event("said", **{name: value})
    made = rows(span(kind | {name: value}, kind=2, events=[said]), span(name=f"answer: {' '.join(words)}"))
    assert not run_of_four(words, json.dumps(made, ensure_ascii=False))


@settings(deadline=None)
@given(words=WORDS)
def test_names_of_attributes_and_messages_of_status_hold_no_sentence(words: list[str]) -> None:
    text = " ".join(words)
    made = rows(span({text: 1, f"a.{text}": "x"}, status=2, status_message=f"Error: {text}", events=[event(text)]))
    assert not run_of_four(words, json.dumps(made))


@given(
    text=st.text(max_size=60) | st.from_regex(r'[\[{"].{0,30}[\]}"]?'),
    form=st.sampled_from(sorted(Cleaner(str).verdicts)),
)
@example(text=" ", form="unknown")
@example(text="\n", form="message")
@example(text="", form="label")
@example(text="{", form="statement")
def test_any_text_has_a_verdict_in_every_form(text: str, form: Form) -> None:
    clean = Cleaner(Digester(b"k" * 32).digest)
    assert isinstance(clean.verdicts[form][text], str)
    assert isinstance(clean.names[text], str)
    assert isinstance(clean.structure({text: [text, {text: None}]}, form), dict)


def test_verdicts_that_are_remembered_are_bounded() -> None:
    clean = Cleaner(Digester(b"k" * 32).digest)
    for number in range(9_000):
        clean.verdicts["unknown"][f"id-{number}"]
        clean.verdicts["unknown"][f"{number} " * 400]
    assert len(clean.verdicts["unknown"]) <= 4_000
    assert all(len(text) <= 400 for text in clean.verdicts["unknown"])


def test_facts_are_the_same_with_and_without_texts() -> None:
    attributes = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 12,
        "llm.invocation_parameters": json.dumps({"max_tokens": 9, "temperature": 0.5, "stop": [ASKED]}),
    }  # fmt: skip
    made = [
        RowMaker(Digester(b"k" * 32, mode), mode).rows([Group({}, "s", [span(attributes)])])["llm_calls"][0]
        for mode in ("digest", "full")
    ]
    assert {k: v for k, v in made[0].items() if k != "attributes"} == {
        k: v for k, v in made[1].items() if k != "attributes"
    }
    assert ROLES["llm.invocation_parameters"].unpack
