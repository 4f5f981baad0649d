import random

import pytest

from perfnb.demo.provider.latency import SPEEDS, model_class, reasoning_tokens, timing, token_count


class Even(random.Random):
    """Dice without spread, so that the documented formula can be read off."""

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        return 0.0

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("sim-small", "small"),
        ("gpt-4o-mini", "small"),
        ("sim-balanced", "balanced"),
        ("something-new", "balanced"),
        ("sim-large", "large"),
        ("sim-reasoning", "reasoning"),
        ("sim-embedding", "embedding"),
        ("sim-embedding-large", "large embedding"),
    ],
)
def test_a_models_class_is_told_by_its_name(model: str, kind: str) -> None:
    assert model_class(model) == kind


@pytest.mark.parametrize(
    ("model", "tokens", "reasoning", "factor", "scale", "first_ms", "per_token_ms"),
    [
        ("sim-balanced", 700, 0, 1, 1, 150, 6),
        ("sim-balanced", 700, 0, 5, 1, 750, 30),
        ("sim-balanced", 700, 0, 1, 10, 15, 0.6),
        ("sim-balanced", 10_000, 0, 1, 1, 1080, 6),
        ("sim-small", 0, 0, 1, 1, 50, 3),
        ("sim-large", 400, 0, 1, 1, 450, 90),
        ("sim-reasoning", 500, 100, 1, 1, 780, 6),
        ("sim-embedding", 50, 0, 1, 1, 13, 0),
    ],
)
def test_time_grows_as_documented(
    model: str, tokens: int, reasoning: int, factor: float, scale: float, first_ms: float, per_token_ms: float
) -> None:
    found = timing(model, tokens, reasoning=reasoning, factor=factor, time_scale=scale, rng=Even())
    assert found.first_ms == pytest.approx(first_ms)
    assert found.per_token_ms == pytest.approx(per_token_ms)
    assert found.total_ms(11) == pytest.approx(first_ms + 10 * per_token_ms)


def test_jitter_is_mild_and_repeats_with_the_seed() -> None:
    found = [timing("sim-balanced", 700, rng=random.Random(seed)).first_ms for seed in range(300)]
    again = [timing("sim-balanced", 700, rng=random.Random(seed)).first_ms for seed in range(300)]
    assert found == again
    assert 100 < min(found) < 150 < max(found) < 200


@pytest.mark.parametrize(("effort", "spent"), [("minimal", 0), ("low", 100), ("medium", 250), ("high", 450)])
def test_reasoning_follows_effort(effort: str, spent: int) -> None:
    assert reasoning_tokens("sim-reasoning", effort, Even()) == spent
    assert reasoning_tokens("sim-balanced", effort, Even()) == 0


def test_every_class_has_a_model_that_belongs_to_it() -> None:
    names = {"large embedding": "embedding-large"}
    assert {model_class(names.get(kind, kind)) for kind in SPEEDS} == set(SPEEDS)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("abcd", 1), ("abcde", 2)])
def test_four_characters_are_a_token(text: str, tokens: int) -> None:
    assert token_count(text) == tokens
