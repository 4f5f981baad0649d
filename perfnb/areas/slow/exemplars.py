"""Single cases to look at: the slowest requests, and the stacks that were sampled while they ran."""

import pandas as pd

from perfnb.attribution import observed, prepare
from perfnb.errors import NotMeasured
from perfnb.recording import Recording

HOW_TO_SAMPLE = "stacks: perfnb record --pid PID (py-spy), or perfnb import STACKS.txt"


def slowest(recording: Recording, count: int = 8) -> pd.DataFrame:
    """Return the ``count`` slowest requests: request_id, route, start_time, duration_ms, status_code, error_type."""
    frame = prepare(recording).query(
        "SELECT request_id, route, start_time, duration_ms, status_code, error_type FROM user_requests "
        "WHERE duration_ms IS NOT NULL ORDER BY duration_ms DESC, request_id LIMIT $count",
        {"count": count},
    )
    if frame.empty:
        raise NotMeasured("no requests and no calls", hint="requests: perfnb record --listen PORT --app URL, or --otlp")
    return frame


def sampled_stacks(recording: Recording) -> pd.DataFrame:
    """Return collapsed stacks and their samples: those on the processor if it was profiled, else every look.

    Columns: stack, samples, mode (profile or dump).
    """
    frame = observed(recording).query(
        "SELECT stack, sum(samples) AS samples, mode FROM observed_stacks WHERE mode <> 'profile' OR on_cpu "
        "GROUP BY stack, mode ORDER BY samples DESC, stack"
    )
    if frame.empty:
        raise NotMeasured("no stacks", hint=HOW_TO_SAMPLE)
    profiled = frame[frame["mode"] == "profile"]
    return profiled if len(profiled) else frame
