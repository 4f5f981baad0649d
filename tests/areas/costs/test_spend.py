from pathlib import Path
from typing import Any

import pytest
from builders import START, call, failed_call, recording, request, span

from perfnb.areas.costs import spend
from perfnb.errors import NotMeasured, WrongUse
from perfnb.recording import Recording

PRICES = [
    {"model": "gpt-5-mini", "input_usd_per_mtok": 1, "cache_read_usd_per_mtok": 0.1, "output_usd_per_mtok": 10},
    {"model": "large", "input_usd_per_mtok": 10, "output_usd_per_mtok": 100},
]
SMALL = {"input_tokens": 1000, "output_tokens": 100}  # 0.002
LARGE = SMALL | {"request_model": "large", "response_model": "large"}  # 0.02
UNKNOWN = SMALL | {"request_model": "secret", "response_model": "secret"}


def priced(folder: Path, **tables: Any) -> Recording:
    made = recording(folder, **tables)
    made.manifest["prices"] = PRICES
    return made


def traced(trace: str, at_ms: float, *, route: str = "/chat", **columns: Any) -> dict[str, Any]:
    return request(at_ms, 900, trace_id=trace, route=route, **columns)


@pytest.fixture
def made(tmp_path: Path) -> Recording:
    """Three requests: two of /chat (one of them failed) and one of /search; a call of no request; one without a price."""
    calls = [
        call(10, 100, trace_id="a", parent_span_id="a-answer", **SMALL),
        call(200, 100, trace_id="a", parent_span_id="a-http", **LARGE),
        failed_call(1010, trace_id="b", parent_span_id="b-answer"),
        call(1100, 100, trace_id="b", parent_span_id="b-answer", **SMALL),
        call(2010, 100, trace_id="c", **UNKNOWN),
        call(9000, 100, trace_id="alone", **SMALL),
    ]
    requests = [traced("a", 0), traced("b", 1000, status_code=500), traced("c", 2000, route="/search")]
    spans = [
        span("root", 0, 900, trace="a", attributes={"user.id": "ann", "session.id": "s1"}),
        span("answer", 5, 800, trace="a", parent="root"),
        span("rerank", 150, 200, trace="a", parent="root"),
        span("http", 190, 150, trace="a", parent="rerank", operation="http", kind="CLIENT"),
        span("root", 1000, 900, trace="b", attributes={"user.id": "bob"}),
        span("answer", 1005, 800, trace="b", parent="root"),
    ]
    return priced(tmp_path, calls=calls, requests=requests, spans=spans)


def test_by_model(made: Recording) -> None:
    frame = spend.spend_by_model(made).set_index("model")
    assert frame["cost_usd"].to_dict() == pytest.approx({"large": 0.02, "gpt-5-mini": 0.006, "secret": 0})
    assert list(frame.index) == ["large", "gpt-5-mini", "secret"]
    assert frame["calls"].to_dict() == {"large": 1, "gpt-5-mini": 4, "secret": 1}
    assert frame["failed_calls"].to_dict() == {"large": 0, "gpt-5-mini": 1, "secret": 0}
    assert frame.loc["secret", "unpriced_calls"] == 1
    assert frame["usd_per_call"].isna().to_dict() == {"large": False, "gpt-5-mini": False, "secret": True}
    assert frame["share"].sum() == pytest.approx(1)
    assert frame.loc["gpt-5-mini", "input_tokens"] == 3000


def test_by_route(made: Recording) -> None:
    frame = spend.spend_by_route(made).fillna({"route": "none"}).set_index("route")
    assert frame["cost_usd"].to_dict() == pytest.approx({"/chat": 0.024, "/search": 0, "none": 0.002})
    assert frame["requests"].to_dict() == {"/chat": 2, "/search": 1, "none": 0}
    assert frame.loc["/chat", "usd_per_request"] == pytest.approx(0.012)
    assert frame.loc["/search", "unpriced_calls"] == 1
    assert frame["cost_usd"].sum() == pytest.approx(spend.spent_usd(made))


def test_by_user_and_by_session(made: Recording) -> None:
    assert spend.attributes_seen(made) == ("user.id", "session.id")
    by_user = spend.spend_by_attribute(made).fillna({"value": "none"}).set_index("value")
    assert by_user["cost_usd"].to_dict() == pytest.approx({"ann": 0.022, "bob": 0.002, "none": 0.002})
    assert by_user["requests"].to_dict() == {"ann": 1, "bob": 1, "none": 1}
    by_session = spend.spend_by_attribute(made, "session.id").fillna({"value": "none"}).set_index("value")
    assert by_session["cost_usd"].to_dict() == pytest.approx({"s1": 0.022, "none": 0.004})


def test_by_conversation_where_only_the_calls_tell(tmp_path: Path) -> None:
    made = priced(
        tmp_path, calls=[call(0, conversation_id="x", **SMALL), call(1, conversation_id="x", **SMALL), call(2, **LARGE)]
    )
    assert spend.attributes_seen(made) == ("conversation",)
    frame = spend.spend_by_attribute(made).fillna({"value": "none"}).set_index("value")
    assert frame["cost_usd"].to_dict() == pytest.approx({"none": 0.02, "x": 0.004})


def test_nobody_tells_for_whom(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match=r"user\.id"):
        spend.spend_by_attribute(priced(tmp_path, calls=[call(**SMALL)]))


@pytest.mark.parametrize("name", ["x'); DROP TABLE llm_calls; --", 'user"id'])
def test_an_attributes_name_is_no_sql(made: Recording, name: str) -> None:
    with pytest.raises(WrongUse):
        spend.spend_by_attribute(made, name)


def test_by_stage_passes_over_clients_own_spans(made: Recording) -> None:
    frame = spend.spend_by_stage(made).set_index("stage")
    assert frame["cost_usd"].to_dict() == pytest.approx({"rerank": 0.02, "answer": 0.004, "chat": 0.002})
    assert frame["unpriced_calls"].to_dict() == {"rerank": 0, "answer": 0, "chat": 1}


def test_per_request_and_per_successful_one(made: Recording) -> None:
    row = spend.spend_per_request(made).iloc[0]
    assert (row["requests"], row["successful_requests"], row["calls"], row["unpriced_calls"]) == (3, 2, 6, 1)
    assert row["usd_per_request"] == pytest.approx(0.026 / 3)
    assert row["usd_per_successful_request"] == pytest.approx(0.013)
    assert row["failed_usd"] == pytest.approx(0.002)
    assert row["requestless_usd"] == pytest.approx(0.002)


def test_per_request_without_any(tmp_path: Path) -> None:
    row = spend.spend_per_request(priced(tmp_path, calls=[])).iloc[0]
    assert row["cost_usd"] == 0
    assert row[["usd_per_request", "usd_per_successful_request"]].isna().all()


def test_over_time(made: Recording) -> None:
    frame = spend.spend_over_time(made, 1)
    assert ((frame["time"] - START) / 1e9).tolist() == [0, 1, 2, 9]
    assert frame["cost_usd"].tolist() == pytest.approx([0.022, 0.002, 0, 0.002])
    assert frame["usd_per_hour"].iloc[0] == pytest.approx(0.022 * 3600)
    assert frame["total_usd"].iloc[-1] == pytest.approx(0.026)
    assert frame["unpriced_calls"].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("seconds", "step"), [(1, 1), (60, 1), (61, 5), (3600, 60), (86_400, 3600), (86_400 * 400, 86_400)]
)
def test_steps_of_time_grow_with_the_recording(tmp_path: Path, seconds: float, step: int) -> None:
    made = priced(tmp_path, calls=[call(0, **SMALL), call(seconds * 1000, **SMALL)])
    assert set(spend.spend_over_time(made)["seconds"]) == {step}


def test_over_time_needs_calls_and_a_step(tmp_path: Path, made: Recording) -> None:
    with pytest.raises(NotMeasured):
        spend.spend_over_time(priced(tmp_path / "empty", calls=[]))
    with pytest.raises(WrongUse):
        spend.spend_over_time(made, -1)


def test_the_providers_cache(tmp_path: Path) -> None:
    calls = [call(0, **(SMALL | {"cache_read_tokens": 800})), call(1, **SMALL), call(2, **LARGE)]
    ours = call(3, **(SMALL | {"answered_by": "cache"}))
    frame = spend.prompt_cache(priced(tmp_path, calls=[*calls, ours])).set_index("model")
    small = frame.loc["gpt-5-mini"]
    assert (small["calls"], small["calls_with_reads"], small["input_tokens"]) == (2, 1, 2000)
    assert small["read_share"] == pytest.approx(0.4)
    assert small["cache_read_usd"] == pytest.approx(0.00008)
    assert small["saved_usd"] == pytest.approx(800 * 0.9e-6)
    assert frame.loc["large", "read_share"] == 0


def test_sources_of_prices(made: Recording) -> None:
    frame = spend.price_sources(made).set_index("source")
    assert frame["calls"].to_dict() == {
        "prices the recording brought along: large": 1,
        "prices the recording brought along: gpt-5-mini": 3,
        "no price known": 1,
        "not billed": 1,
    }
    assert spend.price_version(made).startswith("genai-prices ")
    assert spend.price_version(made).endswith("after 2 prices given by hand")
