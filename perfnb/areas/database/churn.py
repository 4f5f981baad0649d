"""Sessions that begin and end again while the app runs, and which of them are the requests' own.

The server counts all sessions of a database: the app's, and those of reports, jobs and monitoring beside it. Looks at
the sessions show some of the short ones, with the program's name, and what each of them ran.
"""

from dataclasses import dataclass

import pandas as pd

from perfnb.areas.database.counters import BY_FORCE, counted
from perfnb.attribution import prepare
from perfnb.attribution.queries import ONE_AT_A_TIME, calls_per_request
from perfnb.attribution.sessions import HOW_TO_SEE_SESSIONS, looks_apart_ms, prepare_sessions, session_looks
from perfnb.attribution.shapes import shape_of
from perfnb.errors import NotMeasured
from perfnb.recording import Recording

# A program is a stranger once so many of its short sessions can't be a request's, and so large a part of them.
STRANGE_FROM = 3
STRANGE_PART = 0.2

# A request may be told of a little later, and a session a little longer, than they were.
SLACK_MS = 100

# The server keeps the first kilobyte of a statement (track_activity_query_size): a longer one can't be known again.
WHOLE_TEXT = 1000


@dataclass(frozen=True)
class Program:
    """One program's sessions as looks found them.

    Attributes:
        owner: role@database and the program's name.
        seen: Short sessions that were seen: begun and gone again.
        most: How many there were in all, at most: many of those that are gone sooner than two looks are not seen.
        lasting: Other sessions that were seen at work, as a pool's are.
        serves: Whether requests use the short ones; None where nothing tells.
        statement: What most of the short ones ran last.
    """

    owner: str
    seen: int
    most: float
    lasting: int
    serves: bool | None
    statement: str | None


@dataclass(frozen=True)
class Churn:
    """How sessions came and went.

    Attributes:
        begun: Sessions that began.
        ended: Those of them that are gone again, which a pool that opens does not add to, without those that the server
            ended by force.
        open: Sessions open at the end.
        requests: Requests meanwhile.
        largest_part: The part of the beginnings that fell between two readings.
        seconds: How long it was watched.
        seen_by: counters, which see every session, or looks (before version 14), which see those that live through one.
        programs: Whose sessions looks found, those with most short ones first.
    """

    begun: float
    ended: float
    open: float
    requests: int
    largest_part: float
    seconds: float
    seen_by: str
    programs: tuple[Program, ...] = ()

    @property
    def strangers(self) -> tuple[Program, ...]:
        """Return programs whose short sessions are not the requests'."""
        return tuple(program for program in self.programs if program.serves is False)

    @property
    def doubtful(self) -> tuple[Program, ...]:
        """Return programs of which nothing tells whether requests use their short sessions, while another's last and work."""
        return tuple(
            program
            for program in self.programs
            if program.seen
            and program.serves is None
            and any(other.lasting for other in self.programs if other.owner != program.owner)
        )

    @property
    def ended_for_requests(self) -> float:
        """Return how many of the ended sessions were not a stranger's, at least."""
        strange = (program.seen if self.seen_by == "looks" else program.most for program in self.strangers)
        return max(0.0, self.ended - sum(strange))

    @property
    def per_request(self) -> float:
        """Return how many sessions a request opened and threw away; 0 without requests."""
        return self.ended_for_requests / self.requests if self.requests else 0.0


def churn(recording: Recording) -> Churn:
    """Return how sessions came and went; raises NotMeasured where neither counters nor looks show them."""
    frame = counted(recording, "sessions", "connections", *BY_FORCE)
    begun = frame[frame["metric"] == "sessions"]
    if begun["time"].nunique() < 2:
        return _by_looks(recording)
    first, last = int(begun["time"].min()), int(begun["time"].max())
    opened = frame[frame["metric"] == "connections"].groupby("time")["value"].sum()
    total, forced = begun["step"].sum(), frame.loc[frame["metric"].isin(BY_FORCE), "step"].sum()
    growth, left = (opened.iloc[-1] - opened.iloc[0], float(opened.iloc[-1])) if len(opened) else (0.0, 0.0)
    return Churn(
        begun=float(total),
        ended=float(max(0.0, total - growth - forced)),
        open=left,
        largest_part=float(begun.groupby("time")["step"].sum().max() / total) if total else 0.0,
        seen_by="counters",
        programs=_programs_or_none(recording),
        requests=_requests_between(recording, first, last),
        seconds=(last - first) / 1e9,
    )


def _programs_or_none(recording: Recording) -> tuple[Program, ...]:
    """Return the programs; none where sessions were not looked at, or what they do is hidden from the role."""
    try:
        return programs(recording) if recording.has("activity") else ()
    except NotMeasured:
        return ()


def _by_looks(recording: Recording) -> Churn:
    if not recording.has("activity"):
        raise NotMeasured("no sessions of the database", hint=HOW_TO_SEE_SESSIONS)
    frame = prepare_sessions(recording).query(
        "SELECT min(session_start) AS began, min(time) AS first, max(time) AS last FROM app_sessions "
        "WHERE session_start IS NOT NULL GROUP BY pid, session_start"
    )
    first, last = (int(frame["first"].min()), int(frame["last"].max())) if len(frame) else (0, 0)
    new = frame[frame["began"] > first]
    return Churn(
        begun=len(new),
        ended=int((new["last"] < last).sum()),
        open=int((frame["last"] == last).sum()),
        largest_part=float(new["first"].value_counts(normalize=True).max()) if len(new) else 0.0,
        seen_by="looks",
        programs=programs(recording),
        requests=_requests_between(recording, first, last),
        seconds=(last - first) / 1e9,
    )


def _requests_between(recording: Recording, first: int, last: int) -> int:
    found = prepare(recording).query(
        "SELECT count(*) AS n FROM user_requests WHERE end_time > $first AND start_time < $last",
        {"first": first, "last": last},
    )
    return int(found["n"].iloc[0])


_LIVES = """
WITH span AS (SELECT min(time) AS first, max(time) AS last FROM app_sessions),
lives AS (
    SELECT pid, session_start, any_value(owner) AS owner, max(time) AS last, count(*) AS looks,
           avg(greatest(1, (time - session_start) / 1e6)) AS age_ms, list(DISTINCT query) AS queries,
           bool_or(is_busy) AND count(*) >= 3 AS is_lasting
    FROM app_sessions WHERE session_start IS NOT NULL AND role IS NOT NULL GROUP BY pid, session_start
)
SELECT l.*, l.session_start > s.first AND l.last < s.last AS is_short,
       EXISTS (SELECT 1 FROM user_requests r WHERE r.source <> 'call'
               AND r.start_time <= l.session_start + $slack AND r.end_time >= l.last - $slack) AS is_within_one
FROM lives l, span s ORDER BY l.session_start, l.pid
"""


def programs(recording: Recording) -> tuple[Program, ...]:
    """Return whose sessions there were, those with most short ones first.

    A short session is no request's where it ran none of the statements that requests are known to run, while other
    sessions did; where statements of requests are not known, where it began before or outlived any request. What can't
    be told is left open.
    """
    prepare(recording)
    lives = prepare_sessions(recording).query(_LIVES, {"slack": SLACK_MS * 1_000_000})
    shapes = _shapes_of_requests(recording)
    ran = lives["queries"].map(_shapes)
    own = ran.map(lambda keys: bool(keys & shapes))
    if own.any():
        lives = lives.assign(is_own=own, is_strange=[bool(keys) and not keys & shapes for keys in ran])
    else:
        lives = lives.assign(is_own=False, is_strange=~lives["is_within_one"].astype(bool))
    apart_ms = looks_apart_ms(session_looks(recording))
    found = [_program(str(owner), rows, apart_ms) for owner, rows in lives.groupby("owner")]
    return tuple(sorted(found, key=lambda program: -program.most))


def _shapes_of_requests(recording: Recording) -> set[str]:
    """Return the statements that are known to be requests'; none where counters alone can't tell them from others'."""
    try:
        known = calls_per_request(recording)
    except NotMeasured:
        return set()
    return set(known.loc[known["certainty"] >= ONE_AT_A_TIME, "shape"])


def _shapes(queries: list[str | None]) -> set[str]:
    shapes = [shape_of(query) for query in queries if query and len(query) < WHOLE_TEXT]
    return {shape.key for shape in shapes if shape.is_work}


def _program(owner: str, rows: pd.DataFrame, apart_ms: float) -> Program:
    is_short = rows["is_short"].astype(bool)
    short = rows[is_short]
    strange = int(short["is_strange"].sum())
    is_stranger = strange >= max(STRANGE_FROM, STRANGE_PART * len(short))
    texts = pd.Series([query for queries in short["queries"] for query in queries if query], dtype="object")
    return Program(
        owner=owner.strip(),
        seen=len(short),
        most=float(short["looks"].sum() * apart_ms / short["age_ms"].mean()) if len(short) else 0.0,
        lasting=int(rows.loc[~is_short, "is_lasting"].sum()),
        serves=True if short["is_own"].any() else False if is_stranger else None,
        statement=str(texts.mode().iloc[0]) if len(texts) else None,
    )
