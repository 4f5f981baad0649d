"""How vectors are searched for in Postgres: each statement that orders by nearness, and whether an index serves it."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from perfnb.areas.database.relations import Relations, relations
from perfnb.areas.database.vector_stores import MEANS, METHODS, vector_columns, vector_indexes
from perfnb.areas.database.workload import workload
from perfnb.attribution import observed
from perfnb.attribution.objects import grown, objects
from perfnb.recording import Recording
from perfnb.sql import Distance, Filter, parsed

DEFAULTS = {
    "hnsw.ef_search": "40", "hnsw.iterative_scan": "off", "ivfflat.probes": "1", "ivfflat.iterative_scan": "off",
}  # fmt: skip
"""What pgvector takes where nobody set it; its settings exist in a session only once it has worked with a vector."""

COLUMNS = [
    "statement", "shape", "role", "queryids", "calls", "calls_per_request", "mean_exec_time_ms", "total_exec_time_ms",
    "share", "share_of_wait", "rows_per_call", "seen_by", "table", "column", "type", "dimensions", "rows", "operator",
    "filters", "has_joins", "is_bounded", "index", "method", "options", "why_not",
]  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A setting in effect and whether that is sure: what an app sets for itself is not seen from outside."""

    value: str
    is_known: bool

    @property
    def number(self) -> float:
        """Return the value as a number; NaN where it is none."""
        try:
            return float(self.value)
        except ValueError:
            return float("nan")


def vector_searches(recording: Recording) -> pd.DataFrame:
    """Return one row per statement that orders rows of a vector column by nearness, most time first.

    Columns of :func:`workload`, and table, column, type, dimensions, rows, operator, filters (conditions beside the
    order on the same table), has_joins, is_bounded (only rows that are near enough come), index, method and options (of
    the index that serves it, else of one on the column that does not), why_not (why no index serves it; empty where one
    does). Raises NotMeasured where statements were not seen, or the catalog was not read.
    """
    return recording.derived("vector searches", lambda: _searches(recording)).copy()


def _searches(recording: Recording) -> pd.DataFrame:
    columns, known = vector_columns(recording), relations(recording)
    frame, indexes, tables = workload(recording), vector_indexes(recording), grown(recording, "table")
    rows = []
    for each in frame[frame["kind"] == "select"].to_dict("records"):
        distance = _distance(str(each["statement"]))
        place = None if distance is None else _place(distance, columns, known)
        if distance is None or place is None:
            continue
        own = indexes[(indexes["table"] == place["table"]) & (indexes["column"] == place["column"])]
        why_not, index = _served(distance, own, each, tables[tables["name"] == place["table"]])
        rows.append({
            **each, **place,
            "operator": distance.operator,
            "filters": tuple(one for one in distance.filters if known.name(one.table or place["table"]) == place["table"]),
            "has_joins": bool(distance.joins),
            "is_bounded": bool(distance.bounds),
            "why_not": why_not,
            "index": index.get("name", ""), "method": index.get("method", ""), "options": index.get("options") or {},
        })  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _distance(statement: str) -> Distance | None:
    found = parsed(statement)
    return None if found is None else found.distance


def _place(distance: Distance, columns: pd.DataFrame, known: Relations) -> dict[str, Any] | None:
    """Return the vector column that is searched; None where it holds no vectors or can't be told."""
    named = columns[columns["column"] == distance.column]
    if distance.table:
        named = named[named["table"] == known.name(distance.table)]
    if len(named) != 1:
        return None
    place: dict[str, Any] = named.iloc[0][["table", "column", "type", "dimensions", "rows"]].to_dict()
    return place


def _served(
    distance: Distance, own: pd.DataFrame, row: Mapping[str, Any], table: pd.DataFrame
) -> tuple[str, dict[str, Any]]:
    """Return why no index serves the search (empty where one does), and the index that does or nearly does."""
    if own.empty:
        return "there is no HNSW or IVFFlat index on it", {}
    wrong = _wrong_shape(distance)
    candidates = own[own["is_usable"]]
    if candidates.empty:
        building = bool(own["is_building"].fillna(False).any())
        return "its index is still being built" if building else "its index is not valid: a build failed", _first(own)
    if wrong:
        return wrong, _first(candidates)
    same_key = kept(candidates, lambda each: serves_key(str(each["key"]), distance))
    if same_key.empty:
        return f"its index is on {candidates['key'].iloc[0]}, the search on {distance.expression or distance.column}", _first(candidates)  # fmt: skip
    fitting = same_key[same_key["operator"] == distance.operator]
    if fitting.empty:
        return _other_operator(str(same_key["operator"].iloc[0]), distance.operator), _first(same_key)
    if _is_passed_over(fitting, row, table):
        return "the planner passes its index over", _first(fitting)
    return "", _first(fitting)


def _wrong_shape(distance: Distance) -> str:
    if distance.is_descending:
        return "it is ordered DESC, and an index returns the nearest first"
    if not distance.is_plain:
        return "it is ordered by an expression on the distance, which no index serves"
    return "" if distance.has_limit else "it has no LIMIT, without which no vector index is used"


def _other_operator(index: str, search: str) -> str:
    return f"its index serves {MEANS.get(index, 'another distance')} ({index}), the search asks for {MEANS.get(search, search)} ({search})"


def _is_passed_over(fitting: pd.DataFrame, row: Mapping[str, Any], table: pd.DataFrame, *, least: int = 20) -> bool:
    """Tell whether the index was never scanned though the statement ran often, and scans of its table were counted.

    Where none was, sessions have not told the server's counters yet (they do so between transactions).
    """
    scans, scanned = fitting["scans_grown"], table[["sequential_scans_grown", "index_scans_grown"]]
    if row["seen_by"] != "counters" or row["calls"] < least or scans.isna().any():
        return False
    return bool(scans.sum() == 0 and scanned.sum().sum() > 0)


def serves_key(key: str, distance: Distance) -> bool:
    """Tell whether an index on ``key`` (a column or an expression) can serve this order: both name the same things."""
    return _words(key) == _words(distance.expression or distance.column)


def _words(expression: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z_]\w*", expression.lower())) - {"cast", "as"}


def kept(frame: pd.DataFrame, test: Callable[[dict[Any, Any]], bool]) -> pd.DataFrame:
    """Return the rows that pass; of no rows, none with the same columns."""
    return frame[pd.Series([test(row) for row in frame.to_dict("records")], frame.index, dtype=bool)]


def _first(frame: pd.DataFrame) -> dict[str, Any]:
    return {str(name): value for name, value in frame.iloc[0].items()}


def setting(recording: Recording, name: str, *, role: str | None = None) -> Setting:
    """Return a setting of pgvector as the sessions of ``role`` begin with; not known where the app sets it itself."""
    value = _of_role(recording, name, role) or _of_server(recording, name) or DEFAULTS[name]
    said = re.compile(rf"\bset\s+(?:local\s+|session\s+)?{re.escape(name)}\b|set_config\(\s*'{re.escape(name)}'", re.I)
    return Setting(value, not any(said.search(text) for text in _texts(recording)))


def _of_role(recording: Recording, name: str, role: str | None) -> str | None:
    """Return what ALTER ROLE or ALTER DATABASE says, the most particular first."""
    frame = objects(recording, "role_setting")
    told = {str(row["name"]): (row["settings"] or {}).get(name) for row in frame.to_dict("records")}
    databases = [str(each) for each in objects(recording, "server")["database"].dropna()]
    places = [*(f"{role}@{each}" for each in databases), str(role), *databases]
    return next((str(told[place]) for place in places if told.get(place) is not None), None)


def _of_server(recording: Recording, name: str) -> str | None:
    frame = objects(recording, "setting")
    values = frame.loc[frame["name"] == name, "value"].dropna()
    return str(values.iloc[0]) if len(values) else None


def _texts(recording: Recording) -> list[str]:
    def build() -> list[str]:
        texts: list[str] = (
            observed(recording)
            .query(
                "SELECT DISTINCT query AS text FROM statements WHERE query ILIKE '%set%' UNION "
                "SELECT DISTINCT statement FROM observed_spans WHERE statement ILIKE '%set%' UNION "
                "SELECT DISTINCT query FROM observed_activity WHERE query ILIKE '%set%'"
            )["text"]
            .tolist()
        )
        return texts

    found: list[str] = recording.derived("texts that set", build)
    return found


def part_that_passes(recording: Recording, table: str, filters: Iterable[Filter]) -> float | None:
    """Return which part (0 to 1) of a table's rows meets these conditions, from column statistics; None if not known.

    Told for ``=`` and ``IN`` with bare columns, whose values are taken to be as frequent as each other.
    """
    frame, rows = objects(recording, "column"), relations(recording).rows(table)
    part = 1.0
    for each in filters:
        own = frame[frame["name"] == f"{table}.{each.column}"]
        distinct = float(own["distinct"].iloc[0]) if len(own) else float("nan")
        if each.expression or each.operator not in ("=", "in") or pd.isna(distinct) or not distinct or not rows:
            return None
        values = distinct if distinct > 0 else -distinct * rows
        part *= min(1.0, (1.0 if each.operator == "=" else 3.0) / values)
    return part


def is_indexed(recording: Recording, table: str, one: Filter, *, calls: float | None = None) -> bool:
    """Tell whether an index can find the rows that meet a condition, or is partial on its column.

    Of a member of a JSON document the statement's text does not tell the key. An index on some member counts where it
    was scanned for half of ``calls`` or more, or where that is not known (``calls`` is None, or nobody counted).
    """
    frame = grown(recording, "index")
    own = frame[(frame["table"] == table) & frame["is_valid"].fillna(True).astype(bool)]
    return any(_finds(each, one, calls) for each in own.to_dict("records"))


_CONTAINS = ("gin", "gist", "spgist", "rum", "brin")
_NO_EQUALITY = ("gin", "rum", *METHODS)


def _finds(index: Mapping[Any, Any], one: Filter, calls: float | None) -> bool:
    first, method = str((index["keys"] or [""])[0]), str(index["method"])
    if _words(str(index["predicate"] or "")) & {one.column.lower()}:
        return True
    if one.operator in ("@>", "?") and method not in _CONTAINS:
        return False
    if not one.expression:
        return first.strip('"') == one.column
    if one.operator in ("=", "in") and method in _NO_EQUALITY:
        return False
    if _form(first) != _form(one.expression):
        return False
    scans = index["scans_grown"]
    is_named = "?" not in one.expression
    return is_named or calls is None or bool(pd.isna(scans)) or scans >= calls / 2


_TYPES = frozenset({"text", "varchar", "character", "varying", "int", "integer", "bigint", "smallint", "numeric", "decimal", "boolean", "uuid"})  # fmt: skip


def _form(expression: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return what an expression names and how it descends into a document, whatever members it asks for."""
    bare = re.sub(r"'(?:[^']|'')*'", "?", expression)
    return _words(bare) - _TYPES, tuple(re.findall(r"#>>|#>|->>|->", bare))
