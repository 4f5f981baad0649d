"""Cheaper models of the provider a call went to: what else the same price list offers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from perfnb.prices import listed
from perfnb.prices.prices import Prices
from perfnb.prices.rates import Rates

INPUT_PARTS = 3
"""Input tokens for each output token in the one price by which models are compared: an ordinary mix of chat calls."""

_OTHER_KINDS = re.compile(
    r"audio|realtime|batch|image|vision|tts|whisper|transcri|translat|search|embed|moderation|guard|codex|coder|code-|"
    r"computer-use|deep-research|instruct|davinci|babbage|^ada|curie|rerank|ocr|live|\bft\b|preview|exp\b"
)


@dataclass(frozen=True)
class Sibling:
    """A model of the same list and its standard rates for short prompts."""

    model: str
    rates: Rates


def blended_usd_per_mtok(rates: Rates) -> float:
    """Return one price for a model, in dollars per million tokens: three parts input, one part output."""
    return (INPUT_PARTS * rates.input_usd + rates.output_usd) / (INPUT_PARTS + 1) * 1e6


def siblings(prices: Prices, provider: str | None, model: str, *, at_ns: int) -> tuple[Sibling, ...]:
    """Return other models that answer in words, of the same list as ``model``, those most alike in name first.

    In the package's list, whose clouds sell models of many makers, only those that are alike in name at all.
    """
    offered = (
        Sibling(name, rates)
        for name, rates in _offered(prices, provider, model, at_ns)
        if not _OTHER_KINDS.search(name.lower()) and rates.input_usd > 0 and rates.output_usd > 0
    )
    by_hand = _entry_names(prices, provider, model)
    alike = (one for one in offered if by_hand or _alike(one.model, model))
    return tuple(sorted(alike, key=lambda one: (-_alike(one.model, model), -blended_usd_per_mtok(one.rates))))


def embedding_siblings(prices: Prices, provider: str | None, model: str, *, at_ns: int) -> tuple[Sibling, ...]:
    """Return other embedding models of the same list as ``model``, cheapest first.

    In a list that somebody wrote down they are those without a price for output.
    """
    by_hand = _entry_names(prices, provider, model)
    offered = (
        Sibling(name, rates)
        for name, rates in _offered(prices, provider, model, at_ns)
        if rates.input_usd > 0 and rates.output_usd == 0 and (by_hand or "embed" in name.lower())
    )
    return tuple(sorted(offered, key=lambda one: (one.rates.input_usd, -_alike(one.model, model))))


def _offered(prices: Prices, provider: str | None, model: str, at_ns: int) -> Iterator[tuple[str, Rates]]:
    names = _entry_names(prices, provider, model)
    known = model
    if not names:
        own, makers = listed.find(provider, model), listed.find(None, model)
        names = [each.id for found in (own, makers) if found for each in found.provider.models]
        known = own.model.id if own else model
    for name in dict.fromkeys(names):
        rates = prices.rates(provider, name, at_ns=at_ns) if name not in (model, known) else ()
        if rates:
            yield name, rates[0]


def _entry_names(prices: Prices, provider: str | None, model: str) -> list[str]:
    """Return the models priced by hand in the same place as ``model``; none where the list of the package prices it."""
    own = next((each for each in prices.entries if each.discount is None and each.fits(provider, model)), None)
    if own is None:
        return []
    return [
        each.model
        for each in prices.entries
        if each.origin == own.origin and each.discount is None and each.fits(provider, each.model)
    ]


def _alike(one: str, other: str) -> int:
    """Return how many parts (``gpt``, ``6``, ``sol`` …) two names begin with in common."""
    parts = (re.split(r"[-_/:.]", name.lower()) for name in (one, other))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*parts, strict=False)))
