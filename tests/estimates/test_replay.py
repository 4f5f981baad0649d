"""A replayed cache against a plain simulation, and by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfnb.estimates.replay import replay

S = 1_000_000_000


@pytest.mark.parametrize(
    ("keys", "seconds", "ttl_s", "entries", "expected"),
    [
        ("aaa", [0, 10, 20], 300, 10, [-1, 0, 0]),
        ("aaa", [0, 10, 20], 15, 10, [-1, 0, -1]),  # a hit does not prolong an entry's life
        ("aba", [0, 10, 20], 300, 1, [-1, -1, -1]),  # b pushed a out
        ("abab", [0, 10, 20, 30], 300, 2, [-1, -1, 0, 1]),
        ("abacab", [0, 10, 20, 30, 40, 50], 300, 2, [-1, -1, 0, -1, 0, -1]),  # the one used last stays
        ("aa", [0, 0.5], 300, 10, [-1, -1]),  # the first is still under way
    ],
)
def test_by_hand(keys: str, seconds: list[float], ttl_s: float, entries: int, expected: list[int]) -> None:
    starts = [round(each * S) for each in seconds]
    found = replay(keys, starts, [each + S for each in starts], ttl_s=ttl_s, entries=entries)
    assert found.tolist() == expected


def test_known_keys_answer_the_first_call_and_failed_answers_are_not_kept() -> None:
    starts = [0, 10 * S, 20 * S]
    ends = [each + S for each in starts]
    assert replay("aaa", starts, ends, ttl_s=300, entries=9, known="a").tolist() == [-2, -2, -2]
    assert replay("aaa", starts, ends, ttl_s=300, entries=9, keeps=[False, True, True]).tolist() == [-1, -1, 1]


Traffic = list[tuple[str, int, int]]  # key, seconds since the call before, seconds it takes

TRAFFIC = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 40), st.integers(0, 12)), max_size=60)


def columns(traffic: Traffic, *, at_once: bool = False) -> tuple[list[str], list[int], list[int]]:
    starts, now = [], 0
    for _, gap, _ in traffic:
        now += gap * S
        starts.append(now)
    ends = [start + (0 if at_once else took * S) for start, (_, _, took) in zip(starts, traffic, strict=True)]
    return [key for key, _, _ in traffic], starts, ends


def plainly(keys: list[str], starts: list[int], ends: list[int], ttl_s: int, entries: int) -> list[bool]:
    """Simulate the cache as one would on paper: a list of entries, least recently used first."""
    kept: list[tuple[str, int]] = []
    pending: list[tuple[int, int]] = []
    hits = []

    def alive(now: int) -> list[tuple[str, int]]:
        return [(key, since) for key, since in kept if now < since + ttl_s * S]

    for number, (key, start) in enumerate(zip(keys, starts, strict=True)):
        for end, done in sorted(each for each in pending if each[0] <= start):
            pending.remove((end, done))
            kept[:] = [each for each in alive(end) if each[0] != keys[done]]
            del kept[: max(0, len(kept) + 1 - entries)]
            kept.append((keys[done], end))
        kept[:] = alive(start)
        found = next((each for each in kept if each[0] == key), None)
        hits.append(found is not None)
        if found is not None:
            kept.remove(found)
            kept.append(found)
        else:
            pending.append((ends[number], number))
    return hits


@given(TRAFFIC, st.integers(1, 60), st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_hits_are_those_of_a_plain_simulation(traffic: Traffic, ttl_s: int, entries: int) -> None:
    keys, starts, ends = columns(traffic)
    found = replay(keys, starts, ends, ttl_s=ttl_s, entries=entries) != -1
    assert found.tolist() == plainly(keys, starts, ends, ttl_s, entries)


@given(TRAFFIC, st.integers(1, 60), st.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_more_time_to_live_never_means_fewer_hits(traffic: Traffic, ttl_s: int, more: int) -> None:
    """True where answers come at once and nothing is pushed out; a call under way, or a full cache, can turn it."""
    keys, starts, ends = columns(traffic, at_once=True)
    short, long = (replay(keys, starts, ends, ttl_s=ttl, entries=1000) != -1 for ttl in (ttl_s, ttl_s + more))
    assert long.sum() >= short.sum()
