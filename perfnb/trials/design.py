"""How a trial is laid out before it begins: pairs of blocks, their order, and when one may look at them.

Source: research on comparisons: interleaved pairs in random balanced order; looks planned beforehand share the error
(five at 1 % each; looking after every pair at 5 % calls a change that isn't one a quarter of the time)
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from perfnb.errors import WrongUse
from perfnb.load import Arrival, Entry, Limits, fresh_trace_id
from perfnb.sources.traffic.policies.arms import arm_of

ARMS = ("A", "B")
LOOKS = (6, 10, 16, 24, 40)
ALL_LOOKS_ALPHA = 0.05


@dataclass(frozen=True)
class Plan:
    """What is fixed before a trial begins.

    Attributes:
        looks: Numbers of pairs at which the result is looked at; the trial ends at the first that decides.
        alpha: Error of each look; together they may not pass 5 %.
        margin: Changes smaller than this part are of no practical use.
        primary: The metric the verdict is about.
        seconds: Measured part of a block …
        warm_up_s: … and what is sent before it, which isn't measured.
        settle_s: Pause after each switch.
        evidence_s: Pause before a look, for rows still on their way.
        most_void: Pairs that may be void, because the load generator was late, before the trial gives up.
        limits: When a block is void.
        seed: Of the order.
    """

    looks: tuple[int, ...] = LOOKS
    alpha: float = 0.01
    margin: float = 0.03
    primary: str = "request_duration_ms"
    seconds: float = 4.0
    warm_up_s: float = 1.0
    settle_s: float = 0.5
    evidence_s: float = 1.0
    most_void: int = 6
    limits: Limits = field(default_factory=Limits)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.looks or min(self.looks) < 3 or list(self.looks) != sorted(set(self.looks)):
            raise WrongUse(f"looks at {self.looks} pairs make no sense", hint="rising numbers from 3 on, like (6, 10)")
        if not 0 < self.alpha * len(self.looks) <= ALL_LOOKS_ALPHA + 1e-9:
            raise WrongUse(
                f"{len(self.looks)} looks at {self.alpha:.3g} err more often than 5 %",
                hint=f"alpha={ALL_LOOKS_ALPHA / len(self.looks):.3g}, or fewer looks",
            )
        if not 0 <= self.margin < 1 or not self.seconds > 0:
            raise WrongUse("margin must be 0 to 1 and seconds above 0", hint="margin=0.03, seconds=4")

    @property
    def most_pairs(self) -> int:
        """Return how many pairs the trial takes where nothing decides it before."""
        return self.looks[-1]

    def expected_s(self, pairs: int) -> float:
        """Return how long ``pairs`` pairs take, answers after the last request not counted."""
        return 2 * pairs * (self.seconds + self.warm_up_s + self.settle_s)


def orders(seed: int) -> Iterator[str]:
    """Yield "AB" or "BA" for each pair, drawn at random so that two pairs in a row always hold one of each (ABBA)."""
    rng = random.Random(f"order {seed}")
    while True:
        first = rng.choice(("AB", "BA"))
        yield first
        yield first[::-1]


def split_entries(turns: tuple[Sequence[Arrival], Sequence[Arrival]], trial: str, seed: int) -> tuple[Entry, ...]:
    """Return a block in which both arms run at once, at each turn's own rate: the arms' requests take turns.

    Which arm is first is drawn anew for each pair of requests, as often A as B. The trace ids are such that ``arm_of``
    gives them to their arm.
    """
    rng = random.Random(f"split {seed}")
    firsts = [ARMS[place % 2] for place in range(len(turns[0]))]
    rng.shuffle(firsts)
    made = []
    before_s = 0.0
    for *pair, first in zip(*turns, firsts, strict=True):
        at_s = pair[0].at_s
        arms = (first, "B" if first == "A" else "A")
        for arrival, arm, sent_s in zip(pair, arms, (before_s + at_s, 2 * at_s), strict=True):
            phase = "measure" if arrival.is_measured else "warm-up"
            made.append(Entry(sent_s, arrival.index, phase, trace_id_in(trial, arm), f"{trial}/{arm}"))
        before_s = at_s
    return tuple(made)


def trace_id_in(trial: str, arm: str) -> str:
    """Return a fresh trace id that falls into ``arm``."""
    while arm_of(trial, found := fresh_trace_id()) != arm:
        pass
    return found
