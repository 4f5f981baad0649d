from pathlib import Path
from typing import Any

import pytest
from builders import Row, call, every, failed_call, recording, request, span

from perfnb.attribution import calls, requests
from perfnb.recording import Recording


def owner(made: Recording) -> dict[str, tuple[Any, float]]:
    frame = calls(made)
    return {row.call_id: (row.request_id, row.certainty) for row in frame.itertuples()}


def test_a_request_seen_twice_is_one_with_the_users_timing_and_the_spans_trace(tmp_path: Path) -> None:
    outside = request(0, 1000)
    served = request(3, 990, source="span", trace_id="t", span_id="s", route="/chat/{id}")
    frame = requests(recording(tmp_path, requests=[outside, served]))
    assert frame[["request_id", "trace_id", "route", "duration_ms"]].to_numpy().tolist() == [
        [outside["request_id"], "t", "/chat/{id}", 1000]
    ]


def test_overlapping_requests_are_paired_one_to_one(tmp_path: Path) -> None:
    outside = [request(0, 1000), request(10, 1000)]
    served = [request(at + 2, 980, source="span", trace_id=f"t{at}", span_id="s") for at in (0, 10)]
    frame = requests(recording(tmp_path, requests=[*outside, *served]))
    assert sorted(zip(frame["request_id"], frame["trace_id"], strict=True)) == sorted(
        [(outside[0]["request_id"], "t0"), (outside[1]["request_id"], "t10")]
    )


def test_of_nested_server_spans_the_outermost_is_the_users(tmp_path: Path) -> None:
    rows = [
        request(0, 1000, source="span", trace_id="t", span_id="outer"),
        request(100, 300, source="span", trace_id="t", span_id="inner", route="/search"),
    ]
    assert requests(recording(tmp_path, requests=rows))["span_id"].tolist() == ["outer"]


def test_light_requests_and_warm_up_are_not_the_users(tmp_path: Path) -> None:
    rows = [request(0, 10, phase="lag"), request(0, 10, phase="warm-up"), request(0, 10)]
    assert len(requests(recording(tmp_path, requests=rows))) == 1


def test_calls_belong_by_trace_before_time(tmp_path: Path) -> None:
    near, far = request(0, 1000), request(0, 1000, trace_id="t")
    made = call(100, 200, trace_id="t")
    assert owner(recording(tmp_path, requests=[near, far], calls=[made])) == {made["call_id"]: (far["request_id"], 1.0)}


def test_calls_belong_by_time_with_certainty(tmp_path: Path) -> None:
    first, second = request(0, 1000), request(400, 1000)
    alone, shared, outside = call(100, 200), call(500, 200), call(5000, 100)
    owners = owner(recording(tmp_path, requests=[first, second], calls=[alone, shared, outside]))
    assert owners[alone["call_id"]] == (first["request_id"], 1.0)
    assert owners[shared["call_id"]] == (second["request_id"], 0.5)
    assert owners[outside["call_id"]][1] == 0


def test_the_text_they_share_decides_between_overlapping_requests(tmp_path: Path) -> None:
    first = request(0, 1000, body_sketch=list(range(10)))
    second = request(400, 1000, body_sketch=list(range(100, 110)))
    late = call(500, 200, messages=[{"role": "user", "digest": "d", "sketch": list(range(9))}])
    assert owner(recording(tmp_path, requests=[first, second], calls=[late])) == {
        late["call_id"]: (first["request_id"], 0.9)
    }


def test_a_trace_without_http_has_its_root_for_a_request(tmp_path: Path) -> None:
    spans = [span("job", 0, 1000), span("chat", 100, 800, parent="job", operation="chat")]
    inner = call(100, 800, source="span", trace_id="trace1", span_id="trace1-chat", parent_span_id="trace1-job")
    frame = requests(recording(tmp_path, spans=spans, calls=[inner]))
    assert frame[["source", "route", "duration_ms"]].to_numpy().tolist() == [["trace", "job", 1000]]


def test_calls_alone_stand_for_requests_with_their_retries(tmp_path: Path) -> None:
    rows: list[Row] = [failed_call(0, 10, prompt_digest="p"), call(1000, 500, prompt_digest="p"), call(5000, 300)]
    frame = requests(recording(tmp_path, calls=rows))
    assert frame["duration_ms"].tolist() == pytest.approx([1500, 300])
    assert frame["source"].unique().tolist() == ["call"]


def test_a_prompt_that_comes_again_after_success_is_a_new_chain(tmp_path: Path) -> None:
    rows = [failed_call(0, 10, prompt_digest="p"), call(100, 50, prompt_digest="p"), call(300, 50, prompt_digest="p")]
    frame = calls(recording(tmp_path, requests=[request(0, 1000)], calls=rows))
    assert frame["attempt"].tolist() == [1, 2, 1]
    assert frame["waited_ms"].iloc[1] == pytest.approx(90)


def test_many_requests_are_joined(tmp_path: Path) -> None:
    made = recording(
        tmp_path,
        requests=every(100, 3000, lambda at: request(at, 90)),
        calls=every(100, 3000, lambda at: call(at + 5, 50)),
    )
    frame = calls(made)
    assert frame["request_id"].nunique() == 3000
    assert (frame["certainty"] == 1).all()


def test_a_call_that_outlives_a_request_is_not_its(tmp_path: Path) -> None:
    hung = call(100, 20_000, error_type="unfinished")
    made = recording(tmp_path, requests=[request(0, 1000), request(300, 1000)], calls=[hung, call(500, 200)])
    assert owner(made)[hung["call_id"]] == (hung["call_id"], 1.0)
    assert requests(made)["source"].tolist() == ["front", "unfinished", "front"]


def test_a_call_of_a_request_that_was_broken_off_may_go_on(tmp_path: Path) -> None:
    left = request(0, 1000, error_type="disconnected", client_disconnected=True)
    hung = call(100, 20_000, error_type="unfinished")
    assert owner(recording(tmp_path, requests=[left], calls=[hung]))[hung["call_id"]] == (left["request_id"], 1.0)
