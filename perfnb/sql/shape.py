"""The shape of a statement: its text without values, comments and the style of parameters."""

import re

from sqlglot import exp

_SIMPLE = re.compile(r"[a-z_][a-z0-9_]*")


def shape(tree: exp.Expr) -> str:
    """Return the text that statements share which differ in values, list lengths, comments and spelling alone.

    Changes ``tree``: call it last.
    """
    for node in list(tree.walk()):
        _levelled(node)
    for node in list(tree.find_all(exp.In, exp.Values)):
        if len(node.expressions) > 1:
            node.set("expressions", node.expressions[:1])
    text = tree.sql(dialect="postgres", comments=False)
    return re.sub(r"OPERATOR\(pg\.([^)]*)\)", r"\1", text).replace("%(v)s", "?")


def _levelled(node: exp.Expr) -> None:
    if isinstance(node, exp.Identifier):
        node.set("this", node.this if node.quoted else node.this.lower())
        node.set("quoted", not _SIMPLE.fullmatch(node.this))
    elif _is_value(node):
        node.replace(exp.Placeholder(this="v"))


def _is_value(node: exp.Expr) -> bool:
    parent = node.parent
    if isinstance(node, exp.Placeholder):
        return True
    if isinstance(node, exp.Boolean | exp.Null):
        return not isinstance(parent, exp.Is)
    if isinstance(node, exp.Literal):
        # positions in ORDER BY 1 and the size in vector(1536) are not values; Postgres keeps them as well
        return not isinstance(parent, exp.DataTypeParam | exp.DataType | exp.Ordered | exp.Group)
    return isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal | exp.Placeholder)
