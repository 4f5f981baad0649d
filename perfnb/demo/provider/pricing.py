"""What the simulated provider charges: its published price list, and the price of one call by its own rules."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any


@cache
def price_list() -> tuple[Mapping[str, Any], ...]:
    """Return the published list: entries of ``prices.toml``, dollars per million tokens by model."""
    text = resources.files("perfnb.demo.provider").joinpath("prices.toml").read_text()
    return tuple(tomllib.loads(text)["price"])


@cache
def _by_model() -> Mapping[str, Mapping[str, Any]]:
    return {entry["model"]: entry for entry in price_list()}


def dollars(model: str, *, input_tokens: int, cached_tokens: int, output_tokens: int) -> float:
    """Return what a call costs; cached tokens are part of the input. A model that is not listed costs nothing."""
    entry = _by_model().get(model)
    if entry is None:
        return 0.0
    cached_price = entry.get("cache_read_usd_per_mtok", entry["input_usd_per_mtok"])
    return (
        float(
            (input_tokens - cached_tokens) * entry["input_usd_per_mtok"]
            + cached_tokens * cached_price
            + output_tokens * entry["output_usd_per_mtok"]
        )
        / 1e6
    )
