"""The provider's own books: tokens and dollars by model, and when each call's tokens were due."""

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from perfnb.demo.provider.pricing import dollars

KEPT_CALLS = 5000


@dataclass(frozen=True)
class Usage:
    """Tokens of one call; cached ones are part of the input, reasoning part of the output."""

    input_tokens: int
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def for_chat(self) -> dict[str, Any]:
        """Return the ``usage`` of a chat completion."""
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning_tokens,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def for_responses(self) -> dict[str, Any]:
        """Return the ``usage`` of the responses API."""
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.input_tokens + self.output_tokens,
        }


@dataclass(frozen=True)
class Call:
    """One call as the provider saw it; times in ms since it arrived, as the latency model wanted and as they came."""

    path: str
    model: str
    status: int
    usage: Usage
    first_due_ms: float = 0
    last_due_ms: float = 0
    first_ms: float = 0
    last_ms: float = 0


@dataclass
class Bill:
    """Totals by model, the latest calls, and the connections seen."""

    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=KEPT_CALLS))
    connections: int = 0

    def add(self, call: Call) -> None:
        """Book one call; failed ones cost nothing."""
        self.calls.append(call)
        entry = self.models.setdefault(call.model, {"calls": 0, "errors": 0, "usd": 0.0})
        entry["calls"] += 1
        entry["errors"] += call.status >= 400
        if call.status < 400:
            entry["usd"] += dollars(
                call.model,
                input_tokens=call.usage.input_tokens,
                cached_tokens=call.usage.cached_tokens,
                output_tokens=call.usage.output_tokens,
            )
        for name, tokens in asdict(call.usage).items():
            entry[name] = entry.get(name, 0) + (tokens if call.status < 400 else 0)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``GET /_bill`` answers."""
        return {
            "simulated": True,
            "connections": self.connections,
            "usd": sum(entry["usd"] for entry in self.models.values()),
            "models": self.models,
            "calls": [asdict(call) for call in self.calls],
        }
