"""From calls that would have been otherwise to what users and the bill would have felt, as ranges.

A range spans the stated alternatives (an *outcome* each: cache warm or cold, the text read fast or slowly …), and for
the wait also whether calls beside the changed one would have held the user up. Each of these is drawn again and again
from the recorded requests, since another sample of as many requests would have shown something else: the 90 % between
belong to the range too. The draws are seeded, so that the same recording gives the same answer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perfnb.estimates.traffic import Traffic
from perfnb.finding import Estimate

SAMPLING = "the range holds what 90 % of other samples of as many requests would show"
ON_PATH = "a shorter call shortens the wait by at most its own part of it; calls beside it may hold the user up instead"
NO_PRICE = "no dollars: none of the calls has a known price ([[price]] in perfnb.toml gives it one)"
UNPRICED = "{calls} calls have no known price and are left out of the dollars"

DRAWS = 200
UNITS = 2000
"""Requests drawn apart; of more, some are drawn together."""
SEED = 20260901
LOW, HIGH = 0.05, 0.95
TWO_SAMPLES = 2**0.5

SAVED = ("wait_ms", "rest_ms", "early_ms", "pause_ms")


@dataclass(frozen=True)
class Outcome:
    """What calls would have been under one stated alternative; calls without a row stay as they were.

    Columns of ``calls`` (index call_id), each optional: usd, input_tokens, output_tokens as they would have been;
    wait_ms and rest_ms, saved before and after the call's first token; early_ms, by which the first content would
    have come earlier though the call took as long; pause_ms, saved between the call before and this one.
    """

    calls: pd.DataFrame


def effects(
    traffic: Traffic,
    outcomes: Sequence[Outcome],
    *,
    assumptions: tuple[str, ...],
    not_modelled: tuple[str, ...],
    tells_latency: bool = True,
) -> tuple[Estimate, ...]:
    """Return one estimate a metric; dollars where calls are priced, latency where ``tells_latency``, tokens that change."""
    found: list[tuple[str, tuple[float, float, float]]] = []
    if traffic.is_priced:
        found.append(("request_usd", _total(traffic, outcomes, "cost_usd", "usd")))
    if tells_latency and len(traffic.requests):
        found += list(_waits(traffic, outcomes))
    for name in ("input_tokens", "output_tokens"):
        if any(name in outcome.calls for outcome in outcomes):
            found.append((name, _total(traffic, outcomes, name, name)))
    return tuple(
        Estimate(name, before, low, high, (*assumptions, SAMPLING), not_modelled)
        for name, (before, low, high) in found
    )  # fmt: skip


def priced_note(traffic: Traffic) -> tuple[str, ...]:
    """Return what is to be said about calls without a price, where there are some."""
    if not traffic.is_priced:
        return (NO_PRICE,)
    unpriced = int((traffic.calls["cost_usd"].isna() & traffic.calls["error_type"].isna()).sum())
    return (UNPRICED.format(calls=unpriced),) if unpriced else ()


def _total(traffic: Traffic, outcomes: Sequence[Outcome], column: str, changed: str) -> tuple[float, float, float]:
    """Return the mean per request of ``column`` as it was, and the range of what it would have been."""
    calls = traffic.calls
    was = calls[column].fillna(0.0)
    unit = calls["request_id"].fillna(pd.Series(calls.index, calls.index))  # a call nobody waited for stands by itself
    codes = pd.factorize(unit)[0] % UNITS
    before = np.bincount(codes, was.to_numpy(float))
    ratios = []
    for outcome in outcomes:
        if changed in outcome.calls:
            is_now = was.copy()
            now = outcome.calls[changed].dropna()
            is_now[now.index] = now
            after = np.bincount(codes, is_now.to_numpy(float), minlength=len(before))
            ratios.append(_drawn(before, after, lambda values: values.sum(axis=-1)))
    mean = float(was.sum()) / max(1, traffic.request_count)
    return _range(mean, ratios)


def _waits(traffic: Traffic, outcomes: Sequence[Outcome]) -> Iterator[tuple[str, tuple[float, float, float]]]:
    requests = traffic.requests
    for name, column, is_first in (
        ("request_duration_ms", "duration_ms", False),
        ("time_to_first_token_ms", "first_ms", True),
    ):
        was = requests[column].astype(float).dropna()
        if len(was) < max(1, len(requests) / 2):
            continue
        before = was.to_numpy()
        ratios = []
        for outcome in outcomes:
            for bound in (None, "alone"):
                saved = _saved(traffic, outcome, bound, is_first).reindex(was.index, fill_value=0.0).to_numpy()
                after = np.maximum(before - saved, 0.0)
                ratios.append(_drawn(before, after, lambda values: np.median(values, axis=-1)))
        yield name, _range(float(np.median(before)), ratios)


def _saved(traffic: Traffic, outcome: Outcome, bound: str | None, is_first: bool) -> pd.Series:
    """Return the wait saved by request, up to the first content or to the end; negative where it grows."""
    gone = outcome.calls.reindex(columns=list(SAVED)).fillna(0.0)
    calls = traffic.calls.loc[gone.index]
    whole = calls["time_to_first_token_ms"].isna()  # nothing tells its first token: all of it is what follows
    wait, rest = gone["wait_ms"].where(~whole, 0.0), gone["rest_ms"] + gone["wait_ms"].where(whole, 0.0)
    part = calls["alone"] if bound else 1.0
    wait = _bounded(wait, calls["waiting_ms"] * part)
    rest = _bounded(rest, calls["generating_ms"] * part)
    pause = gone["pause_ms"]
    if is_first:
        early = _bounded(gone["early_ms"], calls["generating_ms"] * part)
        rest = rest.where(calls["phase"] == "before", 0.0) + early
        wait = wait.where(calls["phase"] != "after", 0.0)
        pause = pause.where(calls["phase"] == "before", 0.0)
    return (wait + rest + pause).groupby(calls["request_id"]).sum()


def _bounded(saved: pd.Series, on_path: pd.Series) -> pd.Series:
    """Return ``saved`` as far as it lay on the critical path; what takes longer does so only there."""
    on_path = on_path.fillna(0.0)
    return saved.clip(upper=on_path).where(on_path > 0, 0.0)


def _drawn(before: np.ndarray, after: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return after / before of the statistic: as recorded, and the bounds of what another sample would show.

    Both the recorded sample and the other one differ from what is true, so the variances of two draws add up;
    but nothing is said that no draw shows.
    """
    picks = np.random.default_rng(SEED).integers(0, len(before), (DRAWS, len(before)))
    was = np.concatenate([[statistic(before)], statistic(before[picks])])
    now = np.concatenate([[statistic(after)], statistic(after[picks])])
    ratios = np.divide(now, was, out=np.ones_like(now, dtype=float), where=was > 0)
    bounds = np.quantile(ratios[1:], [LOW, HIGH])
    widened = ratios[0] + TWO_SAMPLES * (bounds - ratios[0])
    return np.concatenate([ratios[:1], np.clip(widened, ratios.min(), ratios.max())])


def _range(before: float, ratios: list[np.ndarray]) -> tuple[float, float, float]:
    if not ratios:
        return before, before, before
    values = np.concatenate(ratios)
    return before, before * float(values.min()), before * float(values.max())
