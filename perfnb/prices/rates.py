"""Dollars per token, one row a band of input tokens, and what a call comes to under them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Rates:
    """Dollars per token of one model at one time, for calls with more than ``from_tokens`` input tokens.

    Cached tokens are inside the input and reasoning inside the output, as everywhere in a recording; ``input_usd`` is
    for input that was neither read from nor written to the provider's cache. All tokens of a call, output included,
    are paid at the one band its whole input falls into.

    Attributes:
        request_usd: Paid once a call, beside its tokens.
        from_tokens: The band begins above this many input tokens; 0 for the first.
        source: Where the price comes from and what was assumed, for people.
        cache_write_1h_usd: For cache entries that live an hour; None: as other cache writes.
        reasoning_usd: For reasoning tokens; None: as other output.
    """

    input_usd: float
    cache_read_usd: float
    cache_write_usd: float
    output_usd: float
    request_usd: float = 0.0
    from_tokens: int = 0
    source: str = ""
    cache_write_1h_usd: float | None = None
    reasoning_usd: float | None = None

    def times(self, factor: float, because: str) -> "Rates":
        """Return these rates times ``factor``, with ``because`` added to their source; what is paid a request stays."""
        hour, reasoning = self.cache_write_1h_usd, self.reasoning_usd
        return replace(
            self,
            input_usd=self.input_usd * factor,
            cache_read_usd=self.cache_read_usd * factor,
            cache_write_usd=self.cache_write_usd * factor,
            output_usd=self.output_usd * factor,
            cache_write_1h_usd=None if hour is None else hour * factor,
            reasoning_usd=None if reasoning is None else reasoning * factor,
            source=f"{self.source}; {because}",
        )


@dataclass(frozen=True)
class Cost:
    """What one call costs, in dollars, part by part."""

    input_usd: float
    cache_read_usd: float
    cache_write_usd: float
    output_usd: float
    request_usd: float = 0.0

    @property
    def total_usd(self) -> float:
        """Return the sum of the parts."""
        return self.input_usd + self.cache_read_usd + self.cache_write_usd + self.output_usd + self.request_usd


def band(bands: Sequence[Rates], input_tokens: float) -> Rates:
    """Return the rates for a call with ``input_tokens``, cached ones included; ``bands`` as Prices.rates returns them."""
    return next((each for each in reversed(bands) if input_tokens > each.from_tokens), bands[0])


def cost(
    bands: Sequence[Rates],
    input_tokens: float,
    output_tokens: float = 0,
    *,
    cache_read_tokens: float = 0,
    cache_write_tokens: float = 0,
    cache_write_1h_tokens: float = 0,
    reasoning_tokens: float = 0,
) -> Cost:
    """Return what a call costs; cached and written tokens are part of the input, one-hour writes of the written ones."""
    rates = band(bands, input_tokens)
    hour = rates.cache_write_usd if rates.cache_write_1h_usd is None else rates.cache_write_1h_usd
    thinking = rates.output_usd if rates.reasoning_usd is None else rates.reasoning_usd
    return Cost(
        max(input_tokens - cache_read_tokens - cache_write_tokens, 0) * rates.input_usd,
        cache_read_tokens * rates.cache_read_usd,
        (cache_write_tokens - cache_write_1h_tokens) * rates.cache_write_usd + cache_write_1h_tokens * hour,
        max(output_tokens - reasoning_tokens, 0) * rates.output_usd + reasoning_tokens * thinking,
        rates.request_usd,
    )
