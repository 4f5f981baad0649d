"""One block of load: what the worker is told to send, and what it tells of it."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from perfnb.load.health import Health


@dataclass(frozen=True)
class Entry:
    """One request of a block: when, which, warm-up or measure, for which arm (``4711abcd/A``), with which trace id."""

    at_s: float
    index: int
    phase: str
    trace_id: str
    arm: str | None = None


@dataclass(frozen=True)
class Block:
    """What the worker sends in one go."""

    number: int
    entries: tuple[Entry, ...]

    @property
    def seconds(self) -> float:
        """Return when the last request is meant to be sent."""
        return max((entry.at_s for entry in self.entries), default=0.0)

    def as_order(self) -> dict[str, Any]:
        """Return the block as the worker takes it."""
        return {"block": {"number": self.number, "entries": [tuple(vars(entry).values()) for entry in self.entries]}}

    @classmethod
    def from_order(cls, told: Mapping[str, Any]) -> Self:
        """Return what :meth:`as_order` gave."""
        return cls(told["number"], tuple(Entry(*entry) for entry in told["entries"]))


@dataclass(frozen=True)
class Progress:
    """How far a block is: requests sent, ended, and those that failed among them."""

    number: int
    sent: int = 0
    ended: int = 0
    failed: int = 0


@dataclass(frozen=True)
class BlockReport:
    """What came of a block; its requests are in ``http_requests`` by the time it is told.

    Attributes:
        median_ms: Of the measured requests that were answered, to the last byte; None where none was.
        is_complete: False where it was stopped: what was open then stands there as unfinished.
        health: How the generator itself did.
    """

    number: int
    sent: int
    ended: int
    failed: int
    rows: int
    started_ns: int
    ended_ns: int
    median_ms: float | None
    is_complete: bool
    health: Health

    def as_dict(self) -> dict[str, Any]:
        """Return the report as the worker tells it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """Return what :meth:`as_dict` gave."""
        return cls(**{**told, "health": Health.from_dict(told["health"])})


def fresh_trace_id() -> str:
    """Return a trace id that no one used."""
    return secrets.token_hex(16)


def entries(block: Sequence[Any], *, arm: str | None = None) -> tuple[Entry, ...]:
    """Return the arrivals of a turn as entries of one arm, each with a trace of its own."""
    return tuple(
        Entry(each.at_s, each.index, "measure" if each.is_measured else "warm-up", fresh_trace_id(), arm)
        for each in block
    )
