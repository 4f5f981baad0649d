"""Cheaper models of the same list: alike in name, of the same kind, with a price at the time of the call."""

from collections.abc import Callable

import pytest

from perfnb.prices import Prices, Rates
from perfnb.prices.siblings import Sibling, blended_usd_per_mtok, embedding_siblings, siblings

IN_2026 = 1_790_000_000_000_000_000
OWN = [
    {"model": "big", "input_usd_per_mtok": 4, "output_usd_per_mtok": 8},
    {"model": "small", "input_usd_per_mtok": 1, "output_usd_per_mtok": 2},
    {"model": "vectors", "input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0},
    {"model": "fine-vectors", "input_usd_per_mtok": 0.5, "output_usd_per_mtok": 0},
    {"model": "free", "input_usd_per_mtok": 0, "output_usd_per_mtok": 0},
    {"model": "elsewhere", "provider": "other", "input_usd_per_mtok": 0.2, "output_usd_per_mtok": 1},
]

Offer = Callable[..., tuple[Sibling, ...]]


def names(offer: Offer, model: str, provider: str | None, prices: Prices | None = None) -> list[str]:
    return [each.model for each in offer(prices or Prices(), provider, model, at_ns=IN_2026)]


@pytest.mark.parametrize(
    ("provider", "model", "first", "never"),
    [
        ("openai", "gpt-4o", "gpt-4o-mini", "audio"),
        ("openai", "gpt-5", "gpt-5-mini", "image"),
        ("anthropic", "claude-opus-4-5", "claude-haiku-4-5", "gpt"),
        ("azure", "gpt-4o", "gpt-4o-mini", "phi"),
        ("google", "gemini-2.5-pro", "gemini-2.5-flash", "embedding"),
    ],
)
def test_models_most_alike_in_name_come_first(provider: str, model: str, first: str, never: str) -> None:
    prices = Prices()
    limit = blended_usd_per_mtok(prices.rates(provider, model, at_ns=IN_2026)[0]) / 4
    cheaper = [
        each.model
        for each in siblings(prices, provider, model, at_ns=IN_2026)
        if blended_usd_per_mtok(each.rates) <= limit
    ]
    found = names(siblings, model, provider)
    assert cheaper[0] == first
    assert not [each for each in found if never in each]
    assert model not in found


def test_embedding_models_are_told_from_others() -> None:
    assert names(embedding_siblings, "text-embedding-3-large", "openai")[0] == "text-embedding-3-small"
    assert not [each for each in names(siblings, "gpt-5", "openai") if "embed" in each]


def test_a_model_nobody_knows_has_none() -> None:
    assert names(siblings, "unheard-of", "openai") == names(embedding_siblings, "unheard-of", None) == []


@pytest.mark.parametrize(
    ("offer", "model", "provider", "found"),
    [
        (siblings, "big", None, ["small"]),
        (siblings, "big", "other", ["elsewhere", "small"]),
        (embedding_siblings, "fine-vectors", None, ["vectors"]),
        (embedding_siblings, "vectors", None, ["fine-vectors"]),
    ],
)
def test_prices_by_hand_are_compared_among_themselves(
    offer: Offer, model: str, provider: str | None, found: list[str]
) -> None:
    assert sorted(names(offer, model, provider, Prices.load(recorded=OWN))) == found


def test_one_price_is_three_parts_input_and_one_part_output() -> None:
    assert blended_usd_per_mtok(Rates(1e-6, 1e-6, 1e-6, 5e-6)) == pytest.approx(2)
