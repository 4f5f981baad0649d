from pathlib import Path
from typing import Any

import pytest
from builders import Row, call, request, span
from cost_calls import PRICES, found, judged, of_model

from perfnb.errors import NotMeasured
from perfnb.finding import Finding

USERS = [request(n * 3000, 1000) for n in range(20)]
ANSWERS = [call(n * 3000 + 100, 800, **of_model("mini")) for n in range(20)]


def loop(count: int = 40, gap_ms: float = 10, **columns: Any) -> list[Row]:
    """Return calls that follow one another, across requests and pauses alike."""
    given = of_model("mini", tools_offered=1, input_tokens=2000) | columns
    return [call(n * (1200 + gap_ms), 1200, **given) for n in range(count)]


@pytest.mark.parametrize(
    ("calls", "is_found"),
    [
        (ANSWERS + loop(), True),
        (ANSWERS, False),
        (ANSWERS + loop(14), False),
        (ANSWERS + loop(15), True),
        (ANSWERS + loop(service_tier="batch"), False),
        (ANSWERS + loop(gap_ms=900), False),  # now and then: something else asks for them
        (ANSWERS + loop(input_tokens=5, output_tokens=2), False),  # not worth it
    ],
)
def test_bulk_at_full_price(tmp_path: Path, calls: list[Row], is_found: bool) -> None:
    assert isinstance(judged(tmp_path, "bulk-at-full-price", calls=calls, requests=USERS), Finding) is is_found


def test_an_agents_rounds_follow_one_another_and_a_user_waits(tmp_path: Path) -> None:
    calls = [call(n * 9000 + turn * 1010, 1000, **of_model("mini")) for n in range(8) for turn in range(4)]
    requests = [request(n * 9000, 4200) for n in range(8)]
    assert not isinstance(judged(tmp_path, "bulk-at-full-price", calls=calls, requests=requests), Finding)


@pytest.mark.parametrize(("left_over", "is_found"), [(2, False), (5, True)])
def test_calls_a_probe_left_over_are_no_bulk(tmp_path: Path, left_over: int, is_found: bool) -> None:
    """A probe asks one thing after another, so all calls follow one another; a request cut short leaves some behind."""
    probed = [request(n * 2000, 1900, source="probe") for n in range(18)]
    calls = [call(n * 2000 + 10, 1800, **of_model("mini")) for n in range(18 + left_over)]
    assert isinstance(judged(tmp_path, "bulk-at-full-price", calls=calls, requests=probed), Finding) is is_found


def test_what_a_probe_warms_up_with_is_no_bulk(tmp_path: Path) -> None:
    first = request(0, 19_000, source="probe", phase="warm-up")
    probed = [request(20_000 + n * 2000, 1900, source="probe") for n in range(10)]
    calls = [call(n * 2000 + 10, 1800, **of_model("mini")) for n in range(20)]
    assert not isinstance(judged(tmp_path, "bulk-at-full-price", calls=calls, requests=[first, *probed]), Finding)


def test_a_trace_without_a_request_has_nobody_waiting(tmp_path: Path) -> None:
    """Users ask all the time, so that every call of the loop lies within somebody's request."""
    requests = [request(n * 400, 4000, trace_id=f"user{n}", source="span") for n in range(100)]
    answers = [call(n * 400 + 50, 3000, trace_id=f"user{n}", **of_model("mini")) for n in range(100)]
    spans = [span("job", n * 1210, 1200, trace=f"job{n}") for n in range(30)]
    jobs = [row | {"trace_id": f"job{n}"} for n, row in enumerate(loop(30, input_tokens=9000))]
    finding = found(tmp_path, "bulk-at-full-price", calls=answers + jobs, requests=requests, spans=spans)
    assert finding.title.startswith("30 calls")


@pytest.mark.parametrize(("discount", "off"), [({}, 0.5), ({"batch_discount": 0.25}, 0.25)])
def test_the_batch_price_is_that_of_the_list(tmp_path: Path, discount: dict[str, float], off: float) -> None:
    calls = ANSWERS + loop()
    finding = found(tmp_path, "bulk-at-full-price", calls=calls, requests=USERS, prices=[PRICES[0] | discount])
    loops = 40 * (2000 * 0.4 + 80 * 1.6)
    assert finding.share == pytest.approx(off * loops / (loops + 20 * (700 * 0.4 + 80 * 1.6)))


def test_without_prices_the_tokens_are_told(tmp_path: Path) -> None:
    calls = [row | of_model("unheard-of") for row in ANSWERS + loop()]
    finding = found(tmp_path, "bulk-at-full-price", calls=calls, requests=USERS, prices=[])
    assert finding.usd_per_day is None


def test_without_requests_nobody_knows_who_waits(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="waits"):
        judged(tmp_path, "bulk-at-full-price", calls=loop())
