"""The provider's bad days: rate limits, errors, stalls and slowness, switched on at start or over ``POST /_control``."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from perfnb.errors import WrongUse

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Conditions:
    """What goes wrong; shares are of chat and completion calls, spread evenly and the same in every run.

    Attributes:
        slow_factor: Everything takes this many times as long …
        slow_after_s: … from this long after the setting on.
        rate_limit_share: Calls answered 429.
        retry_after_s: What a 429 asks the caller to wait, from and to.
        error_share: Calls answered 503, every third by a reset of the connection.
        stall_share: Calls never answered.
        late_share: Calls whose first token is late by ``late_ms``.
        early_start: Streams open with an empty chunk at once, whenever their first content comes.
        fail_first: A prompt of the ``fail_share`` is answered 500 this many times before it is answered.
        refuse_share: Prompts always answered 400.
        break_share: Streams that end in an error event half-way.
    """

    slow_factor: float = 1
    slow_after_s: float = 0
    rate_limit_share: float = 0
    retry_after_s: tuple[float, float] = (1, 2)
    error_share: float = 0
    stall_share: float = 0
    late_share: float = 0
    late_ms: float = 0
    early_start: bool = False
    fail_share: float = 0
    fail_first: int = 0
    refuse_share: float = 0
    break_share: float = 0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Return conditions from JSON; raises WrongUse for a name there is not."""
        names = [each.name for each in fields(cls)]
        if unknown := set(given) - set(names):
            raise WrongUse(f"no such condition: {', '.join(sorted(unknown))}", hint=f"one of {', '.join(names)}")
        made = replace(cls(), **given)
        low, high = made.retry_after_s
        return replace(made, retry_after_s=(low, high))


def is_hit(number: int, share: float) -> bool:
    """Tell whether the ``number``-th call is one of ``share``: spread evenly, with no two runs differing."""
    return (number * _GOLDEN) % 1 < share


def is_marked(digest: str, share: float) -> bool:
    """Tell whether a prompt is one of ``share``, by its hexadecimal digest alone."""
    return int(digest[:8], 16) / 0xFFFFFFFF < share
