"""Prices somebody wrote down: ``[[price]]`` in ``perfnb.toml``, and ``prices`` in a recording's manifest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from perfnb.errors import WrongUse
from perfnb.prices.listed import STANDARD_TIERS
from perfnb.prices.names import provider_name
from perfnb.prices.rates import Rates

_NEEDED = ("input_usd_per_mtok", "output_usd_per_mtok")
_PARTS = ("batch_discount", "discount")
_NUMBERS = (*_NEEDED, "cache_read_usd_per_mtok", "cache_write_usd_per_mtok", "request_usd", *_PARTS)
_HINT = "give model, input_usd_per_mtok and output_usd_per_mtok (0 for embeddings), or model and discount = 0.15"


@dataclass(frozen=True)
class Entry:
    """The price of models of one name, or the part taken off the list price of such models."""

    model: str
    origin: str
    provider: str | None = None
    numbers: tuple[tuple[str, float], ...] = ()

    @property
    def discount(self) -> float | None:
        """Return the part (0 to 1) taken off the list price, where the entry gives no price of its own."""
        return dict(self.numbers).get("discount")

    def fits(self, provider: str | None, model: str) -> bool:
        """Tell whether the entry is for ``model``, named in full or by a glob, at ``provider``."""
        if self.provider is not None and provider_name(self.provider) not in (provider_name(provider), provider):
            return False
        return fnmatchcase(model.lower(), self.model.lower())

    def rates(self, tier: str | None) -> Rates:
        """Return the rates of an entry that gives prices; the batch tier is cheaper by ``batch_discount``."""
        given = dict(self.numbers)
        plain = given["input_usd_per_mtok"] / 1e6
        rates = Rates(
            plain,
            given.get("cache_read_usd_per_mtok", plain * 1e6) / 1e6,
            given.get("cache_write_usd_per_mtok", plain * 1e6) / 1e6,
            given["output_usd_per_mtok"] / 1e6,
            given.get("request_usd", 0.0),
            source=f"{self.origin}: {self.model}",
        )
        wanted = (tier or "").lower()
        if wanted in STANDARD_TIERS:
            return rates
        off = given.get("batch_discount", 0.0) if wanted == "batch" else 0.0
        return rates.times(1 - off, f"{wanted} tier: " + (f"{off:.0%} off" if off else "standard price"))


def read_entries(given: Sequence[Any], origin: str) -> tuple[Entry, ...]:
    """Return the entries in ``given``; raises WrongUse for one that makes no sense."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise WrongUse(f"{origin}: price is no list", hint="write [[price]], with two brackets")
    return tuple(_entry(each, origin) for each in given)


def _entry(given: Any, origin: str) -> Entry:
    if not isinstance(given, Mapping) or not isinstance(given.get("model"), str) or not given["model"]:
        raise WrongUse(f"{origin}: a price names no model", hint=_HINT)
    model = given["model"]
    if unknown := given.keys() - {"model", "provider", *_NUMBERS}:
        raise WrongUse(f"{origin}: the price of {model} has no setting {min(unknown)!r}", hint=_HINT)
    numbers = tuple((name, _number(name, given[name], model, origin)) for name in _NUMBERS if name in given)
    named = {name for name, _ in numbers}
    if not (named == {"discount"} or (named.issuperset(_NEEDED) and "discount" not in named)):
        raise WrongUse(f"{origin}: the price of {model} is neither complete nor a discount alone", hint=_HINT)
    provider = given.get("provider")
    return Entry(model, origin, str(provider) if provider else None, numbers)


def _number(name: str, value: Any, model: str, origin: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    highest = 1.0 if name in _PARTS else math.inf
    if not is_number or not 0 <= value <= highest:
        wanted = "between 0 and 1" if name in _PARTS else "of 0 or more"
        raise WrongUse(f"{origin}: {name} of {model} is {value!r}", hint=f"write a number {wanted}")
    return float(value)
