"""Token counts as every table of a recording holds them: cached tokens inside input, reasoning inside output."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perfnb.sources.otlp.dialects import table


@dataclass(frozen=True, slots=True)
class Usage:
    """Normalised token counts; ``rule`` tells how input was read: inclusive or exclusive (cache was added)."""

    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    rule: str | None


def usage(facts: Mapping[str, Any], scope: str, provider: str | None, attributes: Mapping[str, Any]) -> Usage:
    """Return the counts in ``facts``, normalised.

    OpenTelemetry, OpenInference and OpenAI count cached tokens inside input, Anthropic's and Bedrock's own counts and
    Langfuse's buckets beside it. More cache than input, or a total that only fits with the cache added, proves the
    latter; else the emitter decides (``[[exclusive]]`` in dialects.toml).
    """
    given = count(facts.get("input_tokens"))
    read, write = count(facts.get("cache_read_tokens")), count(facts.get("cache_write_tokens"))
    output, reasoning = count(facts.get("output_tokens")), count(facts.get("reasoning_tokens"))
    total = count(facts.get("total_tokens"))
    if given is None and total is not None and output is not None:
        given = max(total - output, 0)
    if given is None:
        return Usage(None, output, read, write, reasoning, None)
    cached = (read or 0) + (write or 0)
    beside = cached > 0 and (
        cached > given
        or (total is not None and total >= given + cached + (output or 0))
        or _is_exclusive(scope, provider, attributes)
    )
    full = given + cached if beside else given
    return Usage(
        full,
        _with_reasoning(output, reasoning, total, full),
        read,
        write,
        reasoning,
        "exclusive" if beside else "inclusive",
    )


def _with_reasoning(output: int | None, reasoning: int | None, total: int | None, full_input: int) -> int | None:
    """Return output with reasoning inside; more reasoning than output, or the total, proves that it was beside."""
    if output is None or not reasoning:
        return output
    beside = reasoning > output or (total is not None and total >= full_input + output + reasoning)
    return output + reasoning if beside else output


def _is_exclusive(scope: str, provider: str | None, attributes: Mapping[str, Any]) -> bool:
    return any(
        scope.startswith(rule["scope"])
        and (len(scope) == len(rule["scope"]) or scope[len(rule["scope"])] in ".-_/")
        and (not rule["providers"] or (provider or "").startswith(tuple(rule["providers"])))
        and rule.get("unless") not in attributes
        for rule in table()["exclusive"]
    )


def count(value: Any) -> int | None:
    """Return a token count given as a number or a text of one; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < 2**53 else None
