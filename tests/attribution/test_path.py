from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import Row, call, failed_call, recording, request, span
from hypothesis import given
from hypothesis import strategies as st

from perfnb.attribution import critical_path, timeline_of
from perfnb.attribution.path import critical_segments
from perfnb.attribution.trees import Node
from perfnb.errors import NotMeasured


@st.composite
def trees(draw: st.DrawFn, depth: int = 4) -> Node:
    start = draw(st.integers(0, 1000))
    node = Node(str(draw(st.integers())), "node", "app", start, start + draw(st.integers(0, 1000)))
    if depth:
        node.children = draw(st.lists(trees(depth - 1), max_size=3))
    return node


@given(trees())
def test_segments_tile_the_request(root: Node) -> None:
    segments = sorted(critical_segments(root), key=lambda segment: segment.start)
    assert sum(segment.end - segment.start for segment in segments) == root.end - root.start
    assert all(before.end == after.start for before, after in pairwise(segments))


@given(trees())
def test_a_node_is_never_blamed_beyond_its_own_time(root: Node) -> None:
    for segment in critical_segments(root):
        assert segment.node.start <= segment.start <= segment.end <= segment.node.end


def test_a_ring_of_parents_ends() -> None:
    a, b = Node("a", "a", "app", 0, 10), Node("b", "b", "app", 0, 10)
    a.children, b.children = [b], [a]
    root = Node("root", "root", "app", 0, 10, children=[a])
    assert sum(segment.end - segment.start for segment in critical_segments(root)) == 10


def test_parallel_work_is_counted_once(tmp_path: Path) -> None:
    made = recording(tmp_path, requests=[request(0, 1000)], calls=[call(100, 800), call(100, 600), call(150, 300)])
    path = critical_path(made)
    assert path["exclusive_ms"].sum() == pytest.approx(1000)
    assert path.loc[path["kind"] == "model", "exclusive_ms"].tolist() == pytest.approx([800])


def test_a_call_below_its_span_owns_the_time_of_the_http_span(tmp_path: Path) -> None:
    spans = [
        span("POST /chat", 0, 1000, kind="SERVER", operation="server"),
        span("generate", 200, 780, parent="POST /chat"),
        span("chat gpt", 210, 760, parent="generate", operation="chat"),
        span("POST", 215, 750, parent="chat gpt", operation="http", kind="CLIENT"),
    ]
    spanned = call(
        210, 760, source="span", trace_id="trace1", span_id="trace1-chat gpt", parent_span_id="trace1-generate"
    )
    seen = call(216, 745, trace_id="trace1", parent_span_id="trace1-POST")
    served = request(0, 1000, source="span", trace_id="trace1", span_id="trace1-POST /chat")
    path = critical_path(recording(tmp_path, spans=spans, calls=[spanned, seen], requests=[served]))
    times = path.groupby("kind")["exclusive_ms"].sum()
    assert times["model"] == pytest.approx(760)
    assert "http" not in times
    assert path.loc[path["name"] == "generate", "stage"].tolist() == ["generate"]


def test_waiting_between_attempts_is_told_apart(tmp_path: Path) -> None:
    attempts = [
        failed_call(100, 10, prompt_digest="p"),
        failed_call(1110, 10, prompt_digest="p"),
        call(2120, 500, prompt_digest="p"),
    ]
    path = critical_path(recording(tmp_path, requests=[request(0, 2700)], calls=attempts))
    times = path.groupby("kind")["exclusive_ms"].sum()
    assert times["backoff"] == pytest.approx(2000)
    assert times["model"] == pytest.approx(520)
    assert times["app"] == pytest.approx(180)


def test_the_wait_before_the_first_token_is_told(tmp_path: Path) -> None:
    made = recording(tmp_path, requests=[request(0, 1000)], calls=[call(0, 1000, first_token_ms=400)])
    assert critical_path(made)["before_first_token_ms"].sum() == pytest.approx(400)


def test_a_timeline_starts_with_the_request_and_draws_every_node(tmp_path: Path) -> None:
    one = request(0, 1000)
    frame = timeline_of(recording(tmp_path, requests=[one], calls=[call(100, 800)]), one["request_id"])
    assert frame["depth"].tolist() == [0, 1]
    assert frame["on_critical_path_ms"].tolist() == pytest.approx([200, 800])


def test_an_empty_recording_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="perfnb record"):
        critical_path(recording(tmp_path))


def served(whole_ms: float, *spans: Row, calls: Iterable[Row] = (), folder: Path) -> pd.DataFrame:
    """Return the critical path of one request of ``whole_ms`` with these spans below its own."""
    rows = [span("POST /chat", 0, whole_ms, kind="SERVER", operation="server"), *spans]
    one = request(0, whole_ms, source="span", trace_id="trace1", span_id="trace1-POST /chat")
    return critical_path(recording(folder, spans=rows, calls=list(calls), requests=[one]))


def spanned(name: str, start: float, length: float, **columns: Any) -> Row:
    return call(start, length, source="span", trace_id="trace1", span_id=f"trace1-{name}", **columns)


def test_what_waits_for_the_client_to_hang_up_is_no_wait_of_the_user(tmp_path: Path) -> None:
    path = served(
        2500,
        span(
            "POST /chat http receive", 0, 2500, parent="POST /chat", attributes={"asgi.event.type": "http.disconnect"}
        ),
        span("chat", 10, 2480, parent="POST /chat", operation="chat"),
        calls=[spanned("chat", 10, 2480)],
        folder=tmp_path,
    )
    assert path.set_index("kind")["exclusive_ms"].to_dict() == pytest.approx({"app": 20, "model": 2480})


def test_two_calls_of_one_request_are_no_attempts_and_other_services_are_stages(tmp_path: Path) -> None:
    path = served(
        3000,
        span("embeddings", 0, 50, parent="POST /chat", operation="embeddings"),
        span("POST", 60, 1900, parent="POST /chat", operation="http", attributes={"server.address": "rerank.example"}),
        span("chat", 1970, 1000, parent="POST /chat", operation="chat"),
        calls=[spanned("embeddings", 0, 50, operation="embeddings"), spanned("chat", 1970, 1000)],
        folder=tmp_path,
    )
    assert set(path["kind"]) == {"app", "embedding", "http", "model"}
    assert path.set_index("stage")["exclusive_ms"]["POST rerank.example"] == pytest.approx(1900)


def test_attempts_with_spans_of_their_own_are_held_together(tmp_path: Path) -> None:
    path = served(
        2600,
        span("one", 0, 10, parent="POST /chat", operation="chat"),
        span("two", 1010, 10, parent="POST /chat", operation="chat"),
        span("three", 2020, 500, parent="POST /chat", operation="chat"),
        calls=[
            spanned("one", 0, 10, error_type="rate_limit", prompt_digest="p"),
            spanned("two", 1010, 10, error_type="rate_limit", prompt_digest="p"),
            spanned("three", 2020, 500, prompt_digest="p"),
        ],
        folder=tmp_path,
    )
    assert path.groupby("kind")["exclusive_ms"].sum().to_dict() == pytest.approx(
        {"app": 80, "backoff": 2000, "model": 520}
    )


def test_a_call_that_outlives_the_span_it_began_in_is_waited_for_above(tmp_path: Path) -> None:
    path = served(
        1380,
        span("endpoint", 0, 379, parent="POST /chat"),
        span("chat", 60, 1310, parent="endpoint", operation="chat"),
        calls=[spanned("chat", 60, 1310)],
        folder=tmp_path,
    )
    assert path.set_index("name")["exclusive_ms"].to_dict() == pytest.approx(
        {"POST /chat": 10, "endpoint": 60, "chat gpt-5-mini": 1310}
    )


def test_a_call_no_span_shows_hangs_under_the_innermost_span_around_it(tmp_path: Path) -> None:
    path = served(
        2000,
        span("pipeline", 10, 1980, parent="POST /chat"),
        span("generator", 500, 1450, parent="pipeline"),
        calls=[call(520, 1400, trace_id="trace1")],
        folder=tmp_path,
    )
    times = path.groupby("name")["exclusive_ms"].sum()
    assert times["generator"] == pytest.approx(50)
    assert path.loc[path["kind"] == "model", "stage"].tolist() == ["generator"]
