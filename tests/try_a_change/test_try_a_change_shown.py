import pytest

from perfnb.estimates import Prediction
from perfnb.finding import Estimate
from perfnb.try_a_change.shown import headline, prediction_piece, row


def effect(
    metric: str = "request_duration_ms", before: float = 2000, low: float = 1000, high: float = 1500
) -> Estimate:
    return Estimate(metric, before, low, high)


@pytest.mark.parametrize(
    ("estimate", "before", "after", "change"),
    [
        (effect(), "2 s", "1 s to 1.5 s", "−50\u00a0% to −25\u00a0%"),
        (effect(low=2000, high=2000), "2 s", "2 s", "none"),
        (effect("request_usd", 0.002, 0.001, 0.001), "$0.002", "$0.001", "−50\u00a0%"),
        (effect("hit_rate", 0, 0.2, 0.4), "0 %", "20 % to 40 %", "–"),
        (effect(low=1500, high=1000), "2 s", "1 s to 1.5 s", "−50\u00a0% to −25\u00a0%"),
    ],
)
def test_an_effect_is_a_line(estimate: Estimate, before: str, after: str, change: str) -> None:
    told = row(estimate)
    assert (told["before"], told["after"], told["change"]) == (before, after, change)


@pytest.mark.parametrize(
    ("effects", "said"),
    [
        ((effect(low=1900, high=2000), effect("input_tokens", 1000, 100, 200)), "input tokens, mean −90\u00a0% to −80\u00a0%"),
        ((effect("hit_rate", 0, 0.5, 0.5),), "no effect that can be estimated"),
        ((), "no effect that can be estimated"),
    ],
)  # fmt: skip
def test_the_largest_effect_is_the_headline(effects: tuple[Estimate, ...], said: str) -> None:
    assert headline(Prediction(effects, "12 requests")) == said


def test_what_an_estimate_assumes_and_leaves_out_is_told_and_escaped() -> None:
    prediction = Prediction(
        (effect(),), "12 requests of <b>", ("the cache is warm",), ("quality",), setting={"ttl_s": 60}
    )
    piece = prediction_piece("Keep answers", prediction)
    assert "the cache is warm" in piece.html
    assert "Not modelled: quality" in piece.html
    assert "ttl s 60" in piece.html
    assert "12 requests of &lt;b&gt;" in piece.html
    assert "time to the last byte, median: 2 s → 1 s to 1.5 s" in piece.text
