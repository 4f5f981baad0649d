import json
from types import SimpleNamespace

import pytest
from builders import trial_result

from perfnb.finding import Estimate
from perfnb.trials import TrialResult


def test_a_result_survives_json() -> None:
    assert TrialResult.from_dict(json.loads(json.dumps(trial_result().as_dict()))) == trial_result()


def test_the_text_says_what_changed_by_how_much_and_how_sure_that_is() -> None:
    text = str(trial_result())
    assert text.splitlines()[0] == "Output cap: better, time to last byte, median -19.7%"
    assert "2000 → 1600 ms (-19.7%, " in text
    assert "0.002000 → 0.001600 USD" in text
    assert "6 pairs, 120 requests, 61 s" in text
    assert "each request was sent twice" in text
    assert "NOT" not in text


def test_a_change_that_stands_is_told() -> None:
    assert "perfnb revert" in str(trial_result(was_undone=False))


@pytest.mark.parametrize("outcome", ["aborted", "stopped"])
def test_what_ended_early_is_headed_by_why(outcome: str) -> None:
    assert (
        trial_result(outcome=outcome, why="5 of 9 requests failed").headline
        == f"Output cap: {outcome}, 5 of 9 requests failed"
    )
    assert "withheld" in trial_result(outcome="withheld").headline
    assert trial_result(metrics=(), why="too early").headline.endswith("too early")


@pytest.mark.parametrize(
    ("low", "high", "agrees"), [(1500, 1700, True), (1000, 1200, False), (1950, 2100, False), (100, 5000, True)]
)
def test_predicted_beside_measured(low: float, high: float, agrees: bool) -> None:
    prediction = SimpleNamespace(effects=(Estimate("request_duration_ms", 2000, low, high), Estimate("other", 1, 1, 1)))
    found = trial_result()["request_duration_ms"].beside(prediction)
    assert (found.predicted_low, found.predicted_high) == (low / 2000, high / 2000)
    assert found.agrees is agrees
    assert f"predicted {low / 2000 - 1:+.1%}" in str(found)
    assert trial_result()["request_usd"].beside(prediction).agrees is None


def test_a_metric_that_was_not_measured_is_not_there() -> None:
    with pytest.raises(KeyError):
        trial_result()["time_to_first_token_ms"]
