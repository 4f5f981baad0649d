"""Whose a call is that neither trace nor text gives to one of several requests under way: whoever had just got so far.

A request goes on where its last step ended: its call begins right after it came in, or after another call of it ended.
A request that waits for a call of its own meanwhile makes no other, unless both were begun together.
"""

from bisect import bisect_right, insort
from collections import defaultdict
from itertools import groupby
from operator import attrgetter

import pandas as pd

# A step follows the one before at once; clocks and threads tell their times a little apart.
SLACK_NS = 5_000_000

# Calls that run beside each other are begun together.
TOGETHER_NS = 20_000_000

Span = tuple[int, int]


def by_continuity(candidates: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Return call_id, request_id, certainty for every call of ``candidates``.

    ``candidates`` has a row for each request a call may belong to: call_id, request_id, start_time, end_time, request_start,
    rivals (how many there are). ``known`` are calls whose request is known: request_id, start_time, end_time.
    """
    calls_of: dict[str, list[Span]] = defaultdict(list)
    for request, *times in sorted(known.itertuples(index=False), key=lambda row: row[1]):
        calls_of[request].append((times[0], times[1]))
    ordered = candidates.sort_values(["start_time", "call_id"]).itertuples(index=False)
    rows = []
    for call_id, group in groupby(ordered, key=attrgetter("call_id")):
        rivals = list(group)
        start, end = rivals[0].start_time, rivals[0].end_time
        owner = min(rivals, key=lambda rival: _doubt(calls_of[rival.request_id], rival.request_start, start))
        insort(calls_of[owner.request_id], (start, end))
        rows.append((call_id, owner.request_id, 1 / owner.rivals))
    return pd.DataFrame(rows, columns=["call_id", "request_id", "certainty"])


def _doubt(calls: list[Span], request_start: int, start: int) -> tuple[bool, int]:
    """Return whether a request waits for another call at ``start``, and how long it had done nothing until then."""
    before = calls[: bisect_right(calls, (start, 2**63))]
    is_waiting = any(begun < start - TOGETHER_NS and ended > start + SLACK_NS for begun, ended in before)
    last = max((ended for _, ended in before if ended <= start + SLACK_NS), default=request_start)
    return is_waiting, abs(start - last)
