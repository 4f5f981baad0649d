"""Connections that wait in an open transaction for as long as the model answers."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from perfnb.areas.database.kept_out import KeptOut, kept_out
from perfnb.areas.database.pools import PoolDemand, pool_advice, pool_demand
from perfnb.attribution import observed, prepare
from perfnb.attribution.sessions import HOW_TO_SEE_SESSIONS, looks_apart_ms, prepare_sessions, session_looks
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

# Between two statements of one transaction an app may take this long; and clocks of two hosts are this far apart.
PAUSE_MS = 200.0
SLACK_MS = 50.0

# Of the time a session has been idle in its transaction, the part the model call must have been under way.
COVERED = 0.5

_OPEN = f"""
SELECT time, pid, owner, transaction_start, state_change, state_ms, query FROM app_sessions
WHERE is_in_open_transaction AND state_ms >= {PAUSE_MS} AND coalesce(wait_event, 'ClientRead') = 'ClientRead'
ORDER BY time, pid
"""
_CALLS = f"""
SELECT call_id, request_id, start_time, end_time, duration_ms FROM owned_calls WHERE duration_ms >= {PAUSE_MS}
"""
GIVE_BACK = (
    "Read what the prompt needs, end the transaction and give the connection back before the model is asked; take "
    "another to store the answer."
)
_HELD_COLUMNS = ["time", "pid", "owner", "state_ms", "query", "call_id", "request_id", "call_ms", "gap_ms"]


@dataclass(frozen=True)
class Match:
    """How well open transactions and model calls go together in time.

    Attributes:
        looks: Times a session was seen idle in a transaction for longer than a pause between statements.
        held: Of them, those that go with a call of their own.
        chance: Part that goes with a call when the calls are moved to other times.
        without_calls: Sessions idle in a transaction when no call was under way, as part of those when one was.
        of_calls: Held sessions for each call under way.
    """

    looks: int
    held: int
    chance: float
    without_calls: float
    of_calls: float

    @property
    def part(self) -> float:
        """Return the part of the looks that goes with a call."""
        return self.held / self.looks if self.looks else 0.0

    @property
    def is_told_from_chance(self) -> bool:
        """Tell whether the sessions go with calls more than chance has it, or are as many as the calls."""
        return self.part - self.chance >= 0.2 or 0.5 <= self.of_calls <= 1.25


def held_sessions(recording: Recording) -> pd.DataFrame:
    """Return sessions seen idle in a transaction while a model call went on that began after their last statement.

    One row per session and look, each call given to one session at most. Columns: time (ns), pid, owner, state_ms,
    query (the last statement), call_id, request_id, call_ms, gap_ms (from the last statement to the call).
    """
    frame: pd.DataFrame = recording.derived("held sessions", lambda: _held(recording))
    return frame


def match(recording: Recording) -> Match:
    """Return how well open transactions and model calls go together in time."""
    waiting, calls = _open_and_calls(recording)
    looks = session_looks(recording)
    held = held_sessions(recording)
    is_with_call = looks["calls_in_flight"] > 0
    counts = looks["time"].map(waiting["time"].value_counts()).fillna(0)
    beside, apart = counts[is_with_call].mean(), counts[~is_with_call].mean()
    under_way = _in_flight(calls, looks["time"].to_numpy()).sum()
    return Match(
        looks=len(waiting),
        held=len(held),
        chance=_chance(waiting, calls),
        without_calls=float(apart / beside) if beside and not np.isnan(apart) else 0.0,
        of_calls=float(len(held) / under_way) if under_way else 0.0,
    )


def held_by_trace(recording: Recording) -> pd.DataFrame:
    """Return model calls that a trace shows between the beginning and the end of a transaction.

    Columns: trace_id, call_id, request_id, call_ms, transaction_ms. Only drivers that trace BEGIN and COMMIT tell.
    """
    return prepare(recording).query(
        """
        WITH edges AS (
            SELECT trace_id, start_time, start_time + CAST(duration_ms * 1e6 AS BIGINT) AS end_time,
                   CASE WHEN upper(trim(coalesce(statement, name))) LIKE 'BEGIN%'
                          OR upper(trim(coalesce(statement, name))) LIKE 'START TRANSACTION%' THEN 'begin'
                        WHEN upper(trim(coalesce(statement, name))) LIKE 'COMMIT%'
                          OR upper(trim(coalesce(statement, name))) LIKE 'ROLLBACK%' THEN 'end' END AS edge
            FROM observed_spans WHERE operation = 'database' AND trace_id IS NOT NULL
        ),
        following AS (
            SELECT *, lead(edge) OVER trace AS next_edge, lead(start_time) OVER trace AS next_time
            FROM edges WHERE edge IS NOT NULL WINDOW trace AS (PARTITION BY trace_id ORDER BY start_time)
        )
        SELECT c.trace_id, c.call_id, c.request_id, c.duration_ms AS call_ms,
               (f.next_time - f.end_time) / 1e6 AS transaction_ms
        FROM following f JOIN owned_calls c
          ON c.trace_id = f.trace_id AND c.start_time >= f.end_time AND c.end_time <= f.next_time
        WHERE f.edge = 'begin' AND f.next_edge = 'end'
        """
    )


def hold_split(recording: Recording) -> pd.Series:
    """Return where the app's session time goes, in ms over the window: active, held (for the model), other (open, idle).

    Reckoned from looks, each standing for the time between two.
    """
    looks = session_looks(recording)
    apart, held = looks_apart_ms(looks), len(held_sessions(recording))
    other = looks["in_open_transaction"].sum() - held
    return pd.Series({"active": looks["active"].sum(), "held": held, "other": max(0, other)}) * apart


@check("connection-held-during-model-call", area="database")
def connection_held_during_model_call(
    recording: Recording,
    objectives: Objectives,
    *,
    least: int = 5,
    least_calls: int = 3,
    min_part: float = 0.6,
    max_without_calls: float = 0.4,
) -> Finding | Clear:
    """A database connection is kept, idle, while the model answers (R89).

    Seen where sessions idle in a transaction go with model calls one to one: each call began after the session's last
    statement, in its transaction, and there are hardly any such sessions when no call is under way. Or by traces that
    show the transaction around the call. Or, no transaction being open, by the app's own pool: it lends out connections
    whose sessions do nothing, as many as requests wait for the model. The share is of the time in which the app's
    connections are in use.

    Source: E52, E86; users of RAG servers whose chat streams emptied the pool (fojin 649, ApeRAG 1086); PostgreSQL manual, idle_in_transaction_session_timeout
    """
    if not prepare(recording).has("llm_calls"):
        raise NotMeasured(
            "no model calls", hint="model calls beside the sessions: perfnb record --upstream URL --dsn DSN"
        )
    traced = held_by_trace(recording)
    sees_sessions = recording.has("activity")
    held = held_sessions(recording) if sees_sessions else pd.DataFrame(columns=_HELD_COLUMNS)
    found = match(recording) if sees_sessions else Match(0, 0, 0.0, 0.0, 0.0)
    by_time = (
        len(held) >= least
        and held["call_id"].nunique() >= least_calls
        and found.part >= min_part
        and found.without_calls <= max_without_calls
        and found.is_told_from_chance
    )
    lent = kept_out(recording)
    if not by_time and len(traced) < least_calls:
        if lent and lent.goes_with_calls and lent.share >= min_part:
            return _kept_out(recording, objectives, lent)
        return _clear(recording, found, traced, sees_sessions, lent)
    calls = (held if by_time else traced).drop_duplicates("call_id")
    share = _share(recording) if by_time else float(min(1.0, traced["call_ms"].sum() / traced["transaction_ms"].sum()))
    wait_ms = float(calls["call_ms"].median())
    return Finding(
        title=f"Database connections wait in an open transaction while the model answers ({wait_ms / 1000:.1f} s each)",
        severity=severity(objectives["connection_hold_ms"].miss(wait_ms), share),
        share=share,
        symptom="connections",
        evidence=(*(_seen(recording, held, found) if by_time else ()), *_traced(traced), *_needed(recording)),
        remedy=f"{GIVE_BACK} Set idle_in_transaction_session_timeout as a guard. Enlarging the pool comes after.",
        effort="medium",
        frame=held.head(50) if by_time else traced.head(50),
        figure="connections_over_time",
        exemplars=tuple(calls["request_id"].dropna().unique()[:3]),
    )  # fmt: skip


def _kept_out(recording: Recording, objectives: Objectives, lent: KeptOut) -> Finding:
    calls = prepare(recording).query("SELECT request_id, duration_ms FROM owned_calls ORDER BY duration_ms DESC")
    wait_ms = float(calls["duration_ms"].median())
    return Finding(
        title=f"Database connections are kept out of the pool while the model answers ({wait_ms / 1000:.1f} s each)",
        severity=severity(objectives["connection_hold_ms"].miss(wait_ms), lent.share),
        share=lent.share,
        symptom="connections",
        evidence=(
            f"the pool lends out {lent.used:.1f} connections on average ({lent.readings} readings), of which the server sees {lent.busy:.1f} do anything",
            f"the other {lent.idle:.1f} are as many as requests wait for the model ({lent.asking:.1f})"
            + ("" if np.isnan(lent.together) else f", and come and go with them (correlation {lent.together:.2f})"),
            f"given back before the call, {max(lent.busy, 0.1):.1f} would be in use",
        ),
        remedy=f"{GIVE_BACK} No transaction is open, so no timeout of the server guards against it. Enlarging the pool comes after.",
        effort="medium",
        figure="connections_over_time",
        exemplars=tuple(calls["request_id"].dropna().unique()[:3]),
    )  # fmt: skip


def _clear(
    recording: Recording, found: Match, traced: pd.DataFrame, sees_sessions: bool, lent: KeptOut | None
) -> Clear:
    spans = (
        observed(recording).query("SELECT count(*) AS n FROM observed_spans WHERE operation = 'database'")["n"].iloc[0]
    )
    if not sees_sessions and not spans:
        raise NotMeasured("neither sessions nor database spans", hint=HOW_TO_SEE_SESSIONS)
    if not sees_sessions:
        return Clear(
            f"{len(traced)} model calls lie between BEGIN and COMMIT of a trace ({spans} database spans; sessions were not looked at)"
        )
    looks = session_looks(recording)
    return Clear(
        f"{found.held} of {found.looks} times a session was idle in a transaction for over {PAUSE_MS:.0f} ms it went with a model "
        f"call ({len(looks)} looks at up to {looks['sessions'].max()} sessions); "
        + (
            f"pools lent out {lent.used:.1f} connections on average, {lent.idle:.1f} of them idle"
            if lent
            else "one kept without a transaction only the app's pool metrics would show"
        )
    )


def _share(recording: Recording) -> float:
    split = hold_split(recording)
    return float(split["held"] / split.sum()) if split.sum() else 0.0


def _seen(recording: Recording, held: pd.DataFrame, found: Match) -> list[str]:
    looks = session_looks(recording)
    counts = looks["time"].map(held["time"].value_counts()).fillna(0)
    split = hold_split(recording)
    return [
        f"{counts.mean():.1f} sessions on average and {counts.max():.0f} at most were idle in a transaction beside "
        f"{looks['calls_in_flight'].mean():.1f} model calls under way",
        f"{found.held} of {found.looks} such looks go with a call that began {held['gap_ms'].median():.0f} ms (median) after the "
        f"session's last statement; with no call under way there are {found.without_calls:.0%} as many such sessions",
        f"of the time connections are in use {split['held'] / split.sum():.0%} is waiting for the model, {split['active'] / split.sum():.0%} is statements",
    ]


def _traced(traced: pd.DataFrame) -> list[str]:
    if traced.empty:
        return []
    return [
        f"traces show {len(traced)} model calls between BEGIN and COMMIT, of transactions of {traced['transaction_ms'].median():.0f} ms (median)"
    ]


def _needed(recording: Recording) -> list[str]:
    try:
        demand: PoolDemand = pool_demand(recording)
    except NotMeasured:
        return []
    advice = pool_advice(demand.arrival_per_s, demand.hold_ms, outside_ms=demand.outside_ms)
    return [
        f"{demand.arrival_per_s:.2g} requests/s × {demand.hold_ms / 1000:.2g} s held = {advice.needed_now:.2g} connections in use; "
        f"given back before the call, × {demand.sql_ms:.2g} ms of statements = {advice.needed_released:.2g}"
    ]


def _open_and_calls(recording: Recording) -> tuple[pd.DataFrame, pd.DataFrame]:
    return prepare_sessions(recording).query(_OPEN), recording.query(_CALLS)


def _held(recording: Recording) -> pd.DataFrame:
    return _matched(*_open_and_calls(recording))


def _matched(waiting: pd.DataFrame, calls: pd.DataFrame) -> pd.DataFrame:
    """Return the sessions that go with a call each: at every look the nearest pairs first, each side once."""
    starts, ends = calls["start_time"].to_numpy(), calls["end_time"].to_numpy()
    rows = []
    for time, sessions in waiting.groupby("time"):
        under_way = np.flatnonzero((starts <= time) & (ends > time))
        pairs = _pairs(int(str(time)), sessions, starts, under_way)
        taken_sessions: set[int] = set()
        taken_calls: set[int] = set()
        for gap, row, call in sorted(pairs):
            if row not in taken_sessions and call not in taken_calls:
                taken_sessions.add(row)
                taken_calls.add(call)
                rows.append((row, call, gap / 1e6))
    found = waiting.loc[[row for row, _, _ in rows]].reset_index(drop=True)
    given = calls.iloc[[call for _, call, _ in rows]].reset_index(drop=True)
    return found.assign(
        call_id=given["call_id"], request_id=given["request_id"], call_ms=given["duration_ms"],
        gap_ms=[gap for _, _, gap in rows],
    )[_HELD_COLUMNS]  # fmt: skip


def _pairs(time: int, sessions: pd.DataFrame, starts: np.ndarray, under_way: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (gap, session, call) for each call that may be what a session waits for."""
    slack = int(SLACK_MS * 1e6)
    pairs = []
    for session in sessions.itertuples():
        idle = max(1, time - int(session.state_change))
        for call in under_way:
            gap = int(starts[call]) - int(session.state_change)
            began = session.transaction_start
            if (
                gap >= -slack
                and (pd.isna(began) or began <= starts[call] + slack)
                and (time - int(starts[call])) >= COVERED * idle
            ):
                pairs.append((max(0, gap), int(session.Index), int(call)))
    return pairs


def _chance(waiting: pd.DataFrame, calls: pd.DataFrame) -> float:
    """Return the part of the looks that would go with calls had these been at other times: moved by thirds of the window."""
    if waiting.empty or calls.empty:
        return 0.0
    first, last = int(calls["start_time"].min()), int(calls["end_time"].max())
    parts = []
    for third in (1, 2):
        moved = first + (calls["start_time"] - first + third * (last - first) // 3) % max(1, last - first)
        shifted = calls.assign(start_time=moved, end_time=moved + (calls["end_time"] - calls["start_time"]))
        parts.append(len(_matched(waiting, shifted)) / len(waiting))
    return float(np.mean(parts))


def _in_flight(calls: pd.DataFrame, moments: np.ndarray) -> np.ndarray:
    started = np.searchsorted(np.sort(calls["start_time"].to_numpy()), moments, side="right")
    ended = np.searchsorted(np.sort(calls["end_time"].to_numpy()), moments, side="right")
    return np.asarray(started - ended)
