"""Conditions of WHERE and ON, as filters on one column and as joins of two."""

import re
from collections.abc import Iterator

from sqlglot import exp

from perfnb.sql.scopes import PART_TYPES, Scope, named
from perfnb.sql.statement import Column, Filter, Join, Value

_OPERATORS: dict[type[exp.Expr], str] = {
    exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=", exp.Like: "like",
    exp.ILike: "ilike", exp.RegexpLike: "~", exp.RegexpILike: "~*", exp.SimilarTo: "similar to",
    exp.ArrayContainsAll: "@>", exp.ArrayContainedBy: "<@", exp.ArrayOverlaps: "&&", exp.JSONBContains: "?",
    exp.JSONBContainsTopKey: "?", exp.JSONBContainsAnyTopKeys: "?|", exp.JSONBContainsAllTopKeys: "?&",
    exp.JSONBPathExists: "@?", exp.NullSafeEQ: "is not distinct from", exp.NullSafeNEQ: "is distinct from",
    exp.Mod: "%", exp.StartsWith: "^@",
}  # fmt: skip
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "@>": "<@", "<@": "@>"}
_NEGATED = {
    "in": "not in",
    "like": "not like",
    "ilike": "not ilike",
    "between": "not between",
    "is null": "is not null",
}
_VALUES = (exp.Placeholder, exp.Literal, exp.Boolean, exp.Null)


def filters(scope: Scope) -> tuple[Filter, ...]:
    """Return the conditions on one column each in WHERE and ON of ``scope``, its subqueries left out."""
    return tuple(made for each, required in _conditions(scope) for made in _filters(each, scope, required))


def joins(scope: Scope) -> tuple[Join, ...]:
    """Return the pairs of columns of two tables that ``scope`` equates in WHERE, ON and USING."""
    pairs = [_pair(each, scope) for each, required in _conditions(scope) if required]
    return tuple(dict.fromkeys([pair for pair in pairs if pair] + list(_using(scope))))


def columns_in(node: exp.Expr) -> list[exp.Column]:
    """Return the columns named below ``node``, those of subqueries left out."""
    within = node.walk(prune=lambda each: isinstance(each, PART_TYPES))
    return [each for each in within if isinstance(each, exp.Column) and not isinstance(each.this, exp.Star)]


def plain(node: exp.Expr | None) -> exp.Expr | None:
    """Return ``node`` without the parentheses around it."""
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def _conditions(scope: Scope) -> Iterator[tuple[exp.Expr, bool]]:
    where = scope.node.args.get("where")
    if where is not None:
        yield from _split(where.this, required=True)
    for join in _all_joins(scope):
        if join.args.get("on") is not None:
            yield from _split(join.args["on"], required=True)


def _all_joins(scope: Scope) -> Iterator[exp.Expr]:
    yield from scope.node.args.get("joins") or []
    for holder in (scope.node.args.get("from_"), scope.node):
        table = holder.this if holder is not None and isinstance(holder.this, exp.Expr) else None
        yield from (table.args.get("joins") or []) if table is not None else []


def _split(node: exp.Expr, *, required: bool) -> Iterator[tuple[exp.Expr, bool]]:
    inner = plain(node)
    if isinstance(inner, exp.And | exp.Or):
        stays = required and isinstance(inner, exp.And)
        yield from _split(inner.this, required=stays)
        yield from _split(inner.expression, required=stays)
    elif inner is not None:
        yield inner, required


def _filters(node: exp.Expr, scope: Scope, required: bool) -> Iterator[Filter]:
    left, operator, value = _compared(node)
    if left is None or _pair(node, scope) is not None:
        return
    if isinstance(left, exp.Tuple):
        for each in left.expressions:
            yield from _filter(each, operator, value, scope, required)
    else:
        yield from _filter(left, operator, value, scope, required)


def _filter(left: exp.Expr, operator: str, value: Value, scope: Scope, required: bool) -> Iterator[Filter]:
    left = plain(left) or left
    columns = columns_in(left)
    if len({each.sql() for each in columns}) != 1:
        return
    column = columns[0]
    expression = "" if left is column else expression_text(left)
    yield Filter(scope.table_of(column), named(column.this), operator, value, expression, required)


def expression_text(node: exp.Expr) -> str:
    """Return ``lower(email)``: an expression of one table, without prefixes; values in it are ``?``."""
    copy = node.copy()
    for each in [*copy.find_all(exp.Column)]:
        each.set("table", None)
        each.set("db", None)
    text = copy.sql(dialect="postgres", normalize_functions="lower", comments=False)
    return re.sub(r"OPERATOR\(pg\.([^)]*)\)", r"\1", re.sub(r"%\(p\d+\)s", "?", text))


def _compared(node: exp.Expr) -> tuple[exp.Expr | None, str, Value]:
    """Return what is compared, how, and with what kind of value; None where it is no comparison of a column."""
    if isinstance(node, exp.Not):
        left, operator, value = _compared(plain(node.this) or node)
        if isinstance(plain(node.this), exp.Column):
            return left, "is false", "nothing"
        return left, _NEGATED.get(operator, f"not {operator}"), value
    if isinstance(node, exp.Column):
        return node, "is true", "nothing"
    if isinstance(node, exp.Is):
        found = node.expression
        word = "null" if isinstance(found, exp.Null) else found.sql(dialect="postgres").lower()
        return node.this, f"is not {word}" if node.args.get("negate") else f"is {word}", "nothing"
    if isinstance(node, exp.MatchAgainst):
        sides = [*node.expressions, node.this]
        return next((each for each in sides if columns_in(each)), None), "@@", "expression"
    if isinstance(node, exp.In):
        return node.this, "in", "subquery" if node.args.get("query") else "parameter"
    if isinstance(node, exp.Between):
        return node.this, "between", _value(node.args["low"])
    return _sided(node)


def _sided(node: exp.Expr) -> tuple[exp.Expr | None, str, Value]:
    operator = next((name for kind, name in _OPERATORS.items() if type(node) is kind), "")
    if isinstance(node, exp.Operator):
        operator = str(node.args.get("operator", "")).removeprefix("pg.")
    if not operator and isinstance(node, exp.Binary) and not isinstance(node, exp.Connector):
        operator = node.key
    if not operator:
        return None, "", "nothing"
    left, right = plain(node.this), plain(node.expression)
    if left is None or right is None:
        return None, "", "nothing"
    if operator == "=" and (isinstance(right, exp.Any) or right.name.lower() == "some"):
        operator = "in"
    if not columns_in(left) and columns_in(right):
        left, right, operator = right, left, _TURNED.get(operator, operator)
    return left, operator, _value(right)


def _value(node: exp.Expr) -> Value:
    inner = plain(node)
    while isinstance(inner, exp.Cast | exp.Any):
        inner = plain(inner.this)
    if isinstance(inner, _VALUES):
        return "parameter"
    if isinstance(inner, exp.Subquery | exp.Query):
        return "subquery"
    if isinstance(inner, exp.Column):
        return "column"
    return "expression"


def _pair(node: exp.Expr, scope: Scope) -> Join | None:
    if not isinstance(node, exp.EQ):
        return None
    left, right = plain(node.this), plain(node.expression)
    if not isinstance(left, exp.Column) or not isinstance(right, exp.Column):
        return None
    return Join(
        Column(scope.table_of(left), named(left.this)),
        Column(scope.table_of(right), named(right.this)),
    )


def _using(scope: Scope) -> Iterator[Join]:
    names = list(scope.sources.values())
    for join in _all_joins(scope):
        for each in join.args.get("using") or []:
            if len(names) == 2:
                yield Join(Column(names[0] or "", named(each)), Column(names[1] or "", named(each)))
