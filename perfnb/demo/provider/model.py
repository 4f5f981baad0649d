"""The simulated model behind every endpoint: what it says to a call, what that costs, and how long it takes."""

import hashlib
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perfnb.demo.provider import answers
from perfnb.demo.provider.bill import Usage
from perfnb.demo.provider.dialects import Reply
from perfnb.demo.provider.latency import Timing, reasoning_tokens, timing, token_count

CACHE_STEP_TOKENS = 128
CACHE_MIN_TOKENS = 1024
_KEPT_PREFIXES = 20_000


@dataclass
class PrefixCache:
    """Remembers prompts by their beginnings in steps of 128 tokens, as providers do for prompts of 1024 tokens up."""

    known: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    def cached_tokens(self, model: str, prompt: str) -> int:
        """Return how many tokens of the prompt's beginning were seen before, and remember all of it."""
        cached = 0
        digest = hashlib.blake2b(model.encode(), digest_size=12)
        step = CACHE_STEP_TOKENS * 4
        for end in range(step, len(prompt) + 1, step):
            digest.update(prompt[end - step : end].encode())
            key = digest.digest()
            if key in self.known:
                cached = end // 4
            self.known[key] = None
        while len(self.known) > _KEPT_PREFIXES:
            self.known.popitem(last=False)
        return cached if cached >= CACHE_MIN_TOKENS else 0


@dataclass
class Model:
    """Composes replies; the same seed and the same calls give the same replies and timings."""

    seed: int = 0
    time_scale: float = 1
    prefixes: PrefixCache = field(default_factory=PrefixCache)
    seen: dict[str, int] = field(default_factory=dict)

    def reply(self, body: Mapping[str, Any], messages: Sequence[answers.Message]) -> tuple[Reply, random.Random]:
        """Return the reply to a call, and the dice that go on to its timing."""
        tools = body.get("tools") or [] if body.get("tool_choice") != "none" else []
        prompt = answers.prompt_text(messages, tools)
        rng = self._dice(f"{body['model']} {prompt}")
        calls = answers.tool_calls(messages, tools)
        pieces = [] if calls else answers.pieces(answers.answer(messages, rng=rng))
        thought = reasoning_tokens(body["model"], _effort(body), rng)
        limit = _limit(body)
        kept = pieces[:limit] if limit else pieces
        spoken = len(kept) + sum(2 + token_count(call["arguments"]) for call in calls)
        cached = self.prefixes.cached_tokens(body["model"], prompt)
        usage = Usage(token_count(prompt), cached, spoken + thought, thought)
        finish = "tool_calls" if calls else "length" if len(kept) < len(pieces) else "stop"
        return Reply(f"sim{rng.getrandbits(48):012x}", body["model"], kept, calls, usage, finish), rng

    def timing(self, reply: Reply, rng: random.Random, factor: float = 1) -> Timing:
        """Return how long the reply takes."""
        usage = reply.usage
        return timing(
            reply.model,
            usage.input_tokens - usage.cached_tokens,
            reasoning=usage.reasoning_tokens,
            time_scale=self.time_scale,
            factor=factor,
            rng=rng,
        )

    def plain_timing(self, model: str, tokens: int, factor: float = 1) -> Timing:
        """Return how long a call without an answer in words takes: embeddings, moderation."""
        dice = self._dice(f"{model} {tokens}")
        return timing(model, tokens, time_scale=self.time_scale, factor=factor, rng=dice)

    def _dice(self, call: str) -> random.Random:
        digest = hashlib.blake2b(call.encode(), digest_size=12).hexdigest()
        self.seen[digest] = self.seen.get(digest, 0) + 1
        return random.Random(f"{self.seed} {digest} {self.seen[digest]}")


def _effort(body: Mapping[str, Any]) -> str:
    return str(body.get("reasoning_effort") or (body.get("reasoning") or {}).get("effort") or "medium")


def _limit(body: Mapping[str, Any]) -> int | None:
    named = ("max_completion_tokens", "max_output_tokens", "max_tokens")
    return next((int(body[name]) for name in named if body.get(name)), None)
