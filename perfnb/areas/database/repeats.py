"""N+1 queries, and rows fetched one by one by ids that are known: what a loop over ids costs, and how to ask once."""

from collections.abc import Mapping

import pandas as pd

from perfnb.areas.database.loops import N_PLUS_ONE, PER_ID, repeated
from perfnb.areas.database.workload import brief, felt_severity
from perfnb.attribution.queries import LOOP_FROM, calls_per_request
from perfnb.checklist import check
from perfnb.finding import Clear, Estimate, Finding, Severity
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording


@check("n-plus-one", area="database")
def n_plus_one(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.1, min_share_of_wait: float = 0.05
) -> Finding | Clear:
    """For each row of a list, a request reads rows of another table with a statement of its own (R57).

    Exact with traces: the same statement five times or more in a request, no model call between. With counters alone:
    a select of about one row that runs five times or more for each request, beside one whose rows are enough for it.

    Source: C58; PostgreSQL manual, pg_stat_statements; OpenTelemetry semantic conventions for database spans
    """
    return _named(
        recording, N_PLUS_ONE, min_share, min_share_of_wait,
        remedy="Fetch them with the list: SQLAlchemy options(joinedload(Parent.child)) for one each, selectinload for many each; Django select_related, prefetch_related; in SQL a JOIN, or WHERE key = ANY(%s) with a list.",
    )  # fmt: skip


@check("per-id-queries", area="database")
def per_id_queries(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.1, min_share_of_wait: float = 0.05
) -> Finding | Clear:
    """Rows are fetched one by one by ids the app knows beforehand, where one statement could bring them all (R58).

    The ids come from a search in the same table, from a vector store, or from outside; otherwise it is n-plus-one.
    psycopg takes ``= ANY(%s)`` with a list; ``IN %s`` with a tuple is a syntax error in version 3.

    Source: B22; psycopg 3 documentation, differences from psycopg2
    """
    return _named(
        recording, PER_ID, min_share, min_share_of_wait,
        remedy="Ask for all of them at once and put them in order in the app: cursor.execute(\"SELECT … WHERE id = ANY(%s)\", [ids]); or let the statement that finds the ids return the columns.",
    )  # fmt: skip


def _named(
    recording: Recording, cause: str, min_share: float, min_share_of_wait: float, remedy: str
) -> Finding | Clear:
    frame = repeated(recording)
    mine = frame[frame["cause"] == cause]
    felt = (mine["share"] >= min_share) | (mine["share_of_wait"] >= min_share_of_wait)
    found = mine[felt]
    if found.empty:
        return Clear(_examined(recording, mine, len(frame) - len(mine)))
    first = found.iloc[0]
    share = float(min(1.0, found["share"].sum()))
    return Finding(
        title=f"A request reads {first['table']} by {first['column']} {first['turns']:.0f} times, one row after another",
        severity=_severity(first, share),
        share=share,
        symptom="database time",
        evidence=tuple(_evidence(first, cause)),
        remedy=remedy,
        effort="low",
        estimate=_estimate(recording, first),
        frame=_shown(found),
        figure="statements_per_request",
        exemplars=tuple(first["exemplars"])[:3],
    )


def _severity(first: pd.Series, share: float) -> Severity:
    """Counters hold no round trips, so how much users feel of a loop is known by traces alone."""
    miss = first["turns"] / LOOP_FROM * 1.1
    return (
        felt_severity(miss, share, first["share_of_wait"]) if first["certainty"] == 1 else severity(min(miss, 5), share)
    )


def _examined(recording: Recording, mine: pd.DataFrame, others: int) -> str:
    if len(mine):
        worst = mine.iloc[0]
        return f"{len(mine)} statements run in a loop; the first takes {worst['share']:.0%} of the database's time, {worst['share_of_wait']:.0%} of the wait"
    known = calls_per_request(recording)
    selects = known[known["kind"] == "select"]
    most = 0.0 if selects.empty else float(selects["calls_per_request"].max())
    told = f"{selects['shape'].nunique()} selects of requests, the most frequent {most:.1f} times a request"
    if others:
        return f"{told}; {others} in a loop over ids, which come from elsewhere"
    return f"{told}; none reads row by row {LOOP_FROM} times or more"


def _evidence(first: Mapping[str, object] | pd.Series, cause: str) -> list[str]:
    if first["certainty"] == 1:
        said = [
            f"{first['requests']:.0f} requests run it {first['turns']:.0f} times (median, {first['fewest']:.0f} to {first['most']:.0f}), {first['usual_ms']:.1f} ms together"
        ]
    else:
        said = [
            f"{first['turns']:.1f} calls for each of {first['requests']:.0f} requests, {first['rows_per_call']:.1f} rows a call: from counters, so less certain than traces (--otlp)"
        ]
    said.append(brief(str(first["statement"])))
    other = PER_ID if cause == N_PLUS_ONE else N_PLUS_ONE
    if first["parent"]:
        said.append(f"before it: {brief(str(first['parent']))}; {first['gives']}")
    else:
        said.append(f"no statement before it gives the ids; if one did that was not seen, it is {other}")
    if first["certainty"] == 1:
        said.append(
            f"{first['share']:.0%} of what requests spend on the database, {first['share_of_wait']:.0%} of the users' wait"
        )
    else:
        said.append(f"{first['share']:.0%} of the statements' time on the server; the round trips come on top")
    return said


_DURATION = "SELECT median(duration_ms) AS ms FROM user_requests WHERE request_id IN (SELECT request_id FROM request_queries WHERE shape = $shape AND is_in_loop)"


def _estimate(recording: Recording, first: pd.Series) -> Estimate | None:
    """Return the requests' time without the loop but for one call of its longest; exact loops alone."""
    if first["certainty"] != 1:
        return None
    before = float(recording.query(_DURATION, {"shape": first["shape"]})["ms"].iloc[0])
    saved = max(0.0, float(first["usual_ms"]) - float(first["one_ms"]))
    return Estimate(
        "request_duration_ms", before, max(0.0, before - saved), max(0.0, before - 0.5 * saved),
        ("one statement for all ids takes as long as the slowest of the loop, up to half of the loop",),
        ("what the app does between the calls",),
    )  # fmt: skip


def _shown(found: pd.DataFrame) -> pd.DataFrame:
    shown = found.drop(columns=["shape", "exemplars"]).head(20).reset_index(drop=True)
    return shown.assign(
        statement=[brief(text, 200) for text in shown["statement"]],
        parent=[brief(text, 200) if text else "" for text in shown["parent"]],
    )
