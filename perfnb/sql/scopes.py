"""Which table a column of a statement is of."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlglot import exp

PART_TYPES = (exp.Select, exp.Update, exp.Delete)


@dataclass(eq=False)
class Scope:
    """One SELECT, UPDATE or DELETE: its sources by the name they go by, None for what is no table, and its outer one."""

    node: exp.Expr
    outer: "Scope | None" = None
    sources: dict[str, str | None] = field(default_factory=dict)
    inner: dict[str, exp.Expr] = field(default_factory=dict)

    @property
    def tables(self) -> tuple[str, ...]:
        """Return the tables of this part alone, once each."""
        return tuple(dict.fromkeys(name for name in self.sources.values() if name))

    def table_of(self, column: exp.Column) -> str:
        """Return the table of ``column``, ``""`` where it can't be told."""
        if not column.table:
            return (next(iter(self.sources.values())) or "") if len(self.sources) == 1 else ""
        alias = named(column.args["table"])
        scope: Scope | None = self
        while scope is not None and alias not in scope.sources:
            scope = scope.outer
        return (scope.sources[alias] or "") if scope else ""


def named(node: object) -> str:
    """Return an identifier's name as Postgres folds it."""
    if isinstance(node, exp.Identifier):
        return str(node.this) if node.quoted else str(node.this).lower()
    return str(node or "").lower()


def table_name(table: exp.Table) -> str:
    """Return ``schema.table`` or ``table``; ``""`` for a function in FROM."""
    if not isinstance(table.this, exp.Identifier):
        return ""
    schema = named(table.args.get("db"))
    return f"{schema}.{named(table.this)}" if schema else named(table.this)


def scopes(tree: exp.Expr) -> list[Scope]:
    """Return every part of a statement, outermost first, each after the one it stands in."""
    ctes = {named(cte.args["alias"].this): cte.this for cte in tree.find_all(exp.CTE)}
    made: dict[int, Scope] = {}
    for node in tree.walk():
        if isinstance(node, PART_TYPES):
            outer = _outer(node, made)
            made[id(node)] = scope = Scope(node, outer)
            for source in _sources(node):
                _add(scope, source, ctes)
    return list(made.values())


def _outer(node: exp.Expr, made: dict[int, Scope]) -> Scope | None:
    parent = node.parent
    while parent is not None and id(parent) not in made:
        parent = parent.parent
    return made[id(parent)] if parent is not None else None


def _sources(node: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(node, exp.Update | exp.Delete) and node.this is not None:
        yield node.this
        yield from node.this.args.get("joins") or []
    using = node.args.get("using") or []
    yield from using if isinstance(using, list) else [using]
    found = node.args.get("from_")
    if found is not None:
        yield found.this
        yield from found.this.args.get("joins") or []
    for join in node.args.get("joins") or []:
        yield join.this
    yield from node.args.get("laterals") or []


def _add(scope: Scope, source: exp.Expr, ctes: dict[str, exp.Expr]) -> None:
    if isinstance(source, exp.Join):
        source = source.this
    alias = source.args.get("alias")
    name = named(alias.this) if alias is not None and alias.this is not None else ""
    if isinstance(source, exp.Table):
        table = table_name(source)
        if table in ctes:
            scope.inner[name or table] = ctes[table]
        known_as = name or table.rpartition(".")[2] or f"?{len(scope.sources)}"
        scope.sources[known_as] = None if table in ctes else table or None
        return
    name = name or f"?{len(scope.sources)}"
    scope.sources[name] = None
    if isinstance(source, exp.Subquery | exp.Lateral):
        scope.inner[name] = source.this.unnest() if isinstance(source.this, exp.Subquery) else source.this
