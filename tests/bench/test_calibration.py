"""The pure parts of bench/calibration.py: what counts as agreement, and the table it writes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from perfnb.estimates import change_named, changes
from perfnb.trials import MetricResult
from perfnb.trials.measure import METRICS
from perfnb.try_a_change.database import FIXED


def _script() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "calibration.py"
    spec = importlib.util.spec_from_file_location("bench_calibration", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


calibration = _script()


def row(predicted: tuple[float, float], measured: tuple[float, float, float], *, is_main: bool = True) -> Any:
    """Return a comparison of a predicted range with low, ratio and high as measured."""
    low, ratio, high = measured
    return calibration.Compared("route", "oversized-model", "request_usd", is_main, *predicted, ratio, low, high)


@pytest.mark.parametrize(
    ("predicted", "measured", "is_within", "is_inside"),
    [
        ((0.4, 0.6), (0.45, 0.5, 0.55), True, True),
        ((0.4, 0.6), (0.58, 0.64, 0.71), True, False),  # within the trial's own uncertainty
        ((0.4, 0.6), (0.62, 0.7, 0.8), False, False),
        ((0.4, 0.6), (0.2, 0.25, 0.3), False, False),  # better than predicted is wrong, too
        ((0.4, 0.9), (0.7, 0.85, 1.03), False, True),  # can't tell the change from none
        ((0.9, 1.0), (0.7, 0.95, 1.2), True, True),  # … which is what was predicted
        ((0.5, 0.5), (0.5, 0.5, 0.5), True, True),
    ],
)
def test_agreement(
    predicted: tuple[float, float], measured: tuple[float, float, float], is_within: bool, is_inside: bool
) -> None:
    found = row(predicted, measured)
    assert (found.is_within, found.is_inside) == (is_within, is_inside)


def test_meeting_the_range_is_lying_in_it_widened_by_half_the_interval() -> None:
    half = 1.1
    for ratio in (0.3, 0.37, 0.5, 0.65, 0.67):
        found = row((0.4, 0.6), (ratio / half, ratio, ratio * half))
        assert found.is_within == (0.4 / half <= ratio <= 0.6 * half)


def metric(name: str, predicted: tuple[float, float] | None) -> MetricResult:
    low, high = predicted or (None, None)
    return MetricResult(
        name, METRICS[name].title, "", a=2.0, b=1.0, pairs=6, ratio=0.5, low=0.4, high=0.6, sd=0.1, p=0.0,
        p_sign_flip=0.03, verdict="better", predicted_low=low, predicted_high=high,
    )  # fmt: skip


class Result:
    """As much of a trial's result as is compared."""

    metrics = (
        metric("input_tokens", (0.5, 0.7)),
        metric("request_duration_ms", (0.995, 1.0)),  # not predicted to move
        metric("request_usd", (0.4, 0.6)),
        metric("output_tokens", None),
        metric("request_duration_p95_ms", (0.1, 0.2)),  # not what is estimated
    )


def test_metrics_predicted_to_move_are_compared_the_main_one_first() -> None:
    case = calibration.Case("route", "request_usd", ("oversized-model",))
    rows = calibration.compared(case, Result())
    assert [(each.metric, each.is_main) for each in rows] == [("request_usd", True), ("input_tokens", False)]


def test_the_main_metric_is_compared_though_it_should_not_move() -> None:
    case = calibration.Case("route", "request_duration_ms", ("oversized-model",))
    assert calibration.compared(case, Result())[0].metric == "request_duration_ms"


def tried(*rows: Any, trouble: str = "") -> Any:
    return calibration.Tried(calibration.CASES[0], rows, "split", 6, 100, trouble)


def test_the_table_counts_main_metrics_and_names_what_has_none() -> None:
    good, wrong = row((0.4, 0.6), (0.45, 0.5, 0.55)), row((0.4, 0.6), (0.62, 0.7, 0.8), is_main=False)
    found = [tried(good, wrong), tried(trouble="the app was gone")]
    table = calibration.as_table(found)
    assert (
        "| **route** | oversized-model | request_usd | -60% to -40% | -50.0% (-55.0% to -45.0%) | yes | yes |" in table
    )
    assert "| route | oversized-model | request_usd | -60% to -40% | -30.0% (-38.0% to -20.0%) | **no** | no |" in table
    assert "**the app was gone**" in table
    assert "1 of 2 changes agree, 1 with the measured value inside the bare range; all metrics: 1 of 2, and 1." in table
    assert calibration.share(found, "is_within") == 0.5


def test_a_trial_that_failed_agrees_with_nothing() -> None:
    assert calibration.share([tried(row((0.4, 0.6), (0.45, 0.5, 0.55)), trouble="aborted")], "is_within") == 0


def test_sessions_of_a_trial_are_others_than_the_recorded_ones() -> None:
    recorded = {f"customer-{number}" for number in range(1, calibration.SESSIONS + 1)}
    for generation in (1, 2):
        bodies = [calibration.in_fresh_session({"message": "?", "session_id": each}, generation) for each in recorded]
        later = {body["session_id"] for body in bodies}
        assert len(later) == len(recorded)
        assert not later & recorded
    assert calibration.in_fresh_session({"message": "?"}, 1) == {"message": "?"}


def test_every_change_the_proxy_or_a_statement_can_show_is_calibrated() -> None:
    can_be_tried = {each.name for each in changes() if each.policy} | {"index", *FIXED}
    assert can_be_tried <= {case.change for case in calibration.CASES}
    for case in calibration.CASES:
        change = change_named(case.change)
        change.setting(case.setting)
        assert sum(map(bool, (change.policy, case.app, case.main == calibration.STATEMENT))) == 1
