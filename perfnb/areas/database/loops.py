"""Rows that a request reads one by one: of another table, for each row it has (n-plus-one), or by ids it knows beforehand.

What decides between the two is where the ids come from. A statement before the loop, of another table, that answers
with about as many rows as the loop has turns gives them: a join or an eager load fetches both at once. Where there is
none, or it searched the same table (a vector search that returns ids, say), the app holds the list already: one
statement with ``= ANY($1)``. Traces show loops exactly; counters only that there are many calls for each request.
"""

from dataclasses import dataclass

import pandas as pd

from perfnb.areas.database.relations import Relations, relations
from perfnb.areas.database.workload import workload
from perfnb.attribution.queries import LOOP_FROM, calls_per_request, prepare_queries, sees_queries
from perfnb.recording import Recording
from perfnb.sql import Filter, Statement, parsed

N_PLUS_ONE, PER_ID = "n-plus-one", "per-id-queries"

# Where nothing but counters is known, each call must return about one row, or read by a foreign key whose rows are counted …
ONE_ROW = 2.0
# … and a statement gives the ids if its rows are enough for the calls; an ORM asks for each id once.
ENOUGH_ROWS = 0.8
# As many rows as calls within this part are no chance.
SAME = 0.05

LEAST_REQUESTS = 3

_LOOPS = """
WITH loops AS (
    SELECT request_id, shape, any_value(route) AS route, min(start_ms) AS begins_ms, count(*) AS turns,
           sum(duration_ms) AS loop_ms, max(duration_ms) AS longest_ms
    FROM request_queries WHERE is_in_loop AND kind = 'select' GROUP BY request_id, shape
)
SELECT shape, count(*) AS requests, median(turns) AS turns, min(turns) AS fewest, max(turns) AS most,
       sum(turns) AS calls, sum(loop_ms) AS loop_ms, median(loop_ms) AS usual_ms, median(longest_ms) AS one_ms,
       string_agg(DISTINCT route, ', ') AS routes, arg_max(request_id, loop_ms, 3) AS exemplars
FROM loops GROUP BY shape HAVING count(*) >= $least
"""

# Selects that began before the loop did, in nearly all requests that have it.
_BEFORE = """
WITH loops AS (
    SELECT request_id, min(start_ms) AS begins_ms FROM request_queries WHERE shape = $shape AND is_in_loop
    GROUP BY request_id
)
SELECT q.shape, min(q.statement) AS statement,
       (SELECT count(*) FROM request_queries a WHERE a.shape = q.shape) / (SELECT count(*) FROM loops) AS runs_per_loop
FROM request_queries q JOIN loops l ON l.request_id = q.request_id AND q.start_ms < l.begins_ms
WHERE q.kind = 'select' AND q.shape <> $shape
GROUP BY q.shape HAVING count(DISTINCT q.request_id) >= 0.8 * (SELECT count(*) FROM loops)
"""


@dataclass(frozen=True)
class Origin:
    """Where the ids of a loop come from: the cause it is, and the statement that gives them, if one does.

    ``is_counted``: that statement has just as many rows as the loop has calls, and a foreign key binds the two.
    """

    cause: str
    parent: str = ""
    gives: str = ""
    is_counted: bool = False


def repeated(recording: Recording) -> pd.DataFrame:
    """Return the selects that a request runs again and again, each time by another id; most time first.

    Columns: shape, statement, table, column, cause (n-plus-one or per-id-queries), parent (the statement whose rows
    give the ids; empty where there is none), gives (why it is said to), requests (that have the loop), turns (median
    of calls in a request), fewest, most, calls, usual_ms (of a loop; NA by counters), one_ms (of its longest call),
    routes, exemplars, share (of the database's time), share_of_wait, rows_per_call, certainty.
    A statement of which the table has fewer rows than the loop has turns reads the same rows again, so it is none.
    Without traces, selects of about one row that ran five times or more for each request stand for loops.
    """
    return recording.derived("repeated queries", lambda: _repeated(recording)).copy()


_COLUMNS = [
    "shape", "statement", "table", "column", "cause", "parent", "gives", "requests", "turns", "fewest", "most", "calls",
    "usual_ms", "one_ms", "routes", "exemplars", "share", "share_of_wait", "rows_per_call", "certainty",
]  # fmt: skip


def _repeated(recording: Recording) -> pd.DataFrame:
    work = workload(recording).set_index("shape")
    loops = _by_trace(recording) if sees_queries(recording) else _by_counts(recording, work)
    known, rows = relations(recording), []
    for loop in loops.to_dict("records"):
        shape = loop["shape"]
        statement = parsed(str(loop["statement"]))
        by_id = statement and id_filter(statement, known)
        if not statement or not by_id or _reads_again(known, by_id, float(loop["turns"])):
            continue
        facts = work.loc[shape] if shape in work.index else pd.Series(dtype=object)
        before = _before(recording, shape, work) if loop["certainty"] == 1 else _beside(work, shape)
        origin = origin_of(by_id, before, known, float(loop["calls"]) / float(loop["requests"]))
        if origin is None or (loop["certainty"] < 1 and not (facts["rows_per_call"] <= ONE_ROW or origin.is_counted)):
            continue
        rows.append(
            loop
            | {"table": by_id.table, "column": by_id.column, "cause": origin.cause, "parent": origin.parent,
               "gives": origin.gives, "share": max(_number(facts.get("share")), _number(facts.get("share_of_queries"))),
               "share_of_wait": _number(facts.get("share_of_wait")), "rows_per_call": facts.get("rows_per_call")}
        )  # fmt: skip
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    return frame.sort_values(["share", "share_of_wait"], ascending=False, ignore_index=True)


def _by_trace(recording: Recording) -> pd.DataFrame:
    frame = prepare_queries(recording).query(_LOOPS, {"least": LEAST_REQUESTS})
    texts = recording.query("SELECT shape, min(statement) AS statement FROM request_queries GROUP BY shape")
    return frame.merge(texts, on="shape").assign(certainty=1.0)


def _by_counts(recording: Recording, work: pd.DataFrame) -> pd.DataFrame:
    """Return selects that ran LOOP_FROM times or more for each request."""
    known = calls_per_request(recording) if work["calls_per_request"].notna().any() else pd.DataFrame()
    if known.empty:
        return pd.DataFrame(columns=_COLUMNS)
    known = known[(known["kind"] == "select") & (known["calls_per_request"] >= LOOP_FROM)]
    known = known[known["requests"] >= LEAST_REQUESTS]
    known = known[known["shape"].isin(work.index[work["rows_per_call"].notna()])]
    return pd.DataFrame(
        {
            "shape": known["shape"], "statement": known["statement"], "requests": known["requests"].round(),
            "turns": known["calls_per_request"], "calls": known["calls"], "routes": known["route"],
            "exemplars": [()] * len(known), "certainty": known["certainty"], "usual_ms": known["ms_per_request"],
        }
    ).drop_duplicates("shape")  # fmt: skip


def id_filter(statement: Statement, known: Relations) -> Filter | None:
    """Return the ``column = parameter`` by which rows are named: a key first, then a foreign key, then any."""
    if statement.distance is not None:
        return None
    lone = statement.tables[0] if len(statement.tables) == 1 else ""
    named = [
        Filter(each.table or lone, each.column, each.operator)
        for each in statement.filters
        if each.operator == "=" and each.value == "parameter" and each.is_required and not each.expression
    ]
    named = [each for each in named if each.table]
    ranked = sorted(named, key=lambda each: _rank(each, known))
    return ranked[0] if ranked else None


def _rank(one: Filter, known: Relations) -> int:
    if known.is_key(one.table, one.column):
        return 0
    return 1 if known.target(one.table, one.column) else 2


def _reads_again(known: Relations, by_id: Filter, turns: float) -> bool:
    rows = known.rows(by_id.table)
    return rows is not None and rows < turns


@dataclass(frozen=True)
class Before:
    """A select that may give the ids: ``rows`` there are of it for each loop; None where rows are not counted."""

    statement: Statement
    text: str
    rows: float | None


def _before(recording: Recording, shape: str, work: pd.DataFrame) -> list[Before]:
    frame = recording.query(_BEFORE, {"shape": shape})
    per_call = frame["shape"].map(work["rows_per_call"])
    return _candidates(frame.assign(rows=per_call * frame["runs_per_loop"]))


def _beside(work: pd.DataFrame, shape: str) -> list[Before]:
    """Return the other selects of requests, of which counters tell no order."""
    frame = work[(work["kind"] == "select") & (work.index != shape) & (work["calls_per_request"] > 0)].reset_index()
    return _candidates(frame.assign(rows=frame["rows_per_call"] * frame["calls_per_request"]))


def _candidates(frame: pd.DataFrame) -> list[Before]:
    read = [(parsed(text), text, rows) for text, rows in zip(frame["statement"], frame["rows"], strict=True)]
    return [
        Before(statement, text, None if pd.isna(rows) else float(rows)) for statement, text, rows in read if statement
    ]


def origin_of(by_id: Filter, before: list[Before], known: Relations, turns: float) -> Origin | None:
    """Return what a loop over ``by_id`` is, given the selects that ran before it.

    Statements with just as many rows as the loop has calls come first. In this order: rows of a table that a foreign key binds to this one give the ids; a search in this table by whose
    key the loop reads gave them, so the app has the list; rows of any other table give them; nothing does, and the loop
    reads by a key. None where it reads by something else that nothing gives: as likely as not it is the same each time.
    """
    giving = [each for each in before if _gives(each, by_id, known, turns)]
    counted = [each for each in giving if each.rows is not None and abs(each.rows - turns) <= SAME * turns]
    giving = counted or giving
    table = known.name(by_id.table)
    of_others = [each for each in giving if table not in map(known.name, each.statement.tables)]
    related = [each for each in of_others if any(known.are_related(table, name) for name in each.statement.tables)]
    if related:
        return Origin(N_PLUS_ONE, related[0].text, "a foreign key binds the two tables", is_counted=bool(counted))
    same = [each for each in giving if each not in of_others]
    if same and known.is_key(by_id.table, by_id.column):
        return Origin(PER_ID, same[0].text, "it finds rows of the same table, so their ids are known at once")
    if of_others or same:
        nearest = min(of_others or same, key=lambda each: abs((each.rows or turns) - turns))
        return Origin(N_PLUS_ONE, nearest.text, _why(nearest))
    return Origin(PER_ID) if known.is_key(by_id.table, by_id.column) else None


def _why(parent: Before) -> str:
    return (
        "it runs before the loop" if parent.rows is None else f"{parent.rows:.0f} rows a request, enough for the loop"
    )


def _gives(one: Before, by_id: Filter, known: Relations, turns: float) -> bool:
    """Tell whether a statement can give the ids: it has rows enough (or names no single row), and a column for them."""
    if not _returns_ids(one.statement, by_id):
        return False
    if one.rows is not None:
        return one.rows >= ENOUGH_ROWS * turns
    own = id_filter(one.statement, known)
    return own is None or not known.is_key(own.table, own.column)


def _returns_ids(statement: Statement, by_id: Filter) -> bool:
    names = {each.column for each in statement.selected}
    if statement.selects_all or by_id.column in names or not names:
        return True
    return any(name.endswith(("id", "key", "ref")) for name in names)


def _number(value: object) -> float:
    return 0.0 if value is None or pd.isna(value) else float(value)  # type: ignore[arg-type]
