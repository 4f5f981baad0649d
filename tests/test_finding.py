import pytest

from perfnb.finding import Estimate, Finding


def finding(**fields: object) -> Finding:
    return Finding("Title", "low", 0.5, ("evidence",), "remedy", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("usd", "shown"), [(None, None), (0.0, 0.0), (0.000123456789, 0.000123457), (12.5, 12.5), (1234567.0, 1234570.0)]
)
def test_dollars_keep_six_digits_however_small(usd: float | None, shown: float | None) -> None:
    told = finding(usd_per_request=usd, usd_per_day=usd).as_dict()
    assert (told["usd_per_request"], told["usd_per_day"]) == (shown, shown)


def test_an_estimate_of_dollars_is_not_rounded_away() -> None:
    assert Estimate("request_usd", 0.00045678, 0.0001, 0.0002).as_dict() == {
        "metric": "request_usd", "before": 0.00045678, "low": 0.0001, "high": 0.0002,
    }  # fmt: skip
    assert Estimate("request_duration_ms", 1234.56789, 1, 2.0).as_dict()["before"] == 1234.568
