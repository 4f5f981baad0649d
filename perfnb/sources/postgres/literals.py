"""Statements and plans without the values in them, so that a recording holds no data of the database's users.

The rules are those of Postgres' own lexer (scan.l) with standard_conforming_strings on, and they hold for texts that
were cut off in the middle, as ``track_activity_query_size`` does: what begins a string and does not end it is a string.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

_PART = r"(?:[A-Za-z_]|[^\x00-\x7f])(?:[A-Za-z0-9_$]|[^\x00-\x7f])*+"
_NAME = rf'(?:"(?:[^"]|"")*+(?:"|\Z)|{_PART})'
_DIGITS = r"[0-9](?:_?[0-9])*+"

_TOKENS = re.compile(
    rf"""
      (?P<comment> --[^\n\r]*+ | /\*)
    | (?P<string>
          [eE]'(?:[^'\\]|''|\\.)*+(?:'|\\?\Z)
        | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*+(?:'|\Z)
        | \$(?P<tag>(?:(?:[A-Za-z_]|[^\x00-\x7f])(?:[A-Za-z0-9_]|[^\x00-\x7f])*+)?)\$.*?(?:\$(?P=tag)\$|\Z)
        | 0[xX](?:_?[0-9A-Fa-f])++ | 0[oO](?:_?[0-7])++ | 0[bB](?:_?[01])++
        | (?:{_DIGITS}(?:\.(?!\.)(?:{_DIGITS})?+)?+ | (?<!\.)\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?+
      )
    | (?P<kept>
          [lL][iI][mM][iI][tT]\ ++[0-9]{{1,6}}+(?![\w$.]|[^\x00-\x7f])
        | (?:::|\b[aA][sS]\b)\s*+{_NAME}(?:\.{_NAME})?\s*+\(\s*+[0-9]++(?:\s*+,\s*+[0-9]++)?\s*+\)
        | (?:[uU]&)?"(?:[^"]|"")*+(?:"|\Z)
        | \$[0-9]++
        | {_PART}
      )
    | (?P<space> \s++)
    """,
    re.VERBOSE | re.DOTALL,
)
"""Kept are names, parameters and the modifiers of types: ``::vector(1536)`` is a type, no value. And the number of a
LIMIT: it is nobody's data, and what comes back is judged by it."""

_COMMENT_EDGE = re.compile(r"/\*|\*/")
_NUMBERED_PLAN = re.compile(r"\b(?:Sub|Init)Plan [0-9]++")


def without_literals(sql: str) -> str:
    """Return ``sql`` with each string, number and bit string as ``?`` but a LIMIT's, without comments, and blanks made one.

    Parameters (``$1``), names and modifiers of types stay. What was treated once is not changed by a second time.
    """
    return _rewritten(sql, lambda sql, at: None)


def plan_without_literals(plan: object) -> object:
    """Return a copy of ``plan``, as ``EXPLAIN (FORMAT JSON)`` has it, whose conditions and expressions hold no literal.

    Names, node types, settings and all numbers of the plan stay; a text under a key that is not known is treated as an
    expression. The query's parameters, which auto_explain may log, are left out.
    """
    if isinstance(plan, Mapping):
        return {str(key): _member(str(key), value) for key, value in plan.items() if key != "Query Parameters"}
    if isinstance(plan, list | tuple):
        return [plan_without_literals(each) for each in plan]
    return _expression(plan) if isinstance(plan, str) else plan


_NAMES = frozenset(
    (
        "Node Type", "Parent Relationship", "Strategy", "Join Type", "Relation Name", "Schema", "Alias", "Index Name",
        "Scan Direction", "Partial Mode", "Subplan Name", "CTE Name", "Function Name", "Table Function Name",
        "Tuplestore Name", "Sort Method", "Sort Space Type", "Sort Methods Used", "Command", "Operation",
        "Trigger Name", "Constraint Name", "Relation", "Custom Plan Provider", "Conflict Resolution",
        "Conflict Arbiter Indexes", "Sampling Method", "Storage", "Cache Mode", "Format", "Settings",
    )
)  # fmt: skip


def _member(key: str, value: Any) -> object:
    return value if key in _NAMES else plan_without_literals(value)


def _expression(text: str) -> str:
    """Return an expression of a plan without literals; the number in ``(SubPlan 1)`` names a node and stays."""
    return _rewritten(text, lambda sql, at: _NUMBERED_PLAN.match(sql, at))


def _rewritten(sql: str, also_kept: Callable[[str, int], "re.Match[str] | None"]) -> str:
    parts: list[str] = []
    at = 0
    while at < len(sql):
        kept = also_kept(sql, at)
        match = kept or _TOKENS.match(sql, at)
        if match is None:
            parts.append(sql[at])
            at += 1
        elif match.lastgroup == "comment":
            parts.append(" ")
            at = _end_of_comment(sql, match)
        else:
            parts.append(match[0] if kept else _replacement(match))
            at = match.end()
    return _SPACES.sub(" ", "".join(parts)).strip(" ")


_SPACES = re.compile(r"  +")


def _replacement(match: "re.Match[str]") -> str:
    if match.lastgroup in ("string", "tag"):
        return "?"
    return " " if match.lastgroup == "space" else match[0]


def _end_of_comment(sql: str, opened: "re.Match[str]") -> int:
    """Return where a comment ends; Postgres' comments nest."""
    if opened[0] != "/*":
        return opened.end()
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, opened.end()):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)
