"""How many connections an app needs: Little's law from what was measured, what the server allows, and scope before size.

The guides' tables (E4 to E6) and formula (E7: workers × 10) size a pool by traffic or by workers alone. What counts is
how long a request keeps a connection, and a pool belongs to one process: 8 workers with pools of 80 ask for 640.
"""

import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from perfnb.attribution import prepare
from perfnb.attribution.sessions import limits, looks_apart_ms, session_looks
from perfnb.attribution.statements import database_time_ms
from perfnb.errors import NotMeasured, WrongUse
from perfnb.recording import Recording

Verdict = Literal["release first", "enough", "enlarge", "shrink", "server is the limit", "put a pooler between"]

# A request should find a connection free at once in all but this part of the moments.
ALL_TAKEN = 0.01

# Part of the hold spent on other things than statements from which on the scope is what to change.
MOSTLY_WAITING = 0.5

# What the guides give each process; E4 to E6 by requests a minute, E7 by workers.
GUIDES: tuple[tuple[str, str, int], ...] = (
    ("E3", "asyncpg, max 20", 20),
    ("E4", "under 100 requests a minute: max 10", 10),
    ("E5", "100 to 1000 requests a minute: max 40", 40),
    ("E6", "over 1000 requests a minute: max 80", 80),
    ("E8", "tuned: max 40", 40),
    ("C34", "SQLAlchemy, 5 and 10 more", 15),
    ("C35", "high concurrency: 20 and 30 more", 50),
)


@dataclass(frozen=True)
class PoolAdvice:
    """How to size pools, with the numbers it follows from.

    Attributes:
        verdict: What to do first.
        needed_now: Connections in use on average, held as they are now (arrivals × hold).
        needed_released: The same once none is held while something else is waited for.
        per_process: Size to give each process's pool, after the verdict was followed.
        total: The same over all processes.
        may_open: What the processes may open today; None where the pool's size is not known.
        server_takes: What the server leaves to this app.
        active_cap: Statements the server runs at once with profit; None where its cores are not known.
        reasons: One sentence each, with numbers.
    """

    verdict: Verdict
    needed_now: float
    needed_released: float
    per_process: int
    total: int
    may_open: int | None
    server_takes: int
    active_cap: int | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class PoolDemand:
    """What a recording tells about the demand for connections; means over the window, durations a request.

    Attributes:
        arrival_per_s: Requests a second.
        hold_ms: Time a request keeps a connection: active or in an open transaction.
        sql_ms: Of it, time in statements.
        in_use: Connections in use on average.
        in_use_peak: … and at most.
        open_peak: Connections of the app at most, idle ones included.
        max_connections: What the server takes; None where it was not seen.
        reserved: Of them, for superusers.
        others: Connections that are not the app's, on average.
    """

    arrival_per_s: float
    hold_ms: float
    sql_ms: float
    in_use: float
    in_use_peak: int
    open_peak: int
    max_connections: int | None
    reserved: int
    others: int

    @property
    def outside_ms(self) -> float:
        """Return the part of the hold in which no statement ran."""
        return max(0.0, self.hold_ms - self.sql_ms)


def pool_advice(
    arrival_per_s: float,
    hold_ms: float,
    *,
    outside_ms: float = 0.0,
    processes: int = 1,
    pool_size: int | None = None,
    max_overflow: int = 0,
    max_connections: int = 100,
    reserved: int = 3,
    others: int = 0,
    cores: int | None = None,
    spindles: int = 1,
) -> PoolAdvice:
    """Return how to size the pools of ``processes`` that together get ``arrival_per_s`` requests.

    ``hold_ms`` is the mean time a request keeps a connection and ``outside_ms`` the part of it spent waiting for
    something else, such as a model. ``others`` are connections that are not this app's. Little's law needs means alone,
    and no percentile is made up from them; for headroom arrivals are taken to be independent (Poisson), so that the
    number in use is too, whatever the distribution of the hold.

    Source: E3, E4, E5, E6, E7, E8, C34, C35; Little's law; PostgreSQL wiki, Number Of Database Connections (cores × 2 + spindles)
    """
    _check(arrival_per_s, hold_ms, outside_ms, processes, max_connections)
    sql_ms = max(0.0, hold_ms - outside_ms)
    now, released = arrival_per_s * hold_ms / 1000, arrival_per_s * sql_ms / 1000
    releases = outside_ms >= MOSTLY_WAITING * hold_ms and now - released >= 1
    server_takes = max(0, max_connections - reserved - others)
    cap = None if cores is None else cores * 2 + spindles
    wanted = room_for((released if releases else now) / processes)
    per_process = _per_process(wanted, processes, server_takes, cap, released)
    may_open = None if pool_size is None else processes * (pool_size + max_overflow)
    made = PoolAdvice("enough", now, released, per_process, per_process * processes, may_open, server_takes, cap, ())
    verdict = _verdict(made, releases, processes, wanted)
    reasons = _reasons(made, arrival_per_s, hold_ms, sql_ms, processes, releases)
    return PoolAdvice(**{**made.__dict__, "verdict": verdict, "reasons": reasons})


def room_for(in_use: float, all_taken: float = ALL_TAKEN) -> int:
    """Return the fewest connections of which all are taken in less than ``all_taken`` of the moments, ``in_use`` being the mean.

    At least 1. Large means use the normal approximation.
    """
    if in_use > 500:
        return math.ceil(in_use + 2.33 * math.sqrt(in_use))
    size, term = 0, math.exp(-in_use)
    below = 0.0
    while 1 - below >= all_taken:
        below += term
        size += 1
        term *= in_use / size
    return max(1, size)


def guides(processes: int, needed: float, server_takes: int) -> pd.DataFrame:
    """Return what the guides' pools would come to here.

    Columns: guide, says, per_process, may_open (over all processes), fits (the server takes them), times_needed.
    """
    rows = [(*guide, guide[2] * processes) for guide in (*GUIDES, ("E7", "workers × 10 in each", 10 * processes))]
    frame = pd.DataFrame(rows, columns=["guide", "says", "per_process", "may_open"])
    return frame.assign(fits=frame["may_open"] <= server_takes, times_needed=frame["may_open"] / max(needed, 1.0))


def pool_demand(recording: Recording) -> PoolDemand:
    """Return the demand for connections in ``recording``; raises NotMeasured without sessions and requests.

    The hold is reckoned by Little's law from how many connections were in use at each look and how many requests ran
    meanwhile; arrivals are counted from the first to the last, so that a queue that drains afterwards does not thin them.
    Time in statements comes from their counters where they were read, else from looks that found a session active.
    """
    looks = session_looks(recording)
    starts = prepare(recording).query("SELECT start_time FROM user_requests ORDER BY start_time")["start_time"]
    looked_s = len(looks) * looks_apart_ms(looks) / 1000
    if starts.empty or not looked_s:
        raise NotMeasured(
            "no requests", hint="requests beside the sessions: perfnb record --dsn DSN --listen PORT --app URL"
        )
    span_s = float(starts.iloc[-1] - starts.iloc[0]) / 1e9
    in_use, known = float(looks["busy"].mean()), limits(recording)
    done_per_s = len(starts) / looked_s
    hold_ms = in_use / done_per_s * 1000
    return PoolDemand(
        arrival_per_s=(len(starts) - 1) / span_s if span_s else done_per_s,
        hold_ms=hold_ms,
        sql_ms=min(hold_ms, _sql_ms(recording, looks, len(starts))),
        in_use=in_use,
        in_use_peak=int(looks["busy"].max()),
        open_peak=int(looks["sessions"].max()),
        max_connections=known.most if known else None,
        reserved=known.reserved if known else 3,
        others=_others(recording, looks),
    )


def advice_for(
    recording: Recording,
    *,
    processes: int = 1,
    pool_size: int | None = None,
    max_overflow: int = 0,
    cores: int | None = None,
) -> PoolAdvice:
    """Return :func:`pool_advice` for the demand measured in ``recording``; what it can't know is given."""
    demand = pool_demand(recording)
    return pool_advice(
        demand.arrival_per_s,
        demand.hold_ms,
        outside_ms=demand.outside_ms,
        processes=processes,
        pool_size=pool_size,
        max_overflow=max_overflow,
        max_connections=demand.max_connections or 100,
        reserved=demand.reserved,
        others=demand.others,
        cores=cores,
    )


def _sql_ms(recording: Recording, looks: pd.DataFrame, requests: int) -> float:
    try:
        return database_time_ms(recording) / requests
    except NotMeasured:
        return float(looks["active"].sum()) * looks_apart_ms(looks) / requests


def _others(recording: Recording, looks: pd.DataFrame) -> int:
    """Return the server's connections that are not the app's, where both were counted."""
    found = recording.query(
        "SELECT avg(value) AS connections FROM observed_samples WHERE source = 'postgres' AND entity = 'server' "
        "AND metric = 'connections'"
    )["connections"].iloc[0]
    return 0 if pd.isna(found) else max(0, round(float(found) - float(looks["sessions"].mean())))


def _check(arrival_per_s: float, hold_ms: float, outside_ms: float, processes: int, max_connections: int) -> None:
    given = (arrival_per_s, hold_ms, outside_ms)
    if any(not math.isfinite(each) or each < 0 for each in given) or processes < 1 or max_connections < 1:
        raise WrongUse(
            "a pool can't be sized for that", hint="rates and times from 0 on, processes and connections from 1 on"
        )
    if outside_ms > hold_ms:
        raise WrongUse(
            f"outside_ms ({outside_ms:g}) is more than hold_ms ({hold_ms:g})", hint="it is a part of the hold"
        )


def _per_process(wanted: int, processes: int, server_takes: int, cap: int | None, active: float) -> int:
    """Return the size for each process: what it wants, as far as the server takes it and gains by it."""
    size = min(wanted, server_takes // processes)
    if cap is not None and active > cap:
        size = min(size, cap // processes)
    return max(1, size)


def _verdict(advice: PoolAdvice, releases: bool, processes: int, wanted: int) -> Verdict:
    opened = advice.may_open
    if releases:
        return "release first"
    if processes > advice.server_takes:
        return "put a pooler between"
    if opened is not None and opened > advice.server_takes:
        return "shrink"
    if wanted > advice.per_process:
        return "server is the limit"
    if opened is not None and advice.total > opened:
        return "enlarge"
    return "enough"


def _reasons(
    advice: PoolAdvice, arrival_per_s: float, hold_ms: float, sql_ms: float, processes: int, releases: bool
) -> tuple[str, ...]:
    where = "its one pool" if processes == 1 else f"each of {processes} pools"
    said = [
        f"{arrival_per_s:.3g} requests/s × {hold_ms:.4g} ms held = {advice.needed_now:.3g} connections in use on average"
    ]
    if releases:
        said.append(
            f"given back before the wait, {arrival_per_s:.3g} requests/s × {sql_ms:.3g} ms of statements = "
            f"{advice.needed_released:.2g}: change the scope first, then the size"
        )
    said.append(
        f"{advice.per_process} in {where} ({advice.total} in all): with independent arrivals all of one "
        f"pool are taken in less than {ALL_TAKEN:.0%} of the moments"
        if advice.per_process >= room_for((advice.needed_released if releases else advice.needed_now) / processes)
        else f"{advice.per_process} in {where} ({advice.total} in all) is what the server allows: requests will queue"
    )
    if advice.may_open is not None:
        verb = "more than" if advice.may_open > advice.server_takes else "within"
        said.append(
            f"today the pools may open {advice.may_open}, {verb} the {advice.server_takes} the server leaves to them"
        )
    if advice.active_cap is not None and advice.needed_released > advice.active_cap:
        said.append(
            f"{advice.needed_released:.3g} statements at once are more than the server runs with profit (cores × 2 + "
            f"spindles = {advice.active_cap}): more connections only queue inside it; make the statements faster"
        )
    return tuple(said)
