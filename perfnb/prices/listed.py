"""The list of genai-prices: which of its models a call used, and that model's rates at a time and in a tier.

Source: genai-prices 0.2.3 (types.py: conditional prices, variants, tiers); tests keep its own calculation as the peer
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import Any

from perfnb.prices import names
from perfnb.prices.rates import Rates

STANDARD_TIERS = ("", "default", "auto", "standard", "standard_only", "on_demand", "unspecified", "scale")
"""Tiers billed at the standard price per token; what scale buys (capacity by the day) is not in the tokens' price."""

DOCUMENTED_DISCOUNTS = {
    ("openai", "batch"): 0.5,  # platform.openai.com/docs/guides/batch
    ("openai", "flex"): 0.5,  # platform.openai.com/docs/guides/flex-processing: billed at batch rates
    ("azure", "batch"): 0.5,  # learn.microsoft.com/azure/ai-services/openai/how-to/batch
    ("anthropic", "batch"): 0.5,  # docs of the Message Batches API
    ("google", "batch"): 0.5,  # ai.google.dev/gemini-api/docs/batch-api
    ("aws", "batch"): 0.5,  # aws.amazon.com/bedrock/pricing
    ("mistral", "batch"): 0.5,  # docs.mistral.ai, batch inference
    ("groq", "batch"): 0.5,  # console.groq.com/docs/batch
}
"""Part that a tier takes off the standard price where the list has no price for it, by provider."""

_DATED = re.compile(r"(?:checked|as of|verified)(?: on)? (20\d\d-\d\d-\d\d)")


@dataclass(frozen=True)
class Listed:
    """A model of the list, and what was assumed to find it there."""

    provider: Any
    model: Any
    note: str = ""


@cache
def version() -> str:
    """Return the package's version, and the newest date on which its list says that a price was looked up."""
    comments = (
        comment or ""
        for provider in _snapshot().providers
        for comment in (provider.price_comments, *(model.price_comments for model in provider.models))
    )
    dates = sorted(date for comment in comments for date in _DATED.findall(comment))
    dated = f" (prices as of {dates[-1]} or later)" if dates else ""
    return f"genai-prices {_package_version()}{dated}"


@cache
def find(provider: str | None, model: str) -> Listed | None:
    """Return the list's model for a call as it was recorded, or None where the list has none.

    The provider that was named comes first; where that is no provider of the list, or one that passes on others'
    models, a router's prefix and then the maker of the model decide.
    """
    named = _provider(provider)
    if named is not None and (found := _in(named, model)):
        return Listed(named, found)
    if (named is not None and named.id not in names.SPEAKS_FOR_OTHERS) or names.is_local(model):
        return None
    for other, spelled in _elsewhere(model):
        if found := _in(other, spelled):
            where = provider or "no provider named"
            return Listed(other, found, f" (price of {other.name}; {where} has none in the list)")
    return None


def rates(found: Listed, at: datetime, tier: str | None) -> tuple[Rates, ...]:
    """Return the rates of ``found`` at ``at``, a row a band of input tokens; empty where it is not paid by token."""
    wanted = (tier or "").lower()
    context = {} if wanted in STANDARD_TIERS else _context(wanted)
    is_own = any(each is found.model for each in found.provider.models)  # else another's, of which tiers say nothing
    in_list = is_own and any(_applies(variant, context, at) for variant in found.model.price_variants or ())
    prices = found.model.get_prices(at, context if context and in_list else None)
    source = f"genai-prices {_package_version()}: {found.provider.id} {found.model.id}{found.note}"
    bands = tuple(_band(prices, start, source) for start in _starts(prices)) if prices.input_mtok is not None else ()
    if not context:
        return bands
    if in_list:
        return tuple(each.times(1, f"{wanted} tier") for each in bands)
    discount = DOCUMENTED_DISCOUNTS.get((found.provider.id, wanted), 0)
    because = f"the list has no price for tier {wanted}: standard price"
    because += f" less the documented {discount:.0%}" if discount else ""
    return tuple(each.times(1 - discount, because) for each in bands)


def _context(tier: str) -> dict[str, str]:
    return {"processing": "batch"} if tier == "batch" else {"service_tier": tier}


def _applies(variant: Any, context: dict[str, str], at: datetime) -> bool:
    asked = all(context.get(key) == value for key, value in variant.when.items())
    return asked and (variant.constraint is None or bool(variant.constraint.active(at)))


def _starts(prices: Any) -> list[int]:
    """Return where bands of input tokens begin: the list keeps them for each kind of token apart."""
    tiered = (value for value in prices.__dict__.values() if hasattr(value, "tiers"))
    return sorted({0, *(tier.start for value in tiered for tier in value.tiers)})


def _band(prices: Any, start: int, source: str) -> Rates:
    def per_token(name: str) -> float | None:
        value = getattr(prices, f"{name}_mtok")
        if value is not None and hasattr(value, "tiers"):
            value = next((tier.price for tier in reversed(value.tiers) if tier.start <= start), value.base)
        return None if value is None else float(value) / 1e6

    plain = per_token("input") or 0.0
    read, write = per_token("cache_read"), per_token("cache_write")
    return Rates(
        plain,
        plain if read is None else read,
        plain if write is None else write,
        per_token("output") or 0.0,
        float(prices.requests_kcount or 0) / 1e3,
        start,
        source,
        per_token("cache_write_1h"),
        per_token("output_reasoning"),
    )


def _elsewhere(model: str) -> Iterator[tuple[Any, str]]:
    if routed := names.without_router(model):
        prefix, rest = routed
        if provider := _provider(prefix):
            yield provider, rest
    for spelled in filter(None, (*names.spellings(model), names.without_cloud(model))):
        maker = _maker(spelled)
        if maker is not None:
            yield maker, spelled


def _maker(model: str) -> Any:
    if named := names.maker_of(model):
        return _provider(named)
    fitting = (each for each in _snapshot().providers if each.model_match and each.model_match.is_match(model.lower()))
    return next(fitting, None)


def _in(provider: Any, model: str) -> Any:
    providers = _snapshot().providers
    found = (provider.find_model(spelled, all_providers=providers) for spelled in names.spellings(model))
    return next((each for each in found if each is not None), None)


def _provider(name: str | None) -> Any:
    """Return the list's provider of that name, or whose address that host is."""
    known = names.provider_name(name)
    if known is None:
        return None
    from genai_prices.data_snapshot import find_provider_by_id

    if "." not in known or known.startswith("aws."):
        return find_provider_by_id(_snapshot().providers, known)
    return next((each for each in _snapshot().providers if re.match(each.api_pattern, f"https://{known}/")), None)


def _snapshot() -> Any:
    from genai_prices import data_snapshot  # 0.2 s, and only where something is priced

    return data_snapshot.get_snapshot()


@cache
def _package_version() -> str:
    return metadata.version("genai-prices")


def moment(at_ns: int) -> datetime:
    """Return a recorded time as the list's rules take it."""
    return datetime.fromtimestamp(at_ns / 1e9, UTC)
