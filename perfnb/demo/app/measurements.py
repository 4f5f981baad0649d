"""What the app measures of itself: timings for its optimization endpoints, counters for Prometheus."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

RECENT = 20


@dataclass
class Timings:
    """Timings of one kind of work; only the latest few are kept one by one."""

    count: int = 0
    total_ms: float = 0
    min_ms: float = 0
    max_ms: float = 0
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, name: str, duration_ms: float) -> None:
        """Add one."""
        self.min_ms = min(self.min_ms, duration_ms) if self.count else duration_ms
        self.max_ms = max(self.max_ms, duration_ms)
        self.count += 1
        self.total_ms += duration_ms
        self.recent.append({"operation": name, "time_ms": round(duration_ms, 2), "timestamp": time.time()})

    def as_dict(self) -> dict[str, Any]:
        """Return what ``/optimization/performance/metrics`` shows of this kind."""
        return {
            "count": self.count,
            "total_time_ms": round(self.total_ms, 2),
            "avg_time_ms": round(self.total_ms / self.count, 2) if self.count else 0,
            "min_time_ms": round(self.min_ms, 2),
            "max_time_ms": round(self.max_ms, 2),
            "recent_operations": list(self.recent),
        }


class Measurements:
    """The app's counters and timings."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests_total", "Requests", ("method", "route", "status"), registry=self.registry
        )
        self.request_seconds = Histogram(
            "http_request_duration_seconds", "Request duration to the last byte", ("route",), registry=self.registry
        )
        self.cache_hits = Counter("cache_hits_total", "Answers found in the cache", registry=self.registry)
        self.cache_misses = Counter("cache_misses_total", "Answers not found in the cache", registry=self.registry)
        self.tokens = Counter("llm_tokens_total", "Tokens used", ("model", "kind"), registry=self.registry)
        self.reset()

    def reset(self) -> None:
        """Forget the timings; Prometheus counters only ever grow."""
        self.timings = {"llm_calls": Timings(), "tool_executions": Timings(), "turn_processing": Timings()}

    @contextmanager
    def time(self, kind: str, name: str) -> Iterator[None]:
        """Add how long the block took to ``kind``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timings[kind].add(name, (time.perf_counter() - started) * 1000)

    def count_tokens(self, model: str, usage: Any) -> None:
        """Count a call's usage, where the provider gave it."""
        if usage is not None:
            self.tokens.labels(model, "input").inc(usage.prompt_tokens)
            self.tokens.labels(model, "output").inc(getattr(usage, "completion_tokens", 0) or 0)

    def as_prometheus(self) -> bytes:
        """Return the text ``/metrics`` serves."""
        return generate_latest(self.registry)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``/optimization/performance/metrics`` serves."""
        return {kind: timings.as_dict() for kind, timings in self.timings.items()}
