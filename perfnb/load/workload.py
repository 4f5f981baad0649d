"""What is sent and when: the same requests at the same moments for everyone who asks for the same turn.

Arrivals are worked out before a run and kept to however long earlier requests take (an open loop), so that a slow
answer delays no one's question and is not hidden by it.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from perfnb.errors import WrongUse
from perfnb.sources.traffic.client import checked
from perfnb.target import Request

Arrivals = Literal["poisson", "constant"]

MOST_IN_A_BLOCK = 20_000


@dataclass(frozen=True)
class Arrival:
    """One request to send: ``at_s`` after the start, the ``index`` of the request, and whether it is measured."""

    at_s: float
    index: int
    is_measured: bool = True


@dataclass(frozen=True)
class Workload:
    """Requests in their order, sent again from the first once all were, at ``rate_per_s`` on average.

    Attributes:
        requests: What is sent; nothing in it is changed.
        rate_per_s: How many a second, on average.
        arrivals: ``poisson`` (independent users) or ``constant``.
        seed: Of the arrivals.
        control: A light request sent four times a second beside the others, which no change under trial can affect.
        is_shared: Whether both arms of a trial are sent the same requests, which tells them apart sooner. An app that
            keeps answers would answer the second from its cache: there each arm has requests of its own.
    """

    requests: tuple[Request, ...]
    rate_per_s: float = 2.0
    arrivals: Arrivals = "poisson"
    seed: int = 0
    control: Request | None = None
    is_shared: bool = True

    def __post_init__(self) -> None:
        if not self.requests:
            raise WrongUse("a workload needs a request", hint="add a [[request]] to perfnb.toml")
        if not self.rate_per_s > 0:
            raise WrongUse(f"{self.rate_per_s} requests a second is no rate", hint="give a number above 0")
        for request in (*self.requests, *([self.control] if self.control else [])):
            checked(request.url)

    def number_in(self, seconds: float) -> int:
        """Return how many requests ``seconds`` hold; always the same number, at least one."""
        return max(1, round(self.rate_per_s * seconds))

    def turn(self, number: int, seconds: float, *, warm_up_s: float = 0.0) -> tuple[Arrival, ...]:
        """Return what is sent in turn ``number``: for ``warm_up_s``, then for ``seconds`` of measuring.

        Turns go on in the list of requests where the one before stopped. Raises WrongUse beyond 20,000 requests.
        """
        warm = self.number_in(warm_up_s) if warm_up_s > 0 else 0
        measured = self.number_in(seconds)
        if warm + measured > MOST_IN_A_BLOCK:
            raise WrongUse(f"{warm + measured} requests in one block", hint="lower the rate or the seconds")
        first = number * (warm + measured)
        rng = random.Random(f"arrivals {self.seed} {number}")
        times = [*self._times(warm, 0.0, warm_up_s, rng), *self._times(measured, warm_up_s, seconds, rng)]
        return tuple(Arrival(at, (first + place) % len(self.requests), place >= warm) for place, at in enumerate(times))

    def turns(
        self, number: int, seconds: float, *, warm_up_s: float = 0.0
    ) -> tuple[tuple[Arrival, ...], tuple[Arrival, ...]]:
        """Return turn ``number`` of either arm: the same moments, and the same requests where they are shared."""
        if self.is_shared:
            turn = self.turn(number, seconds, warm_up_s=warm_up_s)
            return turn, turn
        turn = self.turn(2 * number, seconds, warm_up_s=warm_up_s)
        others = (replace(each, index=(each.index + len(turn)) % len(self.requests)) for each in turn)
        return turn, tuple(others)

    def _times(self, count: int, start_s: float, seconds: float, rng: random.Random) -> list[float]:
        """Return ``count`` moments; with their number given, Poisson arrivals are evenly distributed ones in order."""
        if self.arrivals == "constant":
            return [start_s + seconds * place / count for place in range(count)]
        return sorted(start_s + seconds * rng.random() for _ in range(count))


class Planned(Protocol):
    """A request as a plan names it: a path and a JSON body."""

    @property
    def path(self) -> str:
        """Return the path at the app."""

    @property
    def body(self) -> Mapping[str, Any]:
        """Return the JSON body."""


def planned_requests(url: str, planned: Iterable[Planned], *, timeout_s: float = 60) -> tuple[Request, ...]:
    """Return ``planned`` (the demo's users, say) as requests to the app at ``url``."""
    return tuple(Request(url.rstrip("/") + each.path, json=dict(each.body), timeout_s=timeout_s) for each in planned)
