"""The latency model: how long a simulated model takes, from its class and the tokens of the call.

::

    time to first token = (base + per_input × uncached input tokens + per_output × reasoning tokens) × jitter
    then one token every per_output × jitter
    everything divided by the time scale

Jitter is log-normal with a standard deviation of 6 %, drawn from the seed and the call, so that a run can be repeated.
The figures stand for classes of models, not for any product.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

JITTER = 0.06
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Speed:
    """How fast one class of model is; ``reasoning_tokens`` by effort are spent before the first visible token."""

    base_ms: float
    per_input_token_ms: float
    per_output_token_ms: float
    reasoning_tokens: Mapping[str, int] | None = None


SPEEDS: Mapping[str, Speed] = {
    "small": Speed(50, 0.04, 3),
    "balanced": Speed(80, 0.1, 6),
    "large": Speed(350, 0.25, 90),
    "reasoning": Speed(120, 0.12, 6, {"minimal": 0, "low": 100, "medium": 250, "high": 450}),
    "embedding": Speed(12, 0.02, 0),
    "large embedding": Speed(580, 0.05, 0),
    "moderation": Speed(120, 0.05, 0),
}

# first match wins; anything else is balanced
_MARKS = (
    ("large embedding", ("embedding-large", "embedding-3-large")),
    ("embedding", ("embed",)),
    ("moderation", ("moderation",)),
    ("small", ("small", "mini", "nano", "haiku")),
    ("reasoning", ("reasoning", "o1", "o3", "o4", "think")),
    ("large", ("large", "opus", "-pro")),
)


@dataclass(frozen=True)
class Timing:
    """What the model gives for one call: ``first_ms`` to the first visible token, then ``per_token_ms`` each."""

    first_ms: float
    per_token_ms: float

    def total_ms(self, output_tokens: int) -> float:
        """Return the time to the last of ``output_tokens`` visible tokens."""
        return self.first_ms + self.per_token_ms * max(0, output_tokens - 1)


def model_class(model: str) -> str:
    """Return the class of a model by its name, ``balanced`` if nothing tells."""
    name = model.lower()
    return next((kind for kind, marks in _MARKS if any(mark in name for mark in marks)), "balanced")


def token_count(text: str) -> int:
    """Return the tokens of ``text``, at four characters each."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def reasoning_tokens(model: str, effort: str, rng: random.Random) -> int:
    """Return how many hidden tokens a model thinks before it answers; 0 for models that don't."""
    spent = (SPEEDS[model_class(model)].reasoning_tokens or {}).get(effort, 0)
    return round(spent * rng.uniform(0.8, 1.2))


def timing(
    model: str,
    uncached_tokens: int,
    *,
    reasoning: int = 0,
    time_scale: float = 1,
    factor: float = 1,
    rng: random.Random,
) -> Timing:
    """Return the call's timing; ``factor`` makes everything slower, ``time_scale`` faster."""
    speed = SPEEDS[model_class(model)]
    scale = factor / time_scale
    first = speed.base_ms + speed.per_input_token_ms * uncached_tokens + speed.per_output_token_ms * reasoning
    return Timing(
        first * _jitter(rng) * scale,
        speed.per_output_token_ms * _jitter(rng) * scale,
    )


def _jitter(rng: random.Random) -> float:
    return math.exp(rng.gauss(0, JITTER))
