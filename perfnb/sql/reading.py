"""Reads sqlglot's tree of one statement."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from perfnb.sql.conditions import columns_in, expression_text, filters, joins, plain
from perfnb.sql.parameters import DISTANCES
from perfnb.sql.scopes import PART_TYPES, Scope, named, scopes, table_name
from perfnb.sql.statement import Column, Distance, Filter, Kind, Order, Part

_FUNCTIONS = {
    "l2_distance": "<->", "cosine_distance": "<=>", "inner_product": "<#>", "l1_distance": "<+>",
    "hamming_distance": "<~>", "jaccard_distance": "<%>",
}  # fmt: skip
_KINDS: tuple[tuple[type[exp.Expr], Kind], ...] = (
    (exp.Insert, "insert"), (exp.Update, "update"), (exp.Delete, "delete"), (exp.Query, "select"),
)  # fmt: skip

_RANGES = ("<", "<=", ">", ">=", "between")


@dataclass
class Reading:
    """A tree and what its parameters were."""

    tree: exp.Expr
    values: Sequence[str]

    @cached_property
    def scopes(self) -> list[Scope]:
        """Return the statement's parts, the outermost first."""
        return scopes(self.tree)

    @property
    def kind(self) -> Kind:
        """Return what the whole does."""
        return _kind(self.tree)

    @property
    def outermost(self) -> exp.Expr:
        """Return the query whose rows the statement returns or changes."""
        found = self.tree
        while isinstance(found, exp.Subquery):
            found = found.this
        return found

    @property
    def tables(self) -> tuple[str, ...]:
        """Return all tables, once each, those inserted into first."""
        inserted = [_target(each) for each in self.tree.find_all(exp.Insert)]
        return tuple(dict.fromkeys([*inserted, *(name for scope in self.scopes for name in scope.tables)]))

    @property
    def written(self) -> tuple[str, ...]:
        """Return the tables whose rows change."""
        found = self.tree.find_all(exp.Insert, exp.Update, exp.Delete)
        return tuple(dict.fromkeys(name for name in map(_target, found) if name))

    @property
    def locks_rows(self) -> bool:
        """Tell whether rows are locked as they are read."""
        return self.tree.find(exp.Lock) is not None

    @property
    def selects_all(self) -> bool:
        """Tell whether the outermost part selects ``*``."""
        return any(_is_star(each) for each in _selected(self.outermost))

    @property
    def selected(self) -> tuple[Column, ...]:
        """Return the bare columns that the outermost part returns."""
        bare = [plain(each.unalias()) for each in _selected(self.outermost)]
        return tuple(
            self._column(each) for each in bare if isinstance(each, exp.Column) and not isinstance(each.this, exp.Star)
        )

    def part(self, scope: Scope) -> Part:
        """Return what one part asks for."""
        node = scope.node
        group = node.args.get("group")
        grouped = [plain(each) for each in group.expressions] if group else []
        return Part(
            kind=_kind(node),
            tables=scope.tables,
            filters=filters(scope),
            joins=joins(scope),
            order_by=self.order_by(node),
            group_by=tuple(self._column(each) for each in grouped if isinstance(each, exp.Column)),
            has_limit=self.limit(node) is not None,
            limit_parameter=self.limit_parameter(node),
            is_aggregate=not group and any(_aggregates(each) for each in _selected(node)),
        )

    def order_by(self, node: exp.Expr) -> tuple[Order, ...]:
        """Return the keys of the ORDER BY of ``node``."""
        return tuple(self._order(each, self._key(each, node)) for each in _ordered(node))

    def limit(self, node: exp.Expr) -> exp.Expr | None:
        """Return what LIMIT or FETCH FIRST of ``node`` says."""
        found = node.args.get("limit")
        if isinstance(found, exp.Fetch):
            return plain(found.args.get("count")) or exp.Literal.number(1)
        return plain(found.expression) if isinstance(found, exp.Limit) else None

    def limit_parameter(self, node: exp.Expr) -> str:
        """Return the LIMIT of ``node`` as it was written."""
        limit = self.limit(node)
        while isinstance(limit, exp.Cast | exp.Paren):
            limit = limit.this
        if isinstance(limit, exp.Placeholder):
            return self.values[int(str(limit.this)[1:])]
        return limit.sql(dialect="postgres") if isinstance(limit, exp.Literal) else ""

    def distance(self, parts: Sequence[Part]) -> Distance | None:
        """Return the first ORDER BY of nearness."""
        for scope, part in zip(self.scopes, parts, strict=True):
            for each in _ordered(scope.node)[:1]:
                found = self._distance(each, scope, part, parts)
                if found is not None:
                    return found
        return None

    def _distance(self, ordered: exp.Ordered, scope: Scope, part: Part, parts: Sequence[Part]) -> Distance | None:
        key = self._key(ordered, scope.node)
        found = next((each for each in _nodes(key) if _operator(each)), None)
        if found is None:
            return None
        sides = [each for each in _sides(found) if columns_in(each)]
        column = columns_in(sides[0])[0] if sides else None
        if column is None:
            return None
        operator = _operator(found)
        return Distance(
            table=self._column(column).table,
            column=named(column.this),
            operator=operator,
            is_descending=bool(ordered.args.get("desc")),
            is_plain=found is key and isinstance(found, exp.Operator) and len(sides) == 1,
            expression="" if plain(sides[0]) is column else expression_text(sides[0]),
            has_limit=part.has_limit,
            limit_parameter=part.limit_parameter,
            filters=tuple(each for each in self._beside(column, part) if each.column != named(column.this)),
            joins=part.joins,
            bounds=tuple(self._bounds(column, parts)),
        )

    def _bounds(self, column: exp.Column, parts: Sequence[Part]) -> Iterator[Filter]:
        """Yield the conditions that keep rows for how near they are: on the column, or on a name given to the distance."""
        wanted = self._column(column)
        names = {name for scope in self.scopes for name in _named_distances(scope.node)}
        for each in dict.fromkeys(one for part in parts for one in part.filters if one.operator in _RANGES):
            is_distance = each.expression and (each.table, each.column) == (wanted.table, wanted.column)
            if is_distance or each.column in names:
                yield each

    def _beside(self, column: exp.Column, part: Part) -> tuple[Filter, ...]:
        scope = self._scope_of(column)
        within = filters(scope) if scope is not None else ()
        return tuple(dict.fromkeys([*within, *part.filters]))

    def _key(self, ordered: exp.Ordered, node: exp.Expr) -> exp.Expr:
        """Return what a key of ORDER BY stands for: the expression behind an alias, a position or a subquery's column."""
        key = plain(ordered.this) or ordered.this
        if isinstance(key, exp.Literal) and not key.is_string:
            selected = _selected(node)
            position = int(key.this) - 1 if str(key.this).isdigit() else -1
            return plain(selected[position].unalias()) or key if 0 <= position < len(selected) else key
        return self._behind(key, node) if isinstance(key, exp.Column) else key

    def _behind(self, column: exp.Column, node: exp.Expr, depth: int = 0) -> exp.Expr:
        found = _aliased(node, named(column.this)) if not column.table else None
        if found is None:
            inner = self._inner(column, node)
            found = _aliased(inner, named(column.this)) if inner is not None else None
            node = inner or node
        if isinstance(found, exp.Column) and found is not column and depth < 5:
            return self._behind(found, node, depth + 1)
        return found if found is not None else column

    def _inner(self, column: exp.Column, node: exp.Expr) -> exp.Expr | None:
        scope = next((each for each in self.scopes if each.node is node), None)
        if scope is None:
            return None
        if column.table:
            return scope.inner.get(named(column.args["table"]))
        return next(iter(scope.inner.values())) if len(scope.sources) == 1 and scope.inner else None

    def _order(self, ordered: exp.Ordered, key: exp.Expr) -> Order:
        column = self._column(key) if isinstance(key, exp.Column) else Column("", "")
        if not column.column and len({each.sql() for each in columns_in(key)}) == 1:
            column = Column(self._column(columns_in(key)[0]).table, "")
        return Order(
            column.table,
            column.column,
            bool(ordered.args.get("desc")),
            bool(ordered.args.get("nulls_first")),
            "" if column.column else expression_text(key),
        )

    def _scope_of(self, column: exp.Column) -> Scope | None:
        node: exp.Expr | None = column
        while node is not None and not isinstance(node, PART_TYPES):
            node = node.parent
        return next((each for each in self.scopes if each.node is node), None)

    def _column(self, column: exp.Column) -> Column:
        scope = self._scope_of(column)
        return Column(scope.table_of(column) if scope else "", named(column.this))


def _kind(node: exp.Expr) -> Kind:
    return next((kind for type_, kind in _KINDS if isinstance(node, type_)), "other")


def _target(node: exp.Expr) -> str:
    table = node.find(exp.Table) if isinstance(node.this, exp.Schema | exp.Table) else None
    target = node.this if isinstance(node.this, exp.Table) else getattr(node.this, "this", None)
    return table_name(target) if isinstance(target, exp.Table) else table_name(table) if table is not None else ""


def _selected(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.SetOperation):
        return _selected(node.this)
    return list(node.expressions) if isinstance(node, exp.Select) else []


def _ordered(node: exp.Expr) -> list[exp.Ordered]:
    order = node.args.get("order")
    return [each for each in order.expressions if isinstance(each, exp.Ordered)] if order is not None else []


def _aliased(node: exp.Expr, name: str) -> exp.Expr | None:
    for each in _selected(node):
        if isinstance(each, exp.Alias) and named(each.args["alias"]) == name:
            return plain(each.this)
        if isinstance(each, exp.Column) and named(each.this) == name and isinstance(node, exp.Select):
            return each
    return None


def _named_distances(node: exp.Expr) -> list[str]:
    aliases = [each for each in _selected(node) if isinstance(each, exp.Alias)]
    return [named(each.args["alias"]) for each in aliases if any(_operator(inner) for inner in _nodes(each))]


def _is_star(node: exp.Expr) -> bool:
    return isinstance(node, exp.Star) or (isinstance(node, exp.Column) and isinstance(node.this, exp.Star))


def _aggregates(node: exp.Expr) -> bool:
    found = node.walk(prune=lambda each: isinstance(each, (*PART_TYPES, exp.Window)))
    return any(isinstance(each, exp.AggFunc) and not isinstance(each.parent, exp.Window) for each in found)


def _nodes(key: exp.Expr) -> list[exp.Expr]:
    return list(key.walk(prune=lambda node: isinstance(node, PART_TYPES)))


def _operator(node: exp.Expr) -> str:
    if isinstance(node, exp.Operator):
        text = str(node.args.get("operator", "")).removeprefix("pg.")
        return text if text in DISTANCES else ""
    if isinstance(node, exp.CosineDistance):
        return "<=>"
    return _FUNCTIONS.get(node.name.lower(), "") if isinstance(node, exp.Anonymous) else ""


def _sides(node: exp.Expr) -> list[exp.Expr]:
    return list(node.expressions) if isinstance(node, exp.Anonymous) else [node.this, node.expression]
