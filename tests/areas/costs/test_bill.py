from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import START, call, recording, request

from perfnb.areas.costs.bill import DAY_NS, reconciliation
from perfnb.errors import NotMeasured
from perfnb.recording import Recording

DAY = START // DAY_NS * DAY_NS
PRICES = [{"model": "*", "input_usd_per_mtok": 1, "output_usd_per_mtok": 10}]
SMALL = {"input_tokens": 1000, "output_tokens": 100, "response_model": "gpt-5-mini-2025-08-07"}  # 0.002


def line(number: int = 1, **columns: Any) -> dict[str, Any]:
    return {
        "time": DAY,
        "end_time": DAY + DAY_NS,
        "provider": "openai",
        "model": "gpt-5-mini-2025-08-07",
        "source": "usage",
        "line_digest": f"line{number}",
        "imported": 1,
    } | columns


def usage(number: int = 1, **columns: Any) -> dict[str, Any]:
    counts = {"requests": 3, "input_tokens": 3000, "cache_read_tokens": 0, "output_tokens": 300}
    return line(number, **(counts | columns))


def charge(number: int, usd: float, **columns: Any) -> dict[str, Any]:
    return line(number, **({"source": "costs", "charged_usd": usd, "item": "input"} | columns))


def beside(folder: Path, calls: list[dict[str, Any]], bills: list[dict[str, Any]], **tables: Any) -> pd.DataFrame:
    made = recording(folder, calls=calls, bills=bills, **tables)
    made.manifest["prices"] = PRICES
    return reconciliation(made)


def test_a_bill_that_agrees(tmp_path: Path) -> None:
    calls = [call(at, **SMALL) for at in (0, 1000, 7_200_000)]
    (row,) = beside(tmp_path, calls, [usage(1), charge(2, 0.004), charge(3, 0.002)]).to_dict("records")
    assert (row["day"], row["model"]) == ("2026-09-21", "gpt-5-mini")
    for name, value in {"calls": 3, "input_tokens": 3000, "cache_read_tokens": 0, "output_tokens": 300}.items():
        assert row[f"billed_{name}"] == row[f"recorded_{name}"] == value
    assert row["billed_usd"] == pytest.approx(0.006) == pytest.approx(row["recorded_usd"])
    assert row["missing_usd"] == pytest.approx(0)
    assert row["recorded_hours"] == pytest.approx(2)


def test_calls_that_were_not_recorded_and_models_that_were_not_billed(tmp_path: Path) -> None:
    calls = [call(0, **SMALL), call(1, **(SMALL | {"request_model": "other", "response_model": None}))]
    bills = [usage(1), charge(2, 0.01), usage(3, model="o3"), usage(4, time=DAY + DAY_NS, model="o3")]
    frame = beside(tmp_path, calls, bills).set_index(["day", "model"])
    assert frame.loc[("2026-09-21", "gpt-5-mini"), "missing_usd"] == pytest.approx(0.008)
    assert frame["recorded_calls"].fillna(0).to_dict() == {
        ("2026-09-21", "gpt-5-mini"): 1,
        ("2026-09-21", "o3"): 0,
        ("2026-09-21", "other"): 1,
        ("2026-09-22", "o3"): 0,
    }
    assert frame.loc[("2026-09-21", "other"), ["billed_calls", "billed_usd", "missing_usd"]].isna().all()


def test_an_export_not_told_apart_by_model_is_compared_as_a_whole(tmp_path: Path) -> None:
    calls = [call(0, **SMALL), call(1, **(SMALL | {"response_model": "o3"}))]
    frame = beside(tmp_path, calls, [charge(1, 0.005, model=None)]).set_index("model")
    assert frame.loc["all models", "recorded_usd"] == pytest.approx(0.004)
    assert frame.loc["all models", "missing_usd"] == pytest.approx(0.001)


def test_of_lines_about_the_same_the_latest_counts(tmp_path: Path) -> None:
    bills = [usage(1, requests=2, imported=5), usage(1, requests=3, imported=9), usage(1, requests=1, imported=1)]
    frame = beside(tmp_path, [call(**SMALL)], bills)
    assert frame["billed_calls"].tolist() == [3]


def test_a_price_nobody_knows_leaves_the_difference_open(tmp_path: Path) -> None:
    made = recording(
        tmp_path,
        calls=[call(provider="x", **(SMALL | {"response_model": "secret", "request_model": "secret"}))],
        bills=[charge(1, 1, model="secret")],
    )
    row = reconciliation(made).iloc[0]
    assert row["recorded_calls"] == 1
    assert pd.isna(row["recorded_usd"])
    assert pd.isna(row["missing_usd"])


def test_answers_from_a_cache_of_ours_are_out_and_trials_are_in(tmp_path: Path) -> None:
    traces = {"a": "a" * 32, "b": "b" * 32}
    calls = [
        call(0, 100, **SMALL),
        call(1000, 100, answered_by="cache", **SMALL),
        call(60_000, 100, arm="t1/A", trace_id=traces["a"], **SMALL),
        call(61_000, 100, arm="t1/B", trace_id=traces["b"], **SMALL),
    ]
    requests = [
        request(0, 500),
        request(60_000, 500, source="load", arm="t1/A", trace_id=traces["a"]),
        request(61_000, 500, source="load", arm="t1/B", trace_id=traces["b"]),
    ]
    frame = beside(tmp_path, calls, [usage(1)], requests=requests)
    assert frame["recorded_calls"].tolist() == [3]


def test_without_a_bill_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="perfnb import"):
        reconciliation(recording(tmp_path, calls=[call(**SMALL)]))


def test_a_bill_of_a_month_does_not_stretch_what_was_observed(tmp_path: Path) -> None:
    made: Recording = recording(tmp_path, calls=[call(0, 1000)], bills=[usage(1, time=DAY - 30 * DAY_NS)])
    assert made.window.seconds == pytest.approx(1)
