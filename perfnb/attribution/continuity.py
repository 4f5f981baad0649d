"""Whose a call is that neither trace nor text gives to one of several requests under way: whoever had just got so far.

A request goes on where its last step ended: its call begins right after it came in, or after another call of it ended.
A request that waits for a call of its own meanwhile makes no other, unless both were begun together; and one that has
as many calls of a kind as requests usually have is less likely to make one more.

Source: our own, tried on apps whose later calls tell the truth (docs/third_party.md).
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import pandas as pd

# A step follows the one before at once; clocks and threads tell their times a little apart.
SLACK_NS = 5_000_000

# Calls that run beside each other are begun together.
TOGETHER_NS = 20_000_000

# Part of a call by which requests may usually have more than a whole number of them.
SOME_MORE = 0.25


@dataclass(frozen=True)
class _Call:
    start: int
    end: int
    kind: str


def by_continuity(candidates: pd.DataFrame, known: pd.DataFrame, usual: "pd.Series[float]") -> pd.DataFrame:
    """Return call_id, request_id, certainty for every call of ``candidates``.

    ``candidates`` has a row for each request a call may belong to: call_id, kind, request_id, start_time, end_time,
    request_start, rivals (how many there are). ``known`` are calls whose request is known: request_id, start_time,
    end_time, kind. ``usual`` tells how many calls of each kind a request has.
    """
    enough = {kind: math.ceil(number - SOME_MORE) for kind, number in usual.items()}
    calls_of: dict[str, list[_Call]] = defaultdict(list)
    for request, start, end, kind in known[["request_id", "start_time", "end_time", "kind"]].itertuples(index=False):
        calls_of[request].append(_Call(start, end, kind))
    ordered = candidates.sort_values(["start_time", "call_id"]).itertuples(index=False)
    rows = []
    for call_id, group in groupby(ordered, key=attrgetter("call_id")):
        rivals = list(group)
        call = _Call(rivals[0].start_time, rivals[0].end_time, rivals[0].kind)
        most = enough.get(call.kind, 0)
        owner = min(rivals, key=lambda rival: _doubt(call, calls_of[rival.request_id], rival.request_start, most))
        calls_of[owner.request_id].append(call)
        rows.append((call_id, owner.request_id, 1 / owner.rivals))
    return pd.DataFrame(rows, columns=["call_id", "request_id", "certainty"])


def _doubt(call: _Call, others: list[_Call], request_start: int, enough: int) -> tuple[bool, bool, int]:
    """Return whether a request waits for another call when ``call`` begins, has enough of its kind, and its pause before."""
    before = [other for other in others if other.start <= call.start]
    is_waiting = any(other.start < call.start - TOGETHER_NS and other.end > call.start + SLACK_NS for other in before)
    has_enough = enough > 0 and sum(other.kind == call.kind for other in others) >= enough
    last = max((other.end for other in before if other.end <= call.start + SLACK_NS), default=request_start)
    return is_waiting, has_enough, abs(call.start - last)
