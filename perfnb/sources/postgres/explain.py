"""Plans of statements from the server: what the planner would do, and on request what really happens.

Nothing is executed unless ``analyze`` is asked for, and then only a read: in a read-only transaction, with a timeout,
rolled back. The server's own parser tells whether a text is one statement; its own plan tells whether it writes.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors, pq, sql
from psycopg.rows import tuple_row

from perfnb.errors import NotMeasured, NotPermitted, NotReachable, PerfnbError, WrongUse
from perfnb.recording.journal import Row
from perfnb.sources.postgres.connecting import address
from perfnb.sources.postgres.literals import plan_without_literals, without_literals
from perfnb.sources.postgres.sql import MARK

TIMEOUT_S = 10.0
LOCK_TIMEOUT_MS = 1000
GENERIC_PLAN_SINCE = 160_000
TOP_TIMEOUT_S = 2.0
TOP_BUDGET_S = 5.0

# volatile by their mark, yet without an effect on anything
HARMLESS = frozenset(
    [
        "random",
        "random_normal",
        "clock_timestamp",
        "timeofday",
        "gen_random_uuid",
        "uuidv4",
        "uuidv7",
        "uuid_generate_v1",
        "uuid_generate_v1mc",
        "uuid_generate_v4",
        "gen_random_bytes",
    ]
)

_EXPLAINABLE = re.compile(r"[\s(]*(?:select|with|values|table|insert|update|delete|merge)\b", re.IGNORECASE)
_TYPED_PARAMETER = re.compile(r"\b(interval|date|timestamptz|timestamp|time)\s+(\$\d+)", re.IGNORECASE)
_CALLED = re.compile(r'(?:"((?:[^"]|"")+)"|([A-Za-z_][\w$]*))\s*\(')
_COMMENT = re.compile(r"\A(?:\s|--[^\n]*\n|/\*.*?\*/)+", re.DOTALL)
_DISTANCE = re.compile(r"<->|<=>|<#>|<\+>|<~>|<%>")

Connection = psycopg.Connection[Any]


def explain(
    connection: Connection,
    statement: str,
    *,
    parameters: Sequence[Any] | None = None,
    analyze: bool = False,
    timeout_s: float = TIMEOUT_S,
    queryid: str | None = None,
    now: Callable[[], int] = time.time_ns,
) -> Row:
    """Return the plan of ``statement`` as a row of the table ``plans``, without any literal.

    With ``$1`` … in it and no ``parameters`` it is the generic plan, the one for any value. ``analyze`` executes it:
    reads alone, never one that writes, locks rows or calls a function marked volatile. A function that is marked stable
    and writes nevertheless can't be told beforehand; the read-only transaction refuses it.

    Raises WrongUse for what is no single statement, writes, or lacks its parameters; NotMeasured where it took longer
    than ``timeout_s``, waited for a lock, or the type of a parameter can't be told; NotPermitted and NotReachable.
    """
    if connection.info.transaction_status != pq.TransactionStatus.IDLE:
        raise WrongUse("the connection is inside a transaction", hint="give a connection of its own")
    if not _EXPLAINABLE.match(_COMMENT.sub("", statement)):
        raise WrongUse("only SELECT, VALUES, INSERT, UPDATE, DELETE and MERGE have plans", hint="leave this one out")
    text = _TYPED_PARAMETER.sub(r"\2::\1", statement)
    with _reading(connection, timeout_s):
        prepared = _described(connection, text)
        made = _planned(connection, text, prepared, parameters)
        if analyze:
            _refuse_what_writes(connection, text, made, prepared)
            made = _executed(connection, text, prepared, parameters)
    return _row(connection, statement, made, queryid, now())


@dataclass(frozen=True)
class TopPlans:
    """Generic plans of the statements with most time, and for how many there is none, by reason."""

    rows: tuple[Row, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def top_plans(
    connection: Connection,
    statements: Iterable[Mapping[str, Any]],
    n: int = 10,
    *,
    timeout_s: float = TOP_TIMEOUT_S,
    budget_s: float = TOP_BUDGET_S,
    clock: Callable[[], float] = time.monotonic,
) -> TopPlans:
    """Return the generic plans of the ``n`` of ``statements`` with most ``total_exec_time_ms``, and of vector searches.

    Nothing is executed. ``statements`` are rows as the table of that name has them. Once ``budget_s`` is over no further
    plan is asked for.
    """
    ranked = sorted(_explainable(statements), key=lambda each: -(each.get("total_exec_time_ms") or 0.0))
    wanted = ranked[:n] + [each for each in ranked[n:] if _DISTANCE.search(each["query"])][:n]
    rows, left_out, began = [], Counter[str](), clock()
    for each in wanted:
        if clock() - began > budget_s:
            left_out["no time was left"] += 1
            continue
        try:
            rows.append(explain(connection, each["query"], timeout_s=timeout_s, queryid=each.get("queryid")))
        except (PerfnbError, psycopg.Error) as error:
            left_out[error.message if isinstance(error, PerfnbError) else type(error).__name__] += 1
    return TopPlans(tuple(rows), left_out)


class Busiest:
    """Statements by the time they took since the first snapshot that was seen."""

    def __init__(self) -> None:
        self._before: dict[str, float] | None = None
        self._latest: dict[str, Row] = {}

    def see(self, rows: Iterable[Row]) -> None:
        """Take the rows of a snapshot."""
        seen = [row for row in rows if row.get("queryid") and row.get("query")]
        self._latest |= {row["queryid"]: row for row in seen}
        if self._before is None:
            self._before = {row["queryid"]: row.get("total_exec_time_ms") or 0.0 for row in seen}
            self._latest = {}

    def statements(self) -> list[Row]:
        """Return what ran since, ``total_exec_time_ms`` being what was added; after a reset, all there is."""
        grown: list[Row] = []
        for queryid, row in self._latest.items():
            total, before = row.get("total_exec_time_ms") or 0.0, (self._before or {}).get(queryid, 0.0)
            if total != before:
                grown.append({**row, "total_exec_time_ms": total - before if total > before else total})
        return grown


@dataclass(frozen=True)
class _Prepared:
    """What the server says of a statement it has parsed."""

    parameters: int
    columns: int


@contextmanager
def _reading(connection: Connection, timeout_s: float) -> Iterator[None]:
    """Hold a read-only transaction that is rolled back; what goes wrong in it is told as perfnb's own errors."""
    try:
        with connection.transaction(force_rollback=True):
            for setting in (
                "SET /* perfnb */ TRANSACTION READ ONLY",
                f"SET /* perfnb */ LOCAL statement_timeout = {max(1, round(timeout_s * 1000))}",
                f"SET /* perfnb */ LOCAL lock_timeout = {LOCK_TIMEOUT_MS}",
            ):
                _ask(connection, setting)
            yield
    except psycopg.Error as error:
        raise _explained(error, timeout_s) from None


def _described(connection: Connection, text: str) -> _Prepared:
    """Have the server parse ``text`` without executing it; it refuses more than one statement."""
    encoding = connection.info.encoding
    for result in (connection.pgconn.prepare(b"", text.encode(encoding)), connection.pgconn.describe_prepared(b"")):
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise errors.error_from_result(result, encoding)
    return _Prepared(result.nparams, result.nfields)


def _planned(connection: Connection, text: str, prepared: _Prepared, parameters: Sequence[Any] | None) -> "_Made":
    if parameters is not None or not prepared.parameters:
        _check_count(prepared, parameters)
        return _Made(_ask(connection, _explain_sql(text), parameters), "explain")
    if connection.info.server_version >= GENERIC_PLAN_SINCE:
        return _Made(_ask(connection, _explain_sql(text, "GENERIC_PLAN")), "generic")
    return _Made(_generic_before_16(connection, text, prepared), "generic")


def _generic_before_16(connection: Connection, text: str, prepared: _Prepared) -> Any:
    """Return the generic plan by preparing the statement; the name is freed whatever happens."""
    name = sql.Identifier(f"perfnb_{time.monotonic_ns()}").as_string(connection)
    nulls = ", ".join(["NULL"] * prepared.parameters)
    _ask(connection, "SET /* perfnb */ LOCAL plan_cache_mode = force_generic_plan")
    _ask(connection, f"PREPARE {MARK} {name} AS {text}")
    try:
        with connection.transaction():
            return _ask(connection, _explain_sql(f"EXECUTE {name}({nulls})"))
    finally:
        _ask(connection, f"DEALLOCATE {MARK} {name}")


def _executed(connection: Connection, text: str, prepared: _Prepared, parameters: Sequence[Any] | None) -> "_Made":
    _check_count(prepared, parameters)
    return _Made(_ask(connection, _explain_sql(text, "ANALYZE", "BUFFERS"), parameters), "analyze")


def _check_count(prepared: _Prepared, parameters: Sequence[Any] | None) -> None:
    if len(parameters or ()) != prepared.parameters:
        given = "none" if not parameters else str(len(parameters))
        raise WrongUse(
            f"the statement has {prepared.parameters} parameters, {given} were given",
            hint="parameters=[value of $1, …]",
        )


@dataclass(frozen=True)
class _Made:
    """A plan as the server gave it, and how it came to be."""

    documents: Any
    origin: str

    @property
    def document(self) -> dict[str, Any]:
        """Return the plan with what stands around it."""
        return dict(self.documents[0])


def _refuse_what_writes(connection: Connection, text: str, made: _Made, prepared: _Prepared) -> None:
    """Raise WrongUse where executing the statement could change anything."""
    nodes = list(_nodes(made.document["Plan"]))
    writing = [
        each for each in nodes if each["Node Type"] == "ModifyTable" or each.get("Operation", "Select") != "Select"
    ]
    hint = "analyze=False shows its plan without executing it"
    if writing or not prepared.columns:
        raise WrongUse("the statement writes, so it is not executed", hint=hint)
    if any(each["Node Type"] == "LockRows" for each in nodes):
        raise WrongUse("the statement locks rows, so it is not executed", hint=hint)
    called = _volatile(connection, " ".join([without_literals(text), *_texts(made.document)]))
    if called:
        raise WrongUse(f"the statement calls {called[0]}, which is marked volatile and may write", hint=hint)


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a plan: views are expanded there, so that the functions they call can be seen."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from (f"{each}(",) if name == "Function Name" else _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value


_VOLATILE = f"""
SELECT {MARK} DISTINCT p.proname FROM pg_catalog.pg_proc p
LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = p.oid
LEFT JOIN pg_catalog.pg_proc t ON t.oid IN (a.aggtransfn, a.aggfinalfn)
WHERE p.proname = ANY ($1) AND 'v' IN (p.provolatile, t.provolatile)
UNION
SELECT o.oprname FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
WHERE p.provolatile = 'v' AND position(o.oprname IN $2) > 0
"""


def _volatile(connection: Connection, text: str) -> list[str]:
    """Return functions (and operators) called in ``text`` that are marked volatile, but for harmless ones."""
    names = {(quoted or "").replace('""', '"') or plain.lower() for quoted, plain in _CALLED.findall(text)}
    with psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
        found = cursor.execute(_VOLATILE, [sorted(names - HARMLESS), text], prepare=False).fetchall()
    return sorted(name for (name,) in found)


def _explain_sql(text: str, *options: str) -> str:
    return f"EXPLAIN {MARK} ({', '.join((*options, 'VERBOSE', 'SETTINGS', 'FORMAT JSON'))}) {text}"


def _ask(connection: Connection, text: str, parameters: Sequence[Any] | None = None) -> Any:
    """Return the first value of the answer; parameters are sent apart from the text."""
    with psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(text, list(parameters) if parameters else None, prepare=False)
        return (cursor.fetchone() or (None,))[0] if cursor.description else None


def _row(connection: Connection, statement: str, made: _Made, queryid: str | None, at: int) -> Row:
    document = {name: value for name, value in made.document.items() if name != "Query Identifier"}
    document["Plan"] = _without_output(document["Plan"])
    return {
        "time": at,
        "server": address(connection),
        "queryid": queryid,
        "query": without_literals(statement),
        "plan": plan_without_literals(document),
        "origin": made.origin,
        "duration_ms": document.get("Execution Time"),
    }


def _without_output(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the node without its lists of columns: VERBOSE is asked for the schemas' sake."""
    kept = {name: value for name, value in node.items() if name not in ("Output", "Plans")}
    return kept | ({"Plans": [_without_output(each) for each in node["Plans"]]} if "Plans" in node else {})


def _explainable(statements: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the statements that clients sent and that have plans, each once."""
    found = {
        each.get("queryid") or each["query"]: each
        for each in statements
        if each.get("query") and each.get("is_top_level") is not False and _EXPLAINABLE.match(each["query"])
    }
    return list(found.values())


def _explained(error: psycopg.Error, timeout_s: float) -> PerfnbError:
    """Return what ``error`` means; the server's own words may hold data, so only those about names are passed on."""
    told = error.diag.message_primary or type(error).__name__
    match error:
        case errors.QueryCanceled():
            return NotMeasured(f"EXPLAIN did not end within {timeout_s:g} s", hint="timeout_s=… gives it more")
        case errors.LockNotAvailable():
            return NotMeasured("the statement's tables are locked", hint="try again when no DDL is under way")
        case errors.ReadOnlySqlTransaction():
            return WrongUse("the statement writes, so it is not executed", hint="analyze=False shows its plan alone")
        case errors.InsufficientPrivilege():
            return NotPermitted(told, hint="GRANT SELECT ON the table TO the role in the DSN")
        case errors.IndeterminateDatatype() | errors.AmbiguousFunction() | errors.UndefinedFunction():
            return NotMeasured("the type of a parameter can't be told", hint="give samples: parameters=[…]")
        case errors.UndefinedTable() | errors.InvalidSchemaName():
            return NotMeasured(f"{told} for this role", hint="set search_path as the app does, or options in the DSN")
        case errors.SyntaxError() if "multiple commands" in told:
            return WrongUse("more than one statement", hint="one at a time")
        case errors.SyntaxError():
            return WrongUse(
                "the statement can't be read by the server", hint="give it as it was sent, with parameters=[…]"
            )
        case psycopg.OperationalError() if error.sqlstate is None:
            return NotReachable("the connection was lost", hint="see the server's log")
    return WrongUse(f"the server refused to explain it: {type(error).__name__}", hint="see the server's log")
