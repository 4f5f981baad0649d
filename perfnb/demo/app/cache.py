"""The app's caches: answers to questions that stand alone, and embeddings."""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perfnb.demo.app.measurements import Measurements
from perfnb.demo.app.telemetry import tracer

SIZE = 1000
TTL_S = 600.0
EMBEDDINGS = 20_000


@dataclass(frozen=True)
class Answer:
    """A finished answer and the titles it was made from."""

    text: str
    sources: tuple[str, ...]


class AnswerCache:
    """Keeps the latest thousand answers for ten minutes."""

    def __init__(self, measurements: Measurements, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._measurements = measurements
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, Answer]] = OrderedDict()

    def get(self, key: str) -> Answer | None:
        """Return the answer kept under ``key``, if it is still fresh."""
        with tracer.start_as_current_span("cache lookup") as span:
            kept_at, answer = self._kept.get(key, (float("-inf"), None))
            if answer is not None and self._clock() - kept_at > TTL_S:
                answer = None
            span.set_attribute("cache.hit", answer is not None)
        (self._measurements.cache_misses if answer is None else self._measurements.cache_hits).inc()
        return answer

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer; the oldest goes when there are too many."""
        self._kept[key] = (self._clock(), answer)
        while len(self._kept) > SIZE:
            self._kept.popitem(last=False)


class EmbeddingCache:
    """Keeps the latest twenty thousand embeddings; one never changes, so none grows stale."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Sequence[float]] = OrderedDict()

    def get(self, model: str, text: str) -> Sequence[float] | None:
        """Return the embedding of a text, if it is kept."""
        return self._kept.get((model, text))

    def put(self, model: str, text: str, embedding: Sequence[float]) -> None:
        """Keep an embedding; the oldest goes when there are too many."""
        self._kept[model, text] = embedding
        while len(self._kept) > EMBEDDINGS:
            self._kept.popitem(last=False)


def key_of(request: Mapping[str, Any]) -> str:
    """Return the key for everything that shapes an answer."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
