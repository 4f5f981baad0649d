"""What belongs together: requests, the model calls made for them, and where each request's time went.

Everything here is worked out once per state of the recording and kept in temporary tables, which measures may query
after :func:`prepare`: ``user_requests`` (the columns of ``http_requests`` and end_time, one row per request),
``owned_calls`` (one row per attempt at a model call: ids, times, outcome, request_id, certainty, chain, attempt,
waited_ms) and ``model_calls`` (the same with all columns of ``llm_calls``). What was seen while a trial ran is left out;
the views ``observed_spans``, ``observed_stacks`` … hold the other tables' rows without it.
"""

import pandas as pd

from perfnb.attribution import calls as _calls
from perfnb.attribution import path as _path
from perfnb.attribution import requests as _requests
from perfnb.attribution import trees as _trees
from perfnb.attribution.observed import OfTrial, observed, observed_seconds
from perfnb.errors import NotMeasured
from perfnb.recording import Recording

__all__ = [
    "FAILED",
    "GENERATING",
    "OfTrial",
    "answers",
    "calls",
    "calls_on_path",
    "critical_path",
    "failed_requests",
    "is_false",
    "is_true",
    "observed",
    "observed_seconds",
    "prepare",
    "request_count",
    "requests",
    "sees_requests",
    "share_of_all_waits",
    "share_of_wait",
    "timeline_of",
    "total_wait_ms",
]

GENERATING = ("chat", "responses", "text_completion", "generate_content")

FAILED = "(status_code >= 500 OR status_code = 429 OR error_type IS NOT NULL OR coalesce(error_in_body, false))"

# Prompts that begin alike so often, among those of the same model and tools, are made from one template.
CALLS_OF_ONE_KIND = 3
PART_OF_ONE_KIND = 0.05

HOW_TO_SEE_CALLS = "model calls: perfnb record --upstream URL, or traces with GenAI spans"
HOW_TO_SEE_PROMPTS = "see prompts: perfnb record --upstream URL, or GenAI spans with message contents"
HOW_TO_SEE_REQUESTS = "requests or model calls: perfnb record --upstream URL --listen PORT --app URL, or --otlp"


def prepare(recording: Recording) -> Recording:
    """Make ``user_requests``, ``owned_calls`` and ``model_calls``, and return ``recording``."""

    def build() -> bool:
        _calls.build(recording)
        _requests.build(recording)
        return True

    recording.derived("attribution", build)
    return recording


def requests(recording: Recording) -> pd.DataFrame:
    """Return one row per user request: the columns of ``http_requests`` and ``end_time``, by start."""
    return prepare(recording).query("SELECT * EXCLUDE (body_sketch) FROM user_requests ORDER BY start_time")


def failed_requests(recording: Recording) -> pd.DataFrame:
    """Return the rows of :func:`requests` whose user got no answer: a 429 or 5xx, a broken connection, an error inside."""
    return prepare(recording).query(
        f"SELECT * EXCLUDE (body_sketch) FROM user_requests WHERE {FAILED} ORDER BY start_time"
    )


def request_count(recording: Recording) -> int:
    """Return how many requests users made."""
    return int(prepare(recording).query("SELECT count(*) AS n FROM user_requests")["n"].iloc[0])


def sees_requests(recording: Recording) -> bool:
    """Tell whether requests were seen, not only model calls that stand for them."""
    return not prepare(recording).query("SELECT 1 FROM user_requests WHERE source <> 'call' LIMIT 1").empty


def calls(recording: Recording) -> pd.DataFrame:
    """Return one row per attempt at a model call, by start.

    The columns of ``llm_calls`` without message contents, and request_id, certainty (0 to 1), chain (first attempt's
    call_id), attempt (from 1), waited_ms (since the attempt before ended).
    """
    return prepare(recording).query(
        "SELECT * EXCLUDE (messages, response_text, attributes) FROM model_calls ORDER BY start_time"
    )


def critical_path(recording: Recording) -> pd.DataFrame:
    """Return the nodes on the critical path of each request, or of a sample where there are very many.

    Columns: request_id, id, call_id, name, kind, exclusive_ms, before_first_token_ms. Within one request exclusive_ms
    adds up to the request's duration.
    """

    def build() -> pd.DataFrame:
        return _path.paths(recording, _path.sampled_requests(prepare(recording)))

    frame: pd.DataFrame = prepare(recording).derived("critical path", build)
    if frame.empty:
        raise NotMeasured("no requests and no model calls", hint=HOW_TO_SEE_REQUESTS)
    return frame


def total_wait_ms(recording: Recording) -> float:
    """Return the time all requests on the critical path took together."""
    return float(critical_path(recording)["exclusive_ms"].sum())


def timeline_of(recording: Recording, request_id: str) -> pd.DataFrame:
    """Return the waterfall of one request.

    Columns: id, name, kind, depth, start_ms (from the request's start), duration_ms, first_token_ms (from the node's
    start), on_critical_path_ms; in drawing order.
    """
    wanted = prepare(recording).query("SELECT * FROM user_requests WHERE request_id = $id", {"id": request_id})
    rows: list[dict[str, object]] = []
    for _, root in _trees.trees(recording, wanted):
        on_path: dict[int, float] = {}
        for segment in _path.critical_segments(root):
            key = id(segment.node)
            on_path[key] = on_path.get(key, 0) + (segment.end - segment.start) / 1e6
        for node, depth in _trees.in_drawing_order(root):
            rows.append(
                {
                    "id": node.id,
                    "name": node.name,
                    "kind": node.kind,
                    "depth": depth,
                    "start_ms": (node.start - root.start) / 1e6,
                    "duration_ms": (node.end - node.start) / 1e6,
                    "first_token_ms": None if node.first_token is None else (node.first_token - node.start) / 1e6,
                    "on_critical_path_ms": on_path.get(id(node), 0.0),
                }
            )
    return pd.DataFrame(rows)


def calls_on_path(recording: Recording) -> pd.DataFrame:
    """Return the attempts of the requests whose critical path is known, failed ones included.

    The columns of :func:`calls`, and on_path_ms (the part of the users' wait the attempt alone explains; 0 where it
    ran beside something longer), waiting_ms (that part before the first token) and generating_ms (after it; all of
    it where no first token was seen), first_digest (of the first message) and shape (calls of one kind: same model,
    tools and system prompt).
    """

    def build() -> pd.DataFrame:
        path = critical_path(recording)
        named = path.dropna(subset=["call_id"]).astype(
            {"call_id": object}
        )  # where none is, pandas takes them for numbers
        on_path = named.groupby("call_id")[["exclusive_ms", "before_first_token_ms"]].sum()
        connection = recording.refresh()
        connection.register("wanted_requests", path[["request_id"]].drop_duplicates())
        frame = connection.execute(_CALLS_OF_REQUESTS).df()
        connection.unregister("wanted_requests")
        frame = frame.join(on_path, on="call_id")
        frame["on_path_ms"] = frame.pop("exclusive_ms").fillna(0.0)
        frame["waiting_ms"] = frame.pop("before_first_token_ms").fillna(0.0)
        frame["generating_ms"] = frame["on_path_ms"] - frame["waiting_ms"]
        plain, opening = frame.pop("plain_shape"), frame.pop("opening")
        alike = opening.groupby([plain, opening]).transform("size")
        alike = alike >= (PART_OF_ONE_KIND * plain.groupby(plain).transform("size")).clip(lower=CALLS_OF_ONE_KIND)
        frame["shape"] = plain + "|" + opening.where(alike, "")
        return frame

    frame: pd.DataFrame = prepare(recording).derived("calls on path", build)
    if frame.empty:
        raise NotMeasured("no model calls", hint=HOW_TO_SEE_CALLS)
    return frame


_CALLS_OF_REQUESTS = """
SELECT * EXCLUDE (response_text, attributes, messages),
       coalesce(request_model, '') || '|' || coalesce(tools_offered, 0) AS plain_shape,
       CASE WHEN json_extract_string(messages, '$[0].role') IN ('system', 'developer')
            THEN coalesce(json_extract_string(messages, '$[0].opening'), json_extract_string(messages, '$[0].digest'))
            ELSE '' END AS opening
FROM model_calls WHERE request_id IN (SELECT request_id FROM wanted_requests)
ORDER BY start_time
"""


def answers(recording: Recording) -> pd.DataFrame:
    """Return the rows of :func:`calls_on_path` that generate text and succeeded."""
    frame = calls_on_path(recording)
    return frame[frame["operation"].isin(GENERATING) & frame["error_type"].isna()]


def share_of_wait(recording: Recording, lost_ms: float) -> float:
    """Return ``lost_ms``, of requests whose critical path is known, as a part (0 to 1) of the time these took."""
    return _part(lost_ms, total_wait_ms(recording))


def share_of_all_waits(recording: Recording, lost_ms: float) -> float:
    """Return ``lost_ms``, of any requests, as a part (0 to 1) of the time all requests took."""
    return _part(
        lost_ms, float(prepare(recording).query("SELECT sum(duration_ms) AS ms FROM user_requests")["ms"].iloc[0])
    )


def _part(lost_ms: float, total_ms: float) -> float:
    return float(min(1.0, max(0.0, lost_ms) / total_ms)) if total_ms > 0 else 0.0


def is_true(flags: pd.Series) -> pd.Series:
    """Return where ``flags`` says yes; unknown is not yes."""
    return flags.fillna(False).astype(bool)


def is_false(flags: pd.Series) -> pd.Series:
    """Return where ``flags`` says no; unknown is not no."""
    return ~flags.fillna(True).astype(bool)
