"""Each call once, with its dollars: figures worked out by hand from a price list of the recording's own."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import MS, START, call, embedding, failed_call, recording, request, span

from perfnb.attribution.money import (
    PARTS,
    per_day_usd,
    per_request_usd,
    priced_calls,
    projection,
    share_of_spend,
    spent_usd,
    unpriced,
)
from perfnb.errors import NotMeasured
from perfnb.prices import Prices
from perfnb.recording import Recording

PRICES = [
    {
        "model": "gpt-5-mini",
        "input_usd_per_mtok": 1.0,
        "cache_read_usd_per_mtok": 0.1,
        "cache_write_usd_per_mtok": 1.25,
        "output_usd_per_mtok": 10.0,
        "batch_discount": 0.5,
    },
    {"model": "house", "input_usd_per_mtok": 0, "output_usd_per_mtok": 0},
    {"model": "text-embedding-3-small", "input_usd_per_mtok": 0.02, "output_usd_per_mtok": 0},
]
NO_COUNTS = {"input_tokens": None, "output_tokens": None}
CALL = {"input_tokens": 1000, "cache_read_tokens": 0, "output_tokens": 100}  # 0.001 and 0.001


def priced(folder: Path, *calls: dict[str, Any], **tables: Any) -> Recording:
    made = recording(folder, calls=calls, **tables)
    made.manifest["prices"] = PRICES
    return made


def row(made: Recording) -> pd.Series:
    frame = priced_calls(made)
    assert len(frame) == 1
    return frame.iloc[0]


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        ({}, (0.001, 0, 0, 0.001)),
        ({"cache_read_tokens": 400}, (0.0006, 0.00004, 0, 0.001)),
        ({"cache_read_tokens": 400, "cache_write_tokens": 200}, (0.0004, 0.00004, 0.00025, 0.001)),
        ({"reasoning_tokens": 90}, (0.001, 0, 0, 0.001)),
        ({"service_tier": "batch"}, (0.0005, 0, 0, 0.0005)),
        ({"service_tier": "default"}, (0.001, 0, 0, 0.001)),
        ({"cache_read_tokens": None, "reasoning_tokens": None}, (0.001, 0, 0, 0.001)),
        ({"output_tokens": None}, (0.001, 0, 0, 0)),
        ({"input_tokens": 0, "output_tokens": 0}, (0, 0, 0, 0)),
        ({"cache_read_tokens": 5000}, (0, 0.0005, 0, 0.001)),
        ({"tokens_estimated": True}, (0.001, 0, 0, 0.001)),
        ({"response_model": "renamed", "provider": None}, (0.001, 0, 0, 0.001)),
        ({"response_model": None}, (0.001, 0, 0, 0.001)),
    ],
)
def test_parts_of_a_call(tmp_path: Path, columns: dict[str, Any], parts: tuple[float, ...]) -> None:
    found = row(priced(tmp_path, call(**(CALL | columns))))
    assert tuple(found[list(PARTS)]) == pytest.approx((*parts, 0))
    assert found["cost_usd"] == pytest.approx(sum(parts))
    assert found["price_source"].startswith("prices the recording brought along: gpt-5-mini")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (failed_call(0), "not billed"),
        (failed_call(0, status=500), "not billed"),
        (call(**(CALL | {"answered_by": "cache"})), "answered by a cache"),
        (call(operation="models", input_tokens=None, output_tokens=None), "not billed"),
        (call(operation="moderation", input_tokens=None, output_tokens=None), "not billed"),
        (call(**NO_COUNTS, request_model="house", response_model="house"), "not billed"),
    ],
)
def test_what_nobody_bills_is_free(tmp_path: Path, made: dict[str, Any], reason: str) -> None:
    found = row(priced(tmp_path, made))
    assert found["cost_usd"] == 0
    assert found["price_source"] == reason
    assert unpriced(priced(tmp_path / "again", made)).empty


def test_a_call_that_broke_off_is_paid_for_what_came(tmp_path: Path) -> None:
    broken = call(**(CALL | {"error_type": "disconnected", "status_code": 200, "tokens_estimated": True}))
    assert row(priced(tmp_path, broken))["cost_usd"] == pytest.approx(0.002)


def test_what_has_no_price_is_listed_and_never_zero(tmp_path: Path) -> None:
    unknown = {"request_model": "secret-8b", "response_model": "secret-8b", "provider": "gpu.internal"}
    made = priced(
        tmp_path,
        call(0, **CALL),
        call(1, **(CALL | unknown)),
        call(2, **(CALL | unknown)),
        call(3, input_tokens=None, output_tokens=None),
    )
    frame = priced_calls(made)
    assert frame["cost_usd"].isna().tolist() == [False, True, True, True]
    assert frame.loc[1:, list(PARTS)].isna().all().all()
    listed = unpriced(made)
    assert listed.to_dict("records") == [
        {"provider": "gpu.internal", "model": "secret-8b", "calls": 2, "tokens": 2200, "reason": "no price known"},
        {"provider": "openai", "model": "gpt-5-mini", "calls": 1, "tokens": 0, "reason": "no token counts"},
    ]
    assert spent_usd(made) == pytest.approx(0.002)


def test_a_call_seen_by_proxy_and_span_counts_once(tmp_path: Path) -> None:
    ids = {"trace_id": "t", "parent_span_id": "t-chat"}
    made = priced(
        tmp_path,
        call(10, 900, **(CALL | ids)),
        call(5, 950, **(CALL | {"source": "span", "trace_id": "t", "span_id": "t-chat", "parent_span_id": "t-root"})),
        spans=[span("root", 0, 1000, trace="t"), span("chat", 5, 950, trace="t", parent="root", operation="chat")],
        requests=[request(0, 1000, trace_id="t")],
    )
    assert spent_usd(made) == pytest.approx(0.002)


def test_one_hour_cache_entries_cost_what_the_list_says(tmp_path: Path) -> None:
    usage = {"usage": {"cache_creation": {"ephemeral_1h_input_tokens": 4000, "ephemeral_5m_input_tokens": 5000}}}
    claude = {"provider": "anthropic", "request_model": "claude-sonnet-4-5", "response_model": "claude-sonnet-4-5"}
    tokens = {"input_tokens": 10_000, "cache_write_tokens": 9000, "output_tokens": 0}
    made = recording(tmp_path, calls=[call(**(claude | tokens | {"attributes": usage}))])
    assert row(made)["cache_write_usd"] == pytest.approx((5000 * 3.75 + 4000 * 6) / 1e6)


@pytest.mark.parametrize(
    "attributes", [{}, {"usage": "none"}, {"usage": {"cache_creation": {"ephemeral_1h_input_tokens": "x"}}}]
)
def test_usage_objects_of_any_shape_are_borne(tmp_path: Path, attributes: dict[str, Any]) -> None:
    made = priced(tmp_path, call(**(CALL | {"cache_write_tokens": 100, "attributes": attributes})))
    assert row(made)["cost_usd"] == pytest.approx(0.0009 + 0.000125 + 0.001)


def test_a_call_is_priced_at_its_own_time(tmp_path: Path) -> None:
    night, day = 1_763_596_800_000, 1_763_629_200_000  # 2025-11-20, 00:00 and 09:00 UTC
    shifted = {"provider": "deepseek", "request_model": "deepseek-flash", "response_model": "deepseek-flash"}
    year = 365 * 86_400_000
    calls = [call(**(CALL | shifted | {"start_time": (at + year) * MS})) for at in (night, day)]
    made = recording(tmp_path, calls=calls)
    expected = [
        Prices().rates("deepseek", "deepseek-flash", at_ns=each["start_time"])[0].input_usd * 1000 for each in calls
    ]
    assert sorted(priced_calls(made)["input_usd"]) == pytest.approx(sorted(expected))
    assert expected[0] != expected[1]


def test_what_the_cache_saved_is_less_what_writing_it_cost_more(tmp_path: Path) -> None:
    found = row(priced(tmp_path, call(**(CALL | {"cache_read_tokens": 400, "cache_write_tokens": 200}))))
    assert found["cache_saved_usd"] == pytest.approx(400e-6 * 0.9 - 200e-6 * 0.25)


def test_other_prices_are_used_when_they_are_given_and_forgotten_after(tmp_path: Path) -> None:
    made = priced(tmp_path, call(**CALL))
    dear = Prices.load(tmp_path, [{"model": "*", "input_usd_per_mtok": 100, "output_usd_per_mtok": 0}])
    assert [spent_usd(made), spent_usd(made, dear), spent_usd(made)] == pytest.approx([0.002, 0.1, 0.002])


def test_new_rows_are_priced_too(tmp_path: Path) -> None:
    made = priced(tmp_path, call(**CALL))
    assert spent_usd(made) == pytest.approx(0.002)
    with made.writer() as writer:
        writer.write("llm_calls", [call(5000, **CALL)])
    assert spent_usd(made) == pytest.approx(0.004)


def test_what_dollars_come_to_per_request_per_day_and_as_a_share(tmp_path: Path) -> None:
    calls = [call(at, 100, **CALL) for at in range(0, 60_000, 6000)]
    requests = [request(at, 200) for at in range(0, 60_000, 6000)]
    last = request(59_900, 100)  # one minute in all
    made = priced(tmp_path, *calls, requests=[*requests, last])
    assert spent_usd(made) == pytest.approx(0.02)
    assert per_request_usd(made, 0.011) == pytest.approx(0.001)
    assert per_day_usd(made, 0.01) == pytest.approx(0.01 * 1440)
    assert share_of_spend(made, 0.005) == pytest.approx(0.25)
    assert share_of_spend(made, 5) == 1
    ahead = projection(made)
    assert ahead.usd_per_day == pytest.approx(0.02 * 1440)
    assert ahead.usd_per_month == pytest.approx(0.02 * 1440 * 30)
    assert ahead.assumption == "as in the 60 seconds recorded (11 requests), day and night, 30 days a month"


def test_a_probes_requests_are_named_as_such(tmp_path: Path) -> None:
    made = priced(tmp_path, call(100, 100, **CALL), requests=[request(0, 1000, source="probe")])
    assert projection(made).assumption.endswith("1 of the requests were sent by perfnb's probe, not by users")


def test_an_empty_recording_costs_nothing_and_projects_nothing(tmp_path: Path) -> None:
    made = recording(tmp_path, calls=[])
    assert priced_calls(made).empty
    assert unpriced(made).empty
    assert spent_usd(made) == 0
    assert share_of_spend(made, 1) == 0
    assert per_request_usd(made, 1) is None
    assert per_day_usd(made, 1) is None
    with pytest.raises(NotMeasured):
        projection(made)


def test_embeddings_cost_their_input(tmp_path: Path) -> None:
    assert row(priced(tmp_path, embedding(input_tokens=1_000_000)))["cost_usd"] == pytest.approx(0.02)


def test_times_stand_as_recorded(tmp_path: Path) -> None:
    assert row(priced(tmp_path, call(7, **CALL)))["start_time"] == START + 7 * MS
