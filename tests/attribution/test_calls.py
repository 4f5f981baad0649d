from pathlib import Path
from typing import Any

import pytest
from builders import Row, call, failed_call, recording, request, span

from perfnb.attribution import calls


def test_a_call_seen_by_proxy_and_span_is_counted_once(tmp_path: Path) -> None:
    spanned = call(0, 1000, source="span", trace_id="t", span_id="s", parent_span_id="root")
    seen = call(3, 990, trace_id="t", parent_span_id="s")
    frame = calls(recording(tmp_path, calls=[spanned, seen]))
    assert frame[["call_id", "source", "trace_id", "span_id"]].to_numpy().tolist() == [
        [seen["call_id"], "proxy", "t", "s"]
    ]


def test_a_proxied_call_without_a_trace_finds_its_span_by_time_and_model(tmp_path: Path) -> None:
    spanned = call(0, 1000, source="span", trace_id="t", span_id="s")
    other = call(0, 1000, source="span", trace_id="u", span_id="v", request_model="another")
    seen = call(3, 990)
    frame = calls(recording(tmp_path, calls=[spanned, other, seen])).set_index("call_id")
    assert frame.loc[seen["call_id"], "trace_id"] == "t"
    assert set(frame.index) == {seen["call_id"], other["call_id"]}


def spanned(name: str, at: float, ms: float, **columns: Any) -> Row:
    return call(at, ms, source="span", trace_id=f"trace of {name}", span_id=name, **columns)


def joined(folder: Path, *rows: Row) -> dict[str, str]:
    """Return the span of each call that is left, by the call's id."""
    frame = calls(recording(folder, calls=list(rows)))
    return dict(zip(frame["call_id"], frame["span_id"], strict=True))


def test_calls_beside_each_other_have_a_span_each(tmp_path: Path) -> None:
    first, second = call(10, 900), call(60, 700)
    spans = spanned("a", 0, 905), spanned("b", 50, 715)
    assert joined(tmp_path, first, second, *spans) == {first["call_id"]: "a", second["call_id"]: "b"}


def test_the_tokens_told_decide_between_spans(tmp_path: Path) -> None:
    first, second = call(10, 900, output_tokens=70), call(11, 900, output_tokens=90)
    spans = spanned("a", 9, 902, output_tokens=90), spanned("b", 0, 930, output_tokens=70)
    assert joined(tmp_path, first, second, *spans) == {first["call_id"]: "b", second["call_id"]: "a"}


@pytest.mark.parametrize(("late_ms", "is_one"), [(0, True), (90, True), (110, False)])
def test_a_span_may_end_before_the_proxy_passed_on_the_last_bytes(tmp_path: Path, late_ms: float, is_one: bool) -> None:
    found = joined(tmp_path, call(10, 890 + late_ms), spanned("a", 0, 900))
    assert (len(found) == 1) is is_one


@pytest.mark.parametrize(("prompt", "is_one"), [("same", True), ("another", False)])
def test_a_span_that_ends_when_its_stream_begins_is_known_by_its_prompt(
    tmp_path: Path, prompt: str, is_one: bool
) -> None:
    found = joined(tmp_path, call(10, 890, prompt_digest="same"), spanned("a", 0, 1, prompt_digest=prompt))
    assert (len(found) == 1) is is_one


def test_a_call_whose_span_stands_beside_its_http_span_is_found_in_its_trace(tmp_path: Path) -> None:
    spans = [
        span("agent", 0, 1000, operation="agent"),
        span("ChatOpenAI", 10, 900, parent="agent", operation="chat"),
        span("POST", 12, 890, parent="agent", operation="http", kind="CLIENT"),
    ]
    told = call(10, 900, source="span", trace_id="trace1", span_id="trace1-ChatOpenAI", parent_span_id="trace1-agent")
    seen = call(15, 880, trace_id="trace1", parent_span_id="trace1-POST")
    stranger = call(14, 890, source="span", trace_id="trace2", span_id="other")
    frame = calls(recording(tmp_path, spans=spans, calls=[told, seen, stranger])).set_index("call_id")
    assert set(frame.index) == {seen["call_id"], stranger["call_id"]}
    assert frame.loc[seen["call_id"], "span_id"] == "trace1-ChatOpenAI"


def test_attempts_that_failed_share_the_span_of_the_one_that_did_not(tmp_path: Path) -> None:
    rows = [failed_call(5, prompt_digest="p"), failed_call(500, prompt_digest="p"), call(1000, 400, prompt_digest="p")]
    assert set(joined(tmp_path, *rows, spanned("a", 0, 1405, prompt_digest=None)).values()) == {"a"}


def test_an_embedding_is_no_chat(tmp_path: Path) -> None:
    seen = call(10, 80, operation="embeddings", request_model="m")
    assert len(joined(tmp_path, seen, spanned("a", 0, 100, request_model="m"))) == 2


def test_a_framework_span_above_a_providers_is_dropped(tmp_path: Path) -> None:
    spans = [
        span("ChatOpenAI", 0, 1000, operation="chat"),
        span("glue", 1, 998, parent="ChatOpenAI"),
        span("chat gpt", 2, 990, parent="glue", operation="chat"),
    ]
    outer = call(0, 1000, source="span", trace_id="trace1", span_id="trace1-ChatOpenAI")
    inner = call(2, 990, source="span", trace_id="trace1", span_id="trace1-chat gpt", parent_span_id="trace1-glue")
    assert calls(recording(tmp_path, spans=spans, calls=[outer, inner]))["call_id"].tolist() == [inner["call_id"]]


def test_equal_calls_beside_each_other_are_both_counted(tmp_path: Path) -> None:
    rows = [
        call(at, ms, source="span", trace_id="t", span_id=f"s{at}", parent_span_id="root")
        for at, ms in ((0, 1000), (100, 500))
    ]
    assert len(calls(recording(tmp_path, calls=rows))) == 2


def test_retries_hidden_in_one_span_become_attempts(tmp_path: Path) -> None:
    spans = [span("chat gpt", 0, 1200, operation="chat")]
    for at, ms, status in ((5, 3, 429), (505, 3, 429), (1005, 190, 200)):
        spans.append(
            span(f"POST {at}", at, ms, parent="chat gpt", operation="http", kind="CLIENT", http_status_code=status)
        )
    only = call(
        0, 1200, source="span", trace_id="trace1", span_id="trace1-chat gpt", prompt_digest=None, first_token_ms=1100
    )
    frame = calls(recording(tmp_path, spans=spans, calls=[only], requests=[request(0, 1300, trace_id="trace1")]))
    assert frame["status_code"].tolist() == [429, 429, 200]
    assert frame["attempt"].tolist() == [1, 2, 3]
    assert frame["duration_ms"].iloc[-1] == pytest.approx(195)
    assert frame["time_to_first_token_ms"].iloc[-1] == pytest.approx(95)
