"""Traffic of which every figure is known: requests of 1,100 ms with one model call of 1,000 ms at known prices."""

from pathlib import Path
from typing import Any

from builders import Row, call, recording, request

from perfnb.estimates import Prediction, predict
from perfnb.finding import Estimate
from perfnb.recording import Recording

PRICES = [
    {"model": "big", "input_usd_per_mtok": 10.0, "cache_read_usd_per_mtok": 1.0, "output_usd_per_mtok": 40.0, "batch_discount": 0.5},
    {"model": "small", "input_usd_per_mtok": 1.0, "cache_read_usd_per_mtok": 0.5, "output_usd_per_mtok": 4.0},
    {"model": "embedder", "input_usd_per_mtok": 100.0, "output_usd_per_mtok": 0.0},
]  # fmt: skip
"""Dollars per million tokens; a call of ``big`` with 1,000 tokens in and 100 out costs 1 + 0.4 cents."""

GAP_MS = 10_000


def priced(folder: Path, calls: list[Row], requests: list[Row] | None = None, **more: Any) -> Recording:
    """Return a recording of these calls with the prices above, and of one request around each call unless given."""
    around = [request((row["start_time"] - START_NS) / 1e6 - 50, row["duration_ms"] + 100) for row in calls]
    made = recording(folder, calls=calls, requests=around if requests is None else requests, **more)
    made.manifest["prices"] = PRICES
    return made


START_NS = 1_790_000_000_000_000_000


def answer(number: int, **columns: Any) -> Row:
    """Return the ``number``-th call: a stream of ``big``, 1,000 tokens in, 100 out, first token after 300 ms."""
    given: Row = {
        "request_model": "big",
        "response_model": "big",
        "input_tokens": 1000,
        "output_tokens": 100,
        "first_token_ms": 300.0,
    }
    return call(number * GAP_MS, 1000, **(given | columns))


def message(role: str, digest: str, tokens: int, **more: Any) -> Row:
    """Return what is kept of one message."""
    return {"role": role, "digest": digest, "tokens": tokens, "sketch": [], "passages": 0} | more


def effect(prediction: Prediction, metric: str) -> Estimate:
    """Return the estimate for ``metric``, which must be there."""
    found = prediction.effect(metric)
    assert found is not None, (metric, prediction.effects)
    return found


def bounds(folder: Path, name: str, calls: list[Row], metric: str, **setting: Any) -> tuple[float, float, float]:
    """Return before, low and high of one metric."""
    one = effect(predict(priced(folder, calls), name, **setting), metric)
    return one.before, one.low, one.high
