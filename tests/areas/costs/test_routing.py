from pathlib import Path
from typing import Any

import pytest
from builders import Row, call, embedding
from cost_calls import PRICES, found, judged, of_model

from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding


def tasks(count: int = 12, model: str = "grand", **columns: Any) -> list[Row]:
    return [call(n * 2000, **(of_model(model) | columns)) for n in range(count)]


@pytest.mark.parametrize(
    ("calls", "is_found"),
    [
        (tasks(), True),
        (tasks(model="mini"), False),
        (tasks(model="middling"), True),  # $3.50 per million, and one of a fifth of it is there
        (tasks(7), False),  # too few to judge
        (tasks(8), True),
        (tasks(tools_offered=3), False),
        (tasks(reasoning_tokens=400), False),
        (tasks(output_tokens=150), True),
        (tasks(output_tokens=151), False),
        (tasks(input_tokens=2001), False),
        (tasks(history_messages=12), False),
        (tasks(finish_reason="length"), False),
        (tasks(messages=[{"role": "user", "digest": "d", "tokens": 9, "sketch": [], "other_parts": 1}]), False),
        (tasks(source="span", tools_offered=None, history_messages=None, finish_reason=None), True),
        ([*tasks(), *tasks(40, output_tokens=3000)], False),  # simple tasks are hardly any of the dollars
    ],
)
def test_oversized_model(tmp_path: Path, calls: list[Row], is_found: bool) -> None:
    assert isinstance(judged(tmp_path, "oversized-model", calls=calls), Finding) is is_found


def test_the_saving_is_that_of_the_cheaper_model(tmp_path: Path) -> None:
    finding = found(tmp_path, "oversized-model", calls=tasks(10, input_tokens=1000, output_tokens=100))
    dear, cheap = (1000 * 5 + 100 * 25) / 1e6, (1000 * 0.4 + 100 * 1.6) / 1e6
    assert finding.share == pytest.approx(1 - cheap / dear)
    assert finding.usd_per_request == pytest.approx(dear - cheap)
    assert finding.usd_per_day == pytest.approx((dear - cheap) * 10 / 19 * 86_400)  # within 19 seconds
    assert finding.symptom == "cost"
    assert "mini" in finding.remedy
    assert "trial" in finding.remedy


def test_models_of_the_published_list_are_compared_with_their_own_kind(tmp_path: Path) -> None:
    finding = found(tmp_path, "oversized-model", calls=tasks(model="gpt-5"), prices=[])
    assert "gpt-5-mini" in finding.remedy


def test_a_model_without_a_price_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="price"):
        judged(tmp_path, "oversized-model", calls=tasks(model="unheard-of"), prices=[])


def texts(count: int = 10, model: str = "fine-vectors", **columns: Any) -> list[Row]:
    return [embedding(n * 1000, **(of_model(model, input_tokens=9000) | columns)) for n in range(count)]


@pytest.mark.parametrize(
    ("calls", "is_found"),
    [
        (texts(), True),
        (texts(model="vectors"), False),
        (texts(4), False),
        (texts(5), True),
        (texts(source="span"), True),
        ([*texts(input_tokens=12), *tasks(model="mini")], False),  # a thousandth of the bill is not worth it
        (tasks(model="mini"), False),
    ],
)
def test_costly_embedding_model(tmp_path: Path, calls: list[Row], is_found: bool) -> None:
    assert isinstance(judged(tmp_path, "costly-embedding-model", calls=calls), Finding) is is_found


def test_published_embedding_models_are_compared(tmp_path: Path) -> None:
    finding = found(tmp_path, "costly-embedding-model", calls=texts(model="text-embedding-3-large"), prices=[])
    assert finding.share == pytest.approx(1 - 0.02 / 0.13)
    assert "text-embedding-3-small" in finding.title


def test_embeddings_without_a_price_are_not_judged(tmp_path: Path) -> None:
    calls = [*texts(model="unheard-of"), *tasks(model="mini")]
    with pytest.raises(NotMeasured):
        judged(tmp_path, "costly-embedding-model", calls=calls, prices=PRICES[:3])


def test_without_embeddings_there_is_nothing_to_judge(tmp_path: Path) -> None:
    assert isinstance(judged(tmp_path, "costly-embedding-model", calls=tasks()), Clear)
