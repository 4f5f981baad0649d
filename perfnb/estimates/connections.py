"""A database connection given back before the model is asked."""

import pandas as pd

from perfnb.attribution import prepare
from perfnb.errors import NotMeasured
from perfnb.estimates.change import Prediction, change
from perfnb.finding import Estimate
from perfnb.recording import Recording

LEAST_LOOKS = 5
PAUSE_MS = 200.0
"""Idle in a transaction for longer is no pause between two statements."""
HOW_TO_SEE_SESSIONS = "sessions: perfnb record --dsn DSN, as the app's role or one with pg_monitor"

# Sessions in use are those in a transaction or a statement; the calls are those under way at the same moment.
_LOOKS = f"""
WITH looks AS (
    SELECT time, count(*) FILTER (state IN ('active', 'fastpath function call')) AS active,
           count(*) FILTER (state LIKE 'idle in transaction%') AS open,
           count(*) FILTER (state LIKE 'idle in transaction%' AND (time - state_change) / 1e6 >= {PAUSE_MS}) AS waiting
    FROM observed_activity
    WHERE coalesce(backend, 'client backend') = 'client backend' AND coalesce(application, '') NOT LIKE 'perfnb%'
    GROUP BY time
)
SELECT l.*, (SELECT count(*) FROM model_calls c WHERE c.start_time <= l.time AND c.end_time > l.time) AS calls
FROM looks l ORDER BY time
"""


@change(
    "release_connection",
    title="Give the database connection back before the model is asked",
    causes=("connection-held-during-model-call", "pool-exhausted"),
)
def release_connection(recording: Recording) -> Prediction:
    """Return how many connections would be in use if none waited in a transaction for the model's answer.

    By Little's law the mean number in use is arrivals a second times the time each is held, so that it is read off the
    sessions themselves: those that wait are what the model's time adds.

    Source: E52, E86; J. D. C. Little (1961), L = λW
    """
    recording.require("activity", "llm_calls")
    looks = prepare(recording).query(_LOOKS)
    if len(looks) < LEAST_LOOKS:
        raise NotMeasured(f"only {len(looks)} looks at sessions", hint=HOW_TO_SEE_SESSIONS)
    used = looks["active"] + looks["open"]
    sure = looks[["waiting", "calls"]].min(axis=1)
    assumptions = (
        f"low: no session stays open between statements; high: only those go that were idle for over {PAUSE_MS:.0f} ms, no more than model calls were under way",
        "as many requests come as before, and statements take as long",
    )
    not_modelled = (
        "requests that come faster because none waits for a connection",
        "more transactions: one before and one after the call",
    )
    effects = tuple(
        Estimate(name, float(of(used)), float(of(used - looks["open"])), float(of(used - sure)), assumptions, not_modelled)
        for name, of in (("connections_in_use", pd.Series.mean), ("connections_in_use_most", pd.Series.max))
        if float(of(used)) > 0
    )  # fmt: skip
    if not effects:
        raise NotMeasured("no session was in use at any look", hint="record while users are there")
    return Prediction(
        effects,
        f"in {len(looks)} looks {used.mean():.1f} connections were in use on average, {sure.mean():.1f} of them idle in a transaction beside a model call",
        assumptions,
        not_modelled,
        looks.head(50),
    )
