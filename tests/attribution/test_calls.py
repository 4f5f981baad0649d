from pathlib import Path

import pytest
from builders import call, recording, request, span

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
