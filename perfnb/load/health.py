"""Whether the generator kept up: its lateness, its event loop's lag and its processor time judge its own figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class Limits:
    """How far a generator may be off before its block is void.

    Attributes:
        late_ms: Lateness that is always allowed (99th percentile; 5 ms at 200 requests a second is what aiohttp with
            uvloop keeps to on one core) …
        late_part: … and the part of the block's median latency that is.
        busy: Share of one processor from which on it is the bottleneck itself.
    """

    late_ms: float = 5.0
    late_part: float = 0.05
    busy: float = 0.9


@dataclass(frozen=True)
class Health:
    """How a generator did in one block: times between intended and true sending, and how late its loop woke up.

    Latencies count from the intended time, so lateness is part of them. ``unsent`` requests found no free place.
    """

    late_p50_ms: float = 0.0
    late_p99_ms: float = 0.0
    late_max_ms: float = 0.0
    lag_p50_ms: float = 0.0
    lag_p99_ms: float = 0.0
    lag_max_ms: float = 0.0
    busy: float = 0.0
    unsent: int = 0

    @classmethod
    def of(cls, late_ms: Sequence[float], lag_ms: Sequence[float], *, busy: float, unsent: int = 0) -> Self:
        """Return the figures of one block."""
        late, lag = (_percentiles(values) for values in (late_ms, lag_ms))
        return cls(*late, *lag, busy=round(busy, 3), unsent=unsent)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """Return what :meth:`as_dict` gave."""
        return cls(**told)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)

    def limited_by(self, median_ms: float | None, limits: Limits = Limits()) -> str | None:
        """Return why the block's latencies (``median_ms``) are the generator's rather than the target's; None if fine."""
        allowed = max(limits.late_ms, limits.late_part * (median_ms or 0.0))
        if self.unsent:
            return f"{self.unsent} requests could not be sent: too many were open"
        if self.late_p99_ms > allowed:
            return (
                f"requests went out up to {self.late_p99_ms:.1f} ms late (99th percentile; {allowed:.1f} ms is allowed)"
            )
        if self.busy > limits.busy:
            return f"the load generator was busy {self.busy:.0%} of the time"
        return None


def _percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    if not values:
        return 0.0, 0.0, 0.0
    p50, p99, most = np.percentile(values, (50, 99, 100))
    return round(float(p50), 3), round(float(p99), 3), round(float(most), 3)
