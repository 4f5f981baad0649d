"""Clients that are made anew for each model call, and connections that end where a stream does."""

import numpy as np
import pandas as pd

from perfnb.areas.slow.provider import HOW_TO_PROXY
from perfnb.attribution import calls_on_path, observed, share_of_wait
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

ENDS_A_CONNECTION = ("timeout", "disconnected", "connection", "unfinished")

# What making a client looks like in stacks of Python: it sets up what TLS needs, whether or not it comes to use it.
MAKING = ("create_default_context", "create_ssl_context", "load_verify_locations", "load_default_certs")
LEAST_MAKING_MS = 1.0
"""CPU time of it for each new connection, from which on clients are made anew; it takes some 20 ms."""

LEAST_WHOLE = 5
"""Calls that are not streamed, from which on they tell what becomes of a connection afterwards."""

_MAKING_MS = f"""
SELECT sum(samples * period_ms) AS ms, count(*) AS stacks FROM observed_stacks
WHERE mode = 'profile' AND regexp_matches(stack, '{"|".join(MAKING)}')
"""


@check("client-per-request", area="slow")
def client_per_request(
    recording: Recording, objectives: Objectives, *, least: int = 10, fresh: float = 0.6
) -> Finding | Clear:
    """Nearly every model call comes over a connection of its own: a client is made for each (R92).

    More connections than calls ever under way at once can't be explained by concurrency. A caller that leaves before
    the end, or an answer that breaks off, ends its connection, so the next call needs a new one. Some clients end it at
    the end of every stream as well (the openai package closes a response at "[DONE]", before its last byte), so what
    tells are connections thrown away after an answer that was no stream, or stacks of clients being made.

    Source: C47 (a client opened per call, X44); users of httpx and openai clients made per request
    """
    frame = calls_on_path(recording)
    frame = frame[(frame["source"] == "proxy") & frame["connection_id"].notna()]
    if frame.empty:
        raise NotMeasured("no call tells its connection", hint=HOW_TO_PROXY)
    broken = int(frame["error_type"].isin(ENDS_A_CONNECTION).sum())
    opened = max(0, int((frame["connection_requests"] == 1).sum()) - broken)
    together = _most_at_once(frame)
    examined = f"{len(frame)} calls came over {opened} new connections, {together} under way at once"
    if len(frame) < least or opened < fresh * len(frame) or opened <= 2 * together:
        return Clear(examined)
    how = _told(recording, frame, opened, fresh)
    if how is None:
        return Clear(f"{examined}; where a stream has been is none used again, and that may be the stream's end")
    connect = frame["connect_ms"].dropna()
    cost = float(connect.median()) if len(connect) else 0.0
    share = share_of_wait(recording, cost * opened)
    return Finding(
        title=f"{opened} of {len(frame)} model calls opened a new connection",
        severity="medium" if share < 0.25 else severity(2.5, share),
        share=share,
        evidence=(
            f"{opened} connections for {len(frame)} calls, though at most {together} were under way at once",
            how,
            f"each costs a TCP and TLS handshake ({cost:.0f} ms to this provider) and the making of a client",
        ),
        remedy="Make one client when the app starts and use it for every call; it keeps connections open.",
        effort="low",
        frame=frame[["call_id", "connection_id", "connection_requests", "connect_ms"]].head(50),
        figure="speed_by_model",
    )


def _told(recording: Recording, frame: pd.DataFrame, opened: int, fresh: float) -> str | None:
    """Return what tells that clients are made anew; None where connections end with streams alone.

    Raises NotMeasured where all calls are streamed and no stack of the app was seen.
    """
    is_streamed = frame["stream"].astype("boolean").fillna(False).astype(bool)
    whole = frame[~is_streamed]
    used = frame.groupby("connection_id")["call_id"].transform("size")
    thrown = int((used[~is_streamed] == 1).sum())
    if len(whole) >= LEAST_WHOLE and thrown >= fresh * len(whole):
        return f"{thrown} of {len(whole)} connections were thrown away after one answer that was no stream"
    seen = observed(recording).query(_MAKING_MS).iloc[0]
    making_ms = float(seen["ms"] or 0) if seen["stacks"] else 0.0
    if making_ms >= LEAST_MAKING_MS * opened:
        return f"stacks show clients being made: {making_ms / opened:.0f} ms of CPU time for each connection"
    if len(whole) < LEAST_WHOLE and not recording.has("stacks"):
        raise NotMeasured(
            "calls are streamed, and some clients end a connection where a stream ends",
            hint="stacks of the app, which show whether clients are made anew: perfnb record --pid PID",
        )
    return None


def _most_at_once(frame: pd.DataFrame) -> int:
    moments = np.concatenate([frame["start_time"].to_numpy(), frame["end_time"].to_numpy()])
    steps = np.concatenate([np.ones(len(frame)), -np.ones(len(frame))])
    order = np.lexsort((steps, moments))
    return int(np.cumsum(steps[order]).max())
