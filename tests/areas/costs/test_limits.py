from pathlib import Path
from typing import Any

import pytest
from builders import Row, call
from cost_calls import found, judged, of_model

from perfnb.errors import NotMeasured
from perfnb.finding import Finding


def said(*tokens: int, **columns: Any) -> list[Row]:
    return [call(n * 9000, 5000, **(of_model("mini", output_tokens=each) | columns)) for n, each in enumerate(tokens)]


LONG = (400, 900, 1500, 2200, 700, 500)


@pytest.mark.parametrize(
    ("calls", "is_found"),
    [
        (said(*LONG), True),
        (said(*LONG, max_tokens=4000), False),
        (said(*(500,) * 8), False),  # at the limit, not over it
        (said(*(80,) * 8, 2000), False),  # one rambler is no habit
        (said(*(80,) * 60, 620, 640, 660), False),  # not worth it
        (said(*LONG, reasoning_tokens=2000), False),  # thinking is not rambling
        (said(*LONG, source="span", temperature=0.2), True),  # a span that tells settings, and no cap among them
    ],
)
def test_no_output_limit(tmp_path: Path, calls: list[Row], is_found: bool) -> None:
    assert isinstance(judged(tmp_path, "no-output-limit", calls=calls), Finding) is is_found


def test_spans_that_tell_no_settings_prove_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="settings"):
        judged(tmp_path, "no-output-limit", calls=said(*LONG, source="span"))


def test_the_surplus_is_what_it_costs(tmp_path: Path) -> None:
    finding = found(tmp_path, "no-output-limit", calls=said(1000, 1000, 1000, input_tokens=0))
    assert finding.share == pytest.approx(0.5)


def test_long_answers_are_judged_by_tokens_where_nothing_has_a_price(tmp_path: Path) -> None:
    calls = said(*LONG, **of_model("unheard-of"))
    finding = found(tmp_path, "no-output-limit", calls=calls, prices=[])
    assert finding.usd_per_day is finding.usd_per_request is finding.estimate is None
    assert "no" in finding.evidence[-1]
    assert "price" in finding.evidence[-1]


UNTOLD = {"tokens_estimated": True, "usage_rule": "estimated"}
TOLD = {"tokens_estimated": False, "usage_rule": "inclusive"}


@pytest.mark.parametrize(
    ("calls", "is_found"),
    [
        (said(*(80,) * 10, **UNTOLD), True),
        (said(*(80,) * 10, **TOLD), False),
        (said(*(80,) * 4, **UNTOLD), False),
        (said(*(80,) * 8, **TOLD) + said(80, 80, **UNTOLD), False),
        (said(*(80,) * 16, **TOLD) + said(*(80,) * 5, **UNTOLD), True),
        (said(*(80,) * 25, **TOLD) + said(*(80,) * 5, **UNTOLD), False),
    ],
)
def test_no_usage_tracking(tmp_path: Path, calls: list[Row], is_found: bool) -> None:
    assert isinstance(judged(tmp_path, "no-usage-tracking", calls=calls), Finding) is is_found


def test_missing_usage_explains_no_dollars(tmp_path: Path) -> None:
    finding = found(tmp_path, "no-usage-tracking", calls=said(*(80,) * 10, **UNTOLD))
    assert (finding.share, finding.usd_per_day) == (0, None)


def test_missing_usage_may_be_the_doing_of_the_recording(tmp_path: Path) -> None:
    finding = found(tmp_path, "no-usage-tracking", calls=said(*(80,) * 10, **UNTOLD))
    assert any("base URL" in line for line in finding.evidence)
    assert len(set(finding.exemplars)) == len(finding.exemplars)


def test_spans_do_not_prove_that_usage_was_missing(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="answer itself"):
        judged(tmp_path, "no-usage-tracking", calls=said(*(80,) * 10, source="span", tokens_estimated=None))
