"""The recorded traffic as estimates replay it: calls with their dollars and their part of the users' wait."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from perfnb.attribution import FAILED, GENERATING, HOW_TO_SEE_PROMPTS, calls_on_path, critical_path, request_count
from perfnb.attribution.money import prepare_money, prices_of
from perfnb.errors import NotMeasured
from perfnb.prices import Prices
from perfnb.recording import Recording

HOW_TO_SEE_USAGE = "usage: record through the proxy (perfnb record --upstream URL), or GenAI spans with usage"

# A call that ends so little after the first content has given it.
SLACK_MS = 5.0

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Traffic:
    """What was recorded, ready to be replayed.

    Attributes:
        calls: One row per attempt at a model call, by start, indexed by call_id: the columns of ``model_calls`` without
            texts, dollars (NaN where unpriced), model, tool_names, and what the call explains of its request's wait:
            waiting_ms (before its first token) and generating_ms on the critical path, alone (the part of that, 0 to 1,
            in which no other call of the request ran), and phase (before, during or after the first content the user
            saw). Wait columns are NaN outside the sample of requests whose critical path is known.
        requests: The requests whose wait is known: duration_ms, first_ms (first content; NaN where it was not seen).
        request_count: How many requests users made.
    """

    recording: Recording
    calls: pd.DataFrame
    requests: pd.DataFrame
    request_count: int
    prices: Prices

    @property
    def answers(self) -> pd.DataFrame:
        """Return the calls that generated text and succeeded."""
        return self.calls[self.calls["operation"].isin(GENERATING) & self.calls["error_type"].isna()]

    @property
    def is_priced(self) -> bool:
        """Tell whether any call has a price."""
        return bool(self.calls["cost_usd"].fillna(0).sum() > 0)

    def sized(self) -> pd.DataFrame:
        """Return the answers whose tokens are known; raises NotMeasured where there are none."""
        answers = self.answers.dropna(subset=["input_tokens", "output_tokens"])
        if answers.empty:
            raise NotMeasured("no answer tells its tokens", hint=HOW_TO_SEE_USAGE)
        return answers[answers["answered_by"].isna()]

    def messages(self, calls: pd.DataFrame) -> dict[str, list[Entry]]:
        """Return what was kept of the messages of ``calls`` by call_id; raises NotMeasured where nothing was."""
        connection = self.recording.refresh()
        connection.register("wanted_calls", pd.DataFrame({"call_id": calls.index.astype(str)}))
        rows = connection.execute(_MESSAGES).fetchall()
        connection.unregister("wanted_calls")
        kept = {call_id: json.loads(messages) for call_id, messages in rows}
        if not any(kept.values()):
            raise NotMeasured("no call tells its messages", hint=HOW_TO_SEE_PROMPTS)
        return {call_id: messages for call_id, messages in kept.items() if messages}


_MESSAGES = """
SELECT call_id, CAST(messages AS VARCHAR) FROM model_calls
WHERE messages IS NOT NULL AND call_id IN (SELECT call_id FROM wanted_calls)
"""

_CALLS = """
SELECT m.* EXCLUDE (response_text, attributes, messages, response_sketch),
       coalesce(m.response_model, m.request_model) AS model,
       CAST(json_extract(m.attributes, '$.tools') AS VARCHAR) AS tool_names,
       coalesce(TRY_CAST(json_extract_string(m.attributes, '$.n') AS BIGINT), 1) AS choices, p.cost_usd
FROM model_calls m JOIN priced_calls p ON p.call_id = m.call_id
ORDER BY m.start_time, m.call_id
"""

# Requests of routes that never ask a model (health checks) would hide what happens to those that do.
_REQUESTS = f"""
SELECT request_id, source, stream, start_time, duration_ms, time_to_first_content_ms FROM user_requests r
WHERE duration_ms IS NOT NULL AND NOT coalesce({FAILED}, false)
  AND coalesce(route, '') IN (SELECT coalesce(route, '') FROM user_requests
                              WHERE request_id IN (SELECT request_id FROM owned_calls))
ORDER BY start_time, request_id
"""

_NUMBERS = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "duration_ms",
    "time_to_first_token_ms", "passages", "passage_tokens", "system_tokens", "tool_schema_tokens", "tools_offered",
    "history_messages", "history_tokens", "temperature", "max_tokens", "cost_usd",
)  # fmt: skip

_TEXTS = (
    "provider",
    "path",
    "operation",
    "request_model",
    "response_model",
    "model",
    "service_tier",
    "request_digest",
    "prompt_digest",
    "finish_reason",
    "error_type",
    "answered_by",
    "tool_names",
    "tool_calls",
    "request_id",
)
_FLAGS = ("stream", "client_disconnected")


def traffic(recording: Recording) -> Traffic:
    """Return the recorded traffic; raises NotMeasured where no model call was seen."""
    recording.require("llm_calls")
    found: Traffic = prepare_money(recording).derived("traffic", lambda: _traffic(recording))
    return found


def fresh_tokens(calls: pd.DataFrame) -> pd.Series:
    """Return the input tokens of each call that the provider did not read from its cache."""
    return (calls["input_tokens"].fillna(0) - calls["cache_read_tokens"].fillna(0)).clip(lower=0)


def _traffic(recording: Recording) -> Traffic:
    on_path = calls_on_path(recording).set_index("call_id")[["on_path_ms", "waiting_ms", "generating_ms"]]
    calls = recording.query(_CALLS)
    kinds: dict[str, Any] = {**dict.fromkeys(_NUMBERS, float), **dict.fromkeys(_TEXTS, object)}
    calls = calls.astype(kinds | dict.fromkeys(_FLAGS, "boolean"))  # a column of nulls alone has no type of its own
    calls = calls.set_index("call_id").join(on_path)
    calls["alone"] = _alone(calls)
    requests = recording.query(_REQUESTS).set_index("request_id")
    requests = requests.astype({"stream": "boolean", "duration_ms": float, "time_to_first_content_ms": float})
    requests = requests[requests.index.isin(critical_path(recording)["request_id"].unique())]
    requests["first_ms"] = _first_content(calls, requests)
    calls["phase"] = _phases(calls, requests)
    return Traffic(recording, calls, requests, request_count(recording), prices_of(recording))


def _alone(calls: pd.DataFrame) -> pd.Series:
    """Return the part of each call's time on the critical path in which no other call of its request ran."""
    alone = pd.Series(1.0, calls.index)
    together = calls[calls["on_path_ms"].notna()].groupby("request_id").filter(lambda group: len(group) > 1)
    for _, group in together.groupby("request_id"):
        starts, ends = group["start_time"].to_numpy(), group["end_time"].to_numpy()
        for position in np.flatnonzero(group["on_path_ms"].to_numpy() > 0):
            others = np.arange(len(group)) != position
            free = _uncovered_ms(starts[position], ends[position], starts[others], ends[others])
            alone[group.index[position]] = min(1.0, free / group["on_path_ms"].iloc[position])
    return alone


def _uncovered_ms(start: int, end: int, starts: np.ndarray, ends: np.ndarray) -> float:
    """Return how much of one interval (ns) no other one covers, in ms."""
    free, at = 0, start
    for begin, stop in sorted(zip(starts.tolist(), ends.tolist(), strict=True)):
        free += max(0, min(begin, end) - at)
        at = min(max(at, stop), end)
    return (free + max(0, end - at)) / 1e6


def _first_content(calls: pd.DataFrame, requests: pd.DataFrame) -> pd.Series:
    """Return when users saw the first content: as seen from outside, else at the end of an answer in one piece."""
    last = calls[calls["operation"].isin(GENERATING) & calls["error_type"].isna()].sort_values("end_time")
    streamed = last.groupby("request_id")["stream"].last()
    in_one_piece = ~requests.index.to_series().map(streamed).astype("boolean").fillna(True).astype(bool)
    seen = requests["time_to_first_content_ms"]
    return seen.where(seen.notna() | ~in_one_piece, requests["duration_ms"])


def _phases(calls: pd.DataFrame, requests: pd.DataFrame) -> pd.Series:
    """Return where each call lies to the first content its user saw."""
    first = requests["start_time"] + requests["first_ms"] * 1e6
    seen = calls["request_id"].map(first).to_numpy(float)
    phase = np.where(calls["end_time"] <= seen + SLACK_MS * 1e6, "before", "during")
    return pd.Series(np.where(calls["start_time"] >= seen, "after", phase), calls.index)
