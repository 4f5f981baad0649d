"""What each block of a trial measured, read from the recording: latency, errors, tokens and dollars per request."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from perfnb.attribution import FAILED, OfTrial, prepare
from perfnb.attribution.money import priced_calls
from perfnb.trials.statistics import log_ratios, smoothed_rate

Key = tuple[int, str]
"""Block and arm."""
Blocks = Mapping[Key, Mapping[str, float]]
"""What was measured in each block for each arm; a metric that could not be is missing."""


@dataclass(frozen=True)
class Metric:
    """What is compared; less is better. ``digits`` are those worth showing."""

    name: str
    title: str
    unit: str
    digits: int = 0


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("time_to_first_token_ms", "time to first content, median", "ms"),
        Metric("time_to_first_token_p95_ms", "time to first content, 95th percentile", "ms"),
        Metric("request_duration_ms", "time to last byte, median", "ms"),
        Metric("request_duration_p95_ms", "time to last byte, 95th percentile", "ms"),
        Metric("request_usd", "dollars for model calls per request", "USD", 6),
        Metric("input_tokens", "input tokens per request", "tokens"),
        Metric("output_tokens", "output tokens per request", "tokens"),
        Metric("error_rate", "requests that failed", "part", 3),
    )
}

STATEMENT_METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("statement_ms", "time of the statement", "ms", 2),
        Metric("statement_blocks", "blocks the statement touches", "blocks"),
        Metric("statement_rows", "rows the statement returns (more is better)", "rows", 1),
    )
}
"""What trials of one statement compare."""
KNOWN: Mapping[str, Metric] = {**METRICS, **STATEMENT_METRICS}

# A request that ran out of time took at least that long; one that failed otherwise says nothing of speed.
_ANSWERED = f"(error_type = 'timeout' OR NOT ({FAILED} OR coalesce(status_code, 0) >= 400))"

_REQUESTS = f"""
SELECT block, arm, count(*) AS requests,
       count(*) FILTER (coalesce({FAILED}, false) OR coalesce(status_code, 0) >= 400) AS failed,
       median(duration_ms) FILTER ({_ANSWERED}) AS request_duration_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) FILTER ({_ANSWERED}) AS request_duration_p95_ms,
       median(time_to_first_content_ms) FILTER ({_ANSWERED}) AS time_to_first_token_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY time_to_first_content_ms) FILTER ({_ANSWERED})
           AS time_to_first_token_p95_ms
FROM user_requests WHERE source = 'load' AND block IS NOT NULL GROUP BY block, arm
"""
_OF = "SELECT request_id, block, arm FROM user_requests WHERE source = 'load' AND block IS NOT NULL"
_CONTROLS = """
SELECT block, arm, median(duration_ms) AS ms FROM observed_http_requests
WHERE phase = 'control' AND block IS NOT NULL AND error_type IS NULL GROUP BY block, arm
"""

Priced = Callable[[OfTrial], pd.DataFrame]


class Evidence:
    """The rows of one trial in the recording at ``path``, those included that are still being written."""

    def __init__(self, path: Path, trial: str, *, priced: Priced = priced_calls) -> None:
        self._recording = OfTrial.of(path, trial)
        self._priced = priced

    def close(self) -> None:
        """Release what reading took."""
        self._recording.close()

    def spent_usd(self) -> float | None:
        """Return what the trial's model calls cost so far, as far as prices are known; None where there are none."""
        costs = self._calls()["cost_usd"].dropna()
        return float(costs.sum()) if len(costs) else None

    def blocks(self) -> Blocks:
        """Return each metric of each block and arm."""
        frame = prepare(self._recording).query(_REQUESTS)
        spent = self._spent()
        found: dict[Key, dict[str, float]] = {}
        for row in frame.to_dict("records"):
            key = (int(row["block"]), _letter(row["arm"]))
            values = {name: float(row[name]) for name in METRICS if name in row and pd.notna(row[name])}
            values["error_rate"] = smoothed_rate(int(row["failed"]), int(row["requests"]))
            values |= {name: total / int(row["requests"]) for name, total in spent.get(key, {}).items()}
            found[key] = values
        return found

    def controls(self) -> Blocks:
        """Return how long the control request took in each block, where one was sent."""
        frame = prepare(self._recording).query(_CONTROLS)
        return {
            (int(row.block), _letter(row.arm)): {"the control request": float(row.ms)} for row in frame.itertuples()
        }

    def counts(self) -> tuple[int, int]:
        """Return how many requests were measured, and how many of them failed."""
        frame = prepare(self._recording).query(_REQUESTS)
        return int(frame["requests"].sum()), int(frame["failed"].sum())

    def without_calls(self) -> int:
        """Return how many of the trial's requests made no model call; 0 where no call is seen at all."""
        calls = set(self._calls()["request_id"].dropna())
        return sum(owner not in calls for owner in prepare(self._recording).query(_OF)["request_id"]) if calls else 0

    def _calls(self) -> pd.DataFrame:
        return self._priced(self._recording)

    def _spent(self) -> dict[Key, dict[str, float]]:
        """Return dollars and tokens by block and arm; dollars only where every call has a price."""
        calls = self._calls()
        owners = prepare(self._recording).query(_OF)
        if calls.empty or calls["request_id"].isna().all():
            return {}
        joined = owners.merge(calls.drop(columns=["arm"], errors="ignore"), on="request_id", how="left")
        is_call = joined["call_id"].notna()
        columns = {"input_tokens": joined["input_tokens"], "output_tokens": joined["output_tokens"]}
        if "answered_by" in joined:  # by a cache in front of the provider: none were used
            columns = {name: values.mask(joined["answered_by"] == "cache", 0) for name, values in columns.items()}
        columns["request_usd"] = joined["cost_usd"]
        known = {name: values for name, values in columns.items() if _is_known(name, values[is_call])}
        totals = pd.DataFrame(known).astype(float).fillna(0.0).groupby([joined["block"], joined["arm"]]).sum()
        return {
            (int(block), _letter(arm)): {name: float(totals.at[(block, arm), name]) for name in known}
            for block, arm in totals.index
        }


def _is_known(name: str, values: "pd.Series[float]") -> bool:
    """Tell whether a sum of ``values`` means something: dollars need every call's price, tokens some call's count."""
    return bool(values.notna().all() if name == "request_usd" else values.notna().any())


def _letter(arm: str) -> str:
    return str(arm).rpartition("/")[2]


def ratios(blocks: Blocks, pairs: Sequence[tuple[int, int]]) -> dict[str, list[float]]:
    """Return the log ratios (B / A) of each metric over ``pairs`` of block numbers (of A, of B)."""
    names = {name for values in blocks.values() for name in values}
    found = {}
    for name in sorted(names):
        both = [(blocks.get((a, "A"), {}).get(name), blocks.get((b, "B"), {}).get(name)) for a, b in pairs]
        found[name] = log_ratios(both)
    return {name: values for name, values in found.items() if values}


def level(blocks: Blocks, metric: str, arm: str, numbers: Iterable[int]) -> float | None:
    """Return the typical value of ``metric`` in an arm: the geometric mean of its blocks; None where there is none."""
    values = [value for number in numbers if (value := blocks.get((number, arm), {}).get(metric))]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None
