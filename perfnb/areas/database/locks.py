"""Who waits for whom: locks, the tree of blockers, deadlocks, and what else of the server statements wait for."""

import json
from collections.abc import Mapping

import pandas as pd

from perfnb.areas.database.counters import counted
from perfnb.attribution import sees_requests, share_of_all_waits
from perfnb.attribution.sessions import looks_apart_ms, prepare_sessions, session_looks
from perfnb.checklist import check
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

PREPARED = 0
"""What the server gives as the blocker where a prepared transaction holds the lock."""

_WAITERS = """
SELECT time, server, pid, backend, application, query, wait_event, lock_mode, lock_on, blocked_by,
       greatest(0, (time - query_start) / 1e6) AS waited_ms
FROM observed_activity
WHERE wait_event_type = 'Lock' AND backend IS DISTINCT FROM 'autovacuum worker'
  AND NOT (wait_event = 'advisory' AND pid IN (SELECT any_value(pid) FROM observed_activity
           WHERE wait_event_type = 'Lock' AND wait_event = 'advisory' HAVING count(DISTINCT pid) = 1))
ORDER BY time, pid
"""
_COLUMNS = ["time", "pid", "application", "query", "mode", "on", "waited_ms", "blocker", "root", "depth"]


def lock_waits(recording: Recording) -> pd.DataFrame:
    """Return each session that waited for a lock at a look: who holds it, and who stands at the head of the queue.

    Columns: time (ns), pid, application, query, mode, on, waited_ms (since its statement began), blocker and root (pids;
    0 is a prepared transaction, NA where it was not told), depth (1 waits for the root itself). A lone session that
    waits for an advisory lock, as a standby leader does, is left out, and so are autovacuum's workers.
    """
    frame: pd.DataFrame = prepare_sessions(recording).derived("lock waits", lambda: _lock_waits(recording))
    return frame


def blockers(recording: Recording) -> pd.DataFrame:
    """Return the heads of the queues, most blocking first.

    Columns: root (pid), application, backend, state, query, transaction_ms (how long its transaction had been open, at
    most), blocked (sessions at most), looks, waited_ms (longest wait behind it), blocked_ms (session time behind it).
    """
    waits = lock_waits(recording).dropna(subset=["root"])
    apart = looks_apart_ms(session_looks(recording))
    rows = []
    for root, behind in waits.groupby("root"):
        seen = recording.query(
            "SELECT application, backend, state, query, greatest(0, (time - transaction_start) / 1e6) AS transaction_ms "
            "FROM observed_activity WHERE pid = $pid AND time BETWEEN $first AND $last ORDER BY time",
            {"pid": int(root), "first": int(behind["time"].min()), "last": int(behind["time"].max())},
        )
        last = seen.iloc[-1] if len(seen) else pd.Series(dtype=object)
        rows.append(
            {
                "root": int(root),
                **{name: last.get(name) for name in ("application", "backend", "state", "query")},
                "transaction_ms": float(seen["transaction_ms"].max()) if len(seen) else None,
                "blocked": int(behind.groupby("time")["pid"].nunique().max()),
                "looks": int(behind["time"].nunique()),
                "waited_ms": float(behind["waited_ms"].max()),
                "blocked_ms": float(len(behind) * apart),
            }
        )
    columns = [
        "root",
        "application",
        "backend",
        "state",
        "query",
        "transaction_ms",
        "blocked",
        "looks",
        "waited_ms",
        "blocked_ms",
    ]
    return pd.DataFrame(rows, columns=columns).sort_values("blocked_ms", ascending=False).reset_index(drop=True)


def lock_tree(recording: Recording, time: int | None = None) -> pd.DataFrame:
    """Return who waited for whom at one look, or at the one with most waiting: in drawing order, blockers before the blocked.

    Columns: depth (0 is a root), pid, application, state, query, mode, on, waited_ms, transaction_ms.
    """
    waits = lock_waits(recording)
    columns = ["depth", "pid", "application", "state", "query", "mode", "on", "waited_ms", "transaction_ms"]
    if waits.empty:
        return pd.DataFrame(columns=columns)
    moment = int(waits["time"].value_counts().idxmax()) if time is None else time
    found = recording.query(
        "SELECT pid, application, state, query, greatest(0, (time - transaction_start) / 1e6) AS transaction_ms "
        "FROM observed_activity WHERE time = $time",
        {"time": moment},
    ).set_index("pid")
    at = waits[waits["time"] == moment].set_index("pid")
    rows = []
    roots = sorted(set(at["root"].dropna().astype(int)))
    for pid, depth in _in_order(roots, at["blocker"].dropna().astype(int).to_dict()):
        session = found.loc[pid].to_dict() if pid in found.index else {}
        wait = at.loc[pid].to_dict() if pid in at.index else {}
        rows.append({"depth": depth, "pid": pid} | {name: session.get(name, wait.get(name)) for name in columns[2:]})
    return pd.DataFrame(rows, columns=columns)


def waits_by_event(recording: Recording) -> pd.DataFrame:
    """Return what the app's active sessions waited for: wait_event_type, wait_event (NA is running), looks, share, sessions (mean)."""
    return prepare_sessions(recording).query(
        """
        SELECT wait_event_type, wait_event, count(*) AS looks, count(*) / sum(count(*)) OVER () AS share,
               count(*) / (SELECT count(*) FROM session_looks) AS sessions
        FROM app_sessions WHERE state = 'active' GROUP BY wait_event_type, wait_event ORDER BY looks DESC, wait_event
        """
    )


def deadlocks(recording: Recording) -> int:
    """Return how many deadlocks the server broke meanwhile."""
    return int(counted(recording, "deadlocks")["step"].sum())


@check("lock-waits", area="database")
def lock_waits_check(
    recording: Recording,
    objectives: Objectives,
    *,
    least: int = 3,
    long_ms: float = 1000,
    min_share: float = 0.05,
    least_deadlocks: int = 3,
    often: int = 5,
    io_share: float = 0.6,
    least_io: int = 20,
) -> Finding | Clear:
    """Statements wait for locks that others hold, or for storage (R65).

    A wait counts from one second on, at which the server itself begins to look for deadlocks, or where one in ten looks
    finds a session waiting, five at least: a few looks tell little about short waits. The share is of the users' wait; where no requests were seen, of the statements' time.

    Source: C12; PostgreSQL manual (pg_blocking_pids, deadlock_timeout, wait events)
    """
    waits, looks, events = lock_waits(recording), session_looks(recording), waits_by_event(recording)
    active, broken = float(events["looks"].sum()), deadlocks(recording)
    by_type = events.groupby("wait_event_type")["looks"].sum()
    part = min(1.0, len(waits) / active) if active else 0.0
    longest = float(waits["waited_ms"].max()) if len(waits) else 0.0
    is_often = waits["time"].nunique() >= max(often, len(looks) / 10)
    is_locked = len(waits) >= least and part >= min_share and (longest >= long_ms or is_often)
    stored = float(by_type.get("IO", 0))
    is_stored = stored >= least_io and stored >= io_share * active and stored >= len(looks)
    if not is_locked and not is_stored and broken < least_deadlocks:
        return Clear(
            f"{len(waits)} of {active:.0f} times an active session was seen it waited for a lock, {stored:.0f} times for storage "
            f"({len(looks)} looks); {broken} deadlocks"
        )
    lost = (len(waits) if is_locked or broken >= least_deadlocks else stored) * looks_apart_ms(looks)
    share = (
        share_of_all_waits(recording, lost)
        if sees_requests(recording)
        else max(part, stored / active if is_stored else 0.0)
    )
    heads = blockers(recording)
    return Finding(
        title=_title(waits, heads, broken, is_locked, stored / active if active else 0.0),
        severity=severity(objectives["slow_statement_ms"].miss(max(longest, long_ms if broken else 0.0)), share),
        share=share,
        symptom="latency" if sees_requests(recording) else "database time",
        evidence=tuple(_evidence(waits, heads, looks, part, broken, by_type / active if active else by_type)),
        remedy=_remedy(heads, is_locked, broken),
        effort="medium",
        frame=lock_tree(recording) if len(waits) else events.head(20),
        figure="waits_by_event",
    )


def _lock_waits(recording: Recording) -> pd.DataFrame:
    found = recording.query(_WAITERS)
    by_look = {
        time: dict(zip(rows["pid"], rows["blocked_by"].map(_pids), strict=True)) for time, rows in found.groupby("time")
    }
    heads = [_head(int(row.pid), by_look[row.time]) for row in found.itertuples()]
    frame = found.rename(columns={"lock_mode": "mode", "lock_on": "on"}).assign(
        blocker=pd.array([head[0] for head in heads], dtype="Int64"),
        root=pd.array([head[1] for head in heads], dtype="Int64"),
        depth=[head[2] for head in heads],
    )
    return frame[_COLUMNS]


def _pids(blocked_by: object) -> tuple[int, ...]:
    return tuple(json.loads(blocked_by)) if isinstance(blocked_by, str) else ()


def _head(pid: int, blocked_by: Mapping[int, tuple[int, ...]]) -> tuple[int | None, int | None, int]:
    """Return who blocks ``pid``, who stands at the head of that queue, and how far away; a circle ends where it began."""
    direct = next(iter(blocked_by.get(pid, ())), None)
    seen, at, depth = {pid}, direct, 1
    while at is not None and at not in seen and blocked_by.get(at):
        seen.add(at)
        at, depth = blocked_by[at][0], depth + 1
    return direct, at, depth


def _in_order(roots: list[int], blocker_of: Mapping[int, int]) -> list[tuple[int, int]]:
    """Return pids with their depth, each below the one it waits for."""
    ordered: list[tuple[int, int]] = []
    seen: set[int] = set()

    def add(pid: int, depth: int) -> None:
        if pid in seen:
            return
        seen.add(pid)
        ordered.append((pid, depth))
        for waiter in sorted(waiter for waiter, blocker in blocker_of.items() if blocker == pid):
            add(waiter, depth + 1)

    for root in roots:
        add(root, 0)
    return ordered


def _title(waits: pd.DataFrame, heads: pd.DataFrame, broken: int, is_locked: bool, stored: float) -> str:
    if is_locked and len(heads):
        head = heads.iloc[0]
        return f"Up to {head['blocked']} sessions wait for a lock behind one {_state(head['state'])} (up to {head['waited_ms'] / 1000:.1f} s)"
    if is_locked:
        return f"Statements wait for locks, up to {waits['waited_ms'].max() / 1000:.1f} s"
    if broken:
        return f"The server broke {broken} deadlocks"
    return f"Statements wait for storage in {stored:.0%} of their time"


def _state(state: object) -> str:
    return f"session that is {state}" if isinstance(state, str) else "holder that is not seen"


def _evidence(
    waits: pd.DataFrame, heads: pd.DataFrame, looks: pd.DataFrame, part: float, broken: int, by_type: "pd.Series[float]"
) -> list[str]:
    said = []
    if len(waits):
        said.append(
            f"in {waits['time'].nunique()} of {len(looks)} looks a session waited for a lock, {part:.0%} of the time sessions were active; "
            f"up to {waits.groupby('time')['pid'].nunique().max()} at once"
        )
    for head in heads.head(2).itertuples():
        who = head.application or head.backend or "a session"
        opened = (
            "" if pd.isna(head.transaction_ms) else f", its transaction open for {head.transaction_ms / 1000:.1f} s"
        )
        query = f", last statement: {str(head.query)[:120]}" if isinstance(head.query, str) else ""
        said.append(f"the head of the queue is pid {head.root} ({who}), {head.state or 'not seen'}{opened}{query}")
    if len(waits) and waits["on"].notna().any():
        said.append(
            "what they wait for: "
            + ", ".join(f"{mode} on {on}" for (mode, on), _ in waits.groupby(["mode", "on"]).size().nlargest(2).items())
        )
    if broken:
        said.append(f"{broken} deadlocks meanwhile, each found after a second of waiting (deadlock_timeout)")
    rest = [f"{kind} {share:.0%}" for kind, share in by_type.items() if kind in ("IO", "LWLock") and share >= 0.05]
    return said + ([f"of the active time: {', '.join(rest)}"] if rest else [])


def _remedy(heads: pd.DataFrame, is_locked: bool, broken: int) -> str:
    if is_locked and len(heads) and str(heads["state"].iloc[0]).startswith("idle in transaction"):
        return "End the transaction at the head of the queue sooner: nothing but statements inside it. Guard with idle_in_transaction_session_timeout and lock_timeout."
    if is_locked or broken:
        return "Make the blocking transaction shorter, touch rows in the same order everywhere, run DDL with lock_timeout and retries, and take work from queues with SKIP LOCKED."
    return "Find the statements that read most (blocks read) and spare them the reading by an index or more memory; then look at the storage."
