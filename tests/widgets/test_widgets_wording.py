"""Numbers read as people say them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.widgets import wording


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (0, "0.00 ms"), (0.25, "0.25 ms"), (1, "1 ms"), (999.4, "999 ms"), (999.6, "1 s"), (1900, "1.9 s"), (5000, "5 s"),
        (59_960, "60 s"), (119_400, "119.4 s"), (120_000, "2 min"), (7_200_000, "2 h"), (9_000_000, "2.5 h"), (-1900, "-1.9 s"),
    ],
)  # fmt: skip
def test_durations(milliseconds, said):
    assert wording.duration(milliseconds) == said


@pytest.mark.parametrize(
    ("share", "said"), [(0, "0 %"), (0.004, "under 1 %"), (0.005, "0 %"), (0.41, "41 %"), (1, "100 %")]
)
def test_percentages(share, said):
    assert wording.percent(share) == said


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (None, "ms", "–"), (float("nan"), "ms", "–"), (1500.0, "ms", "1.5 s"), (2048, "bytes", "2.0 KiB"), (10, "bytes", "10 B"),
        (0.0042, "usd", "$0.0042"), (12.5, "usd", "$12.50"), (0.8, "ratio", "80 %"), (20, "tokens/s", "20 tokens/s"),
        (1234567, "", "1,234,567"), (0.123456, "", "0.123"), (12, "%", "12 %"), (3, "seconds", "3 s"),
    ],
)  # fmt: skip
def test_quantities(value, unit, said):
    assert wording.quantity(value, unit) == said


@given(st.floats(min_value=0, max_value=1e9))
def test_a_duration_always_has_a_unit_and_never_loses_its_size(milliseconds):
    number, unit = wording.duration(milliseconds).split(" ")
    factor = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000}[unit]
    assert abs(float(number) * factor - milliseconds) <= max(0.01, 0.3 * milliseconds)


def test_lists_and_counts():
    assert wording.listed(["a"]) == "a"
    assert wording.listed(["a", "b", "c"]) == "a, b and c"
    assert wording.counted(1, "request") == "1 request"
    assert wording.counted(2000, "directory", "directories") == "2,000 directories"


@pytest.mark.parametrize(
    ("usd", "said"),
    [
        (0, "$0"), (0.0004, "$0.0004"), (0.000421, "$0.000421"), (0.00000004, "$0.00000004"), (1e-12, "under $0.0000000001"),
        (0.5, "$0.50"), (0.1234, "$0.123"), (0.99949, "$0.999"), (0.9996, "$1.00"), (12.345, "$12.35"), (999.4, "$999.40"),
        (999.6, "$1,000"), (240_893.9, "$240,894"), (-0.0042, "-$0.0042"),
    ],
)  # fmt: skip
def test_dollars_are_sensible_small_and_large(usd, said):
    assert wording.dollars(usd) == said


@pytest.mark.parametrize(
    ("usd", "said"), [(240_893.9, "$241,000"), (8029.8, "$8,030"), (0.0271147, "$0.0271"), (0, "$0")]
)
def test_dollars_reckoned_ahead_feign_no_knowledge(usd, said):
    assert wording.about_dollars(usd) == said


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_dollars_never_lose_their_size(usd):
    assert abs(float(wording.dollars(usd)[1:].replace(",", "")) - usd) <= 0.006 * usd
