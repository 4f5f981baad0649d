from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import recording, request, trial_result

from perfnb.trials.shown import change, distribution, durations, result_piece, setting


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "as it is"),
        ({}, "as it is"),
        ("fast", "fast"),
        (0, "0"),
        ({"max_tokens": 300}, "max tokens 300"),
        ({"response_cache": {"ttl_s": 60, "redis": None}}, "response cache ttl s 60"),
        ({"names": ["search", "fetch"]}, "names search, fetch"),
    ],
)
def test_a_setting_is_told_in_a_line(value: Any, said: str) -> None:
    assert setting(value) == said


@pytest.mark.parametrize(("ratio", "said"), [(0.8, "−20\u00a0%"), (1.0, "+0\u00a0%"), (2.5, "+150\u00a0%")])
def test_a_ratio_is_told_as_a_change(ratio: float, said: str) -> None:
    assert change(ratio) == said


def test_measured_stands_beside_predicted() -> None:
    result = trial_result()
    predicted = replace(result.metrics[0], predicted_low=0.7, predicted_high=0.9)
    html = result_piece(replace(result, metrics=(predicted, *result.metrics[1:]))).html
    assert "−30\u00a0% to −10\u00a0%" in html
    assert html.count("<tr") == 3
    assert '<tr class="primary"><th scope="row">time to last byte, median' in html


@pytest.mark.parametrize(("was_undone", "said"), [(True, False), (False, True)])
def test_what_could_not_be_undone_is_said(was_undone: bool, said: bool) -> None:
    assert ("perfnb revert" in result_piece(trial_result(was_undone=was_undone)).html) is said


def test_values_are_escaped() -> None:
    html = result_piece(trial_result(value={"replace": "<script>alert(1)</script>"})).html
    assert "<script>" not in html


def test_the_arms_are_drawn_apart(tmp_path: Path) -> None:
    rows = [
        request(at, ms, source="load", arm=f"t1/{arm}", phase="measure")
        for at, (arm, ms) in enumerate([("A", 900), ("A", 1000), ("B", 500), ("B", 600)])
    ]
    others = [
        request(10, 70, source="load", arm="t1/A", phase="warm-up"),
        request(11, 80, source="load", arm="t2/A", phase="measure"),
        request(12, 90),
    ]
    frame = durations(recording(tmp_path, requests=[*rows, *others]), "t1")
    assert sorted(zip(frame["arm"], frame["duration_ms"], strict=True)) == [
        ("A", 900), ("A", 1000), ("B", 500), ("B", 600),
    ]  # fmt: skip
    chart = distribution(frame, "How long requests took")
    assert [trace.name for trace in chart.figure.data] == ["without the change (2)", "with it (2)"]
    assert list(chart.figure.data[1].y) == [50, 100]
    assert "half of 2 requests within 950 ms" in chart.alt
