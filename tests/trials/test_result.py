import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from perfnb.finding import Estimate
from perfnb.trials import MetricResult, TrialResult
from perfnb.trials.statistics import compare

FASTER = compare([-0.25, -0.2, -0.22, -0.21, -0.24, -0.2], alpha=0.01, margin=0.03)


def result(**changes: Any) -> TrialResult:
    metrics = (
        MetricResult.of("request_duration_ms", 2000, 1600, FASTER),
        MetricResult.of("request_usd", 0.002, 0.0016, FASTER),
    )
    made = TrialResult(
        trial="4711abcd", knob="output_cap", title="Output cap", before=None, value={"max_tokens": 300}, mode="pairs",
        outcome="better", why="99% interval -23% to -16% in 6 pairs", primary="request_duration_ms", confidence=0.99,
        margin=0.03, pairs=6, void_pairs=0, requests=120, failed=0, spent_usd=0.2, started_ns=0, ended_ns=61 * 10**9,
        was_undone=True, worst_late_ms=1.5, metrics=metrics, notes=("each request was sent twice",),
    )  # fmt: skip
    return replace(made, **changes)


def test_a_result_survives_json() -> None:
    assert TrialResult.from_dict(json.loads(json.dumps(result().as_dict()))) == result()


def test_the_text_says_what_changed_by_how_much_and_how_sure_that_is() -> None:
    text = str(result())
    assert text.splitlines()[0] == "Output cap: better, time to last byte, median -19.7%"
    assert "2000 → 1600 ms (-19.7%, " in text
    assert "0.002000 → 0.001600 USD" in text
    assert "6 pairs, 120 requests, 61 s" in text
    assert "each request was sent twice" in text
    assert "NOT" not in text


def test_a_change_that_stands_is_told() -> None:
    assert "perfnb revert" in str(result(was_undone=False))


@pytest.mark.parametrize("outcome", ["aborted", "stopped"])
def test_what_ended_early_is_headed_by_why(outcome: str) -> None:
    assert (
        result(outcome=outcome, why="5 of 9 requests failed").headline
        == f"Output cap: {outcome}, 5 of 9 requests failed"
    )
    assert "withheld" in result(outcome="withheld").headline
    assert result(metrics=(), why="too early").headline.endswith("too early")


@pytest.mark.parametrize(
    ("low", "high", "agrees"), [(1500, 1700, True), (1000, 1200, False), (1950, 2100, False), (100, 5000, True)]
)
def test_predicted_beside_measured(low: float, high: float, agrees: bool) -> None:
    prediction = SimpleNamespace(effects=(Estimate("request_duration_ms", 2000, low, high), Estimate("other", 1, 1, 1)))
    found = result()["request_duration_ms"].beside(prediction)
    assert (found.predicted_low, found.predicted_high) == (low / 2000, high / 2000)
    assert found.agrees is agrees
    assert f"predicted {low / 2000 - 1:+.1%}" in str(found)
    assert result()["request_usd"].beside(prediction).agrees is None


def test_a_metric_that_was_not_measured_is_not_there() -> None:
    with pytest.raises(KeyError):
        result()["time_to_first_token_ms"]
