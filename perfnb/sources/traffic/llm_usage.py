"""Bring a provider's usage object into one meaning: cached tokens are inside input, reasoning is inside output.

Source: the providers' API references; research on how each counts is in the docstring of :func:`usage_columns`
"""

from collections.abc import Mapping
from typing import Any

from perfnb.prompts.prompt import whole


def usage_columns(usage: Mapping[str, Any], *, is_anthropic: bool = False) -> dict[str, Any]:
    """Return the token columns and ``usage_rule``; empty where ``usage`` names no input.

    OpenAI and what is like it count cached tokens inside the input (inclusive). Anthropic counts them beside it
    (exclusive), so they are added; more cached than input tokens give the same rule away anywhere. Some gateways count
    reasoning beside the output: it is added where only then the total adds up.
    """
    given = next(
        (number for key in ("prompt_tokens", "input_tokens") if (number := _number(usage, key)) is not None), None
    )
    if given is None:
        return {}
    output = next(
        (number for key in ("completion_tokens", "output_tokens") if (number := _number(usage, key)) is not None), 0
    )
    read = _cache_read(usage)
    write = _number(usage, "cache_creation_input_tokens") or _detail(usage, "cache_write_tokens") or 0
    reasoning = _detail(usage, "reasoning_tokens") or _number(usage, "reasoning_tokens")
    is_exclusive = is_anthropic or "cache_read_input_tokens" in usage or read > given
    total = _number(usage, "total_tokens")
    if reasoning and total is not None and total == given + output + reasoning:
        output += reasoning
    return {
        "input_tokens": given + read + write if is_exclusive else given,
        "cache_read_tokens": read,
        "cache_write_tokens": write,
        "output_tokens": output,
        "reasoning_tokens": reasoning,
        "usage_rule": "exclusive" if is_exclusive else "inclusive",
        "tokens_estimated": False,
    }


def _cache_read(usage: Mapping[str, Any]) -> int:
    named = (_number(usage, key) for key in ("cache_read_input_tokens", "prompt_cache_hit_tokens", "cached_tokens"))
    return next((number for number in named if number is not None), None) or _detail(usage, "cached_tokens") or 0


def _detail(usage: Mapping[str, Any], name: str) -> int | None:
    for key, value in usage.items():
        if key.endswith("_details") and isinstance(value, Mapping) and (number := _number(value, name)) is not None:
            return number
    return None


def _number(usage: Mapping[str, Any], key: str) -> int | None:
    number = whole(usage.get(key))
    return None if number is None else max(0, number)
