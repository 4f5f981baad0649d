from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders import Row, answer, call, every, recording, request, span

from perfnb.areas.slow.concurrency import over_time, sequences
from perfnb.finding import Clear, Finding


def texts(*digests: str, sketch: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    return [{"role": "system", "digest": "rules", "sketch": []}] + [
        {"role": "user", "digest": digest, "sketch": list(sketch)} for digest in digests
    ]


def in_a_row(at_ms: float, count: int = 4, pause: float = 3, *, tokens: int = 60, **columns: Any) -> list[Row]:
    """Return a request whose calls follow each other, each with a prompt and an answer of its own."""
    calls = [
        call(
            at_ms + 20 + number * (500 + pause), 500, output_tokens=tokens,
            messages=texts(f"{at_ms} part {number}", sketch=(number * 10, number * 10 + 1)),
            response_sketch=[1000 + number, 2000 + number], **columns,
        )
        for number in range(count)
    ]  # fmt: skip
    return [request(at_ms, 40 + count * (500 + pause)), *calls]


def handed_on(at_ms: float) -> list[Row]:
    """Return calls of which each prompt holds the answer before it."""
    made = in_a_row(at_ms)
    for before, now in pairwise(made[1:]):
        now["messages"] = texts(f"{at_ms} {now['call_id']}", sketch=tuple(before["response_sketch"]))
    return made


def going_on(at_ms: float) -> list[Row]:
    """Return a conversation: each prompt goes on from the messages before it."""
    made = in_a_row(at_ms)
    for number, one in enumerate(made[1:]):
        one["messages"] = texts(*(f"turn {each}" for each in range(number + 1)))
    return made


def together(at_ms: float) -> list[Row]:
    calls = [call(at_ms + 20, 500, messages=texts(f"{at_ms} {number}")) for number in range(4)]
    return [request(at_ms, 560), *calls]


def split(rows: list[Row]) -> dict[str, list[Row]]:
    return {
        "calls": [row for row in rows if "call_id" in row],
        "requests": [row for row in rows if "request_id" in row and "call_id" not in row],
    }


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (in_a_row, True),
        (lambda at: in_a_row(at, count=3), True),
        (lambda at: in_a_row(at, count=2), False),
        (together, False),
        (handed_on, False),
        (going_on, False),
        (lambda at: in_a_row(at, pause=500), True),  # a busy app takes a while to send the next one
        (lambda at: in_a_row(at, pause=510), False),  # something happens in between
        (lambda at: in_a_row(at, finish_reason="tool_calls"), False),
        (lambda at: in_a_row(at, count=5, tokens=4), False),  # tiny answers: unbatched-requests
        (lambda at: in_a_row(at, count=4, tokens=4), True),  # too few for a batch
    ],
)
def test_sequential_calls(tmp_path: Path, make: Any, found: bool) -> None:
    assert isinstance(answer(tmp_path, "sequential-calls", **split(every(5000, 6, make))), Finding) is found


def test_the_saving_is_the_sum_less_the_longest(tmp_path: Path) -> None:
    runs = sequences(recording(tmp_path, **split(every(5000, 3, in_a_row))))
    assert list(runs["calls"]) == [4, 4, 4]
    assert runs["saving_ms"].tolist() == pytest.approx([1500] * 3)


def test_spans_without_texts_are_judged_by_place_and_size(tmp_path: Path) -> None:
    def traced(at: float) -> tuple[list[Row], list[Row]]:
        trace = f"trace{at}"
        parts = [
            call(at + number * 503, 500, source="span", trace_id=trace, span_id=f"{trace}-c{number}",
                 parent_span_id=f"{trace}-work", prompt_digest=None, messages=None)
            for number in range(4)
        ]  # fmt: skip
        spans = [span("work", at, 2020, trace=trace)]
        spans += [
            span(f"c{number}", at + number * 503, 500, trace=trace, parent="work", operation="chat")
            for number in range(4)
        ]
        return parts, spans

    made = [traced(at) for at in range(0, 30000, 5000)]
    calls, spans = [row for part, _ in made for row in part], [row for _, part in made for row in part]
    assert isinstance(answer(tmp_path, "sequential-calls", calls=calls, spans=spans), Finding)
    growing = [row | {"input_tokens": 700 + 100 * (number % 4)} for number, row in enumerate(calls)]
    assert isinstance(answer(tmp_path / "b", "sequential-calls", calls=growing, spans=spans), Clear)


@pytest.mark.parametrize(
    ("count", "tokens", "found"), [(12, 3, True), (12, 80, False), (4, 3, False), (5, 40, True), (5, 41, False)]
)
def test_unbatched_requests(tmp_path: Path, count: int, tokens: int, found: bool) -> None:
    def judged(at: float) -> list[Row]:
        small = [call(at + 10 + number, 200, output_tokens=tokens, input_tokens=120) for number in range(count)]
        return [request(at, 1200), *small, call(at + 300, 800)]

    assert isinstance(answer(tmp_path, "unbatched-requests", **split(every(5000, 5, judged))), Finding) is found


def test_over_time_counts_what_is_under_way(tmp_path: Path) -> None:
    frame = over_time(recording(tmp_path, **split(every(500, 4, together))), points=50)
    assert frame["calls_in_flight"].max() >= 4
    assert frame["requests_in_flight"].max() >= 1
    assert len(frame) == 50
