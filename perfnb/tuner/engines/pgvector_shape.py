"""The statement that a vector search on Postgres is, from how the column is indexed."""

from dataclasses import dataclass

from psycopg import sql

OPERATORS = {
    "l2_ops": ("<->", "l2"),
    "ip_ops": ("<#>", "inner product"),
    "cosine_ops": ("<=>", "cosine"),
    "l1_ops": ("<+>", "l1"),
    "hamming_ops": ("<~>", "hamming"),
    "jaccard_ops": ("<%>", "jaccard"),
}
ROW_ID = "tableoid::bigint || ':' || ctid::text"


def operator_of(opclass: str) -> tuple[str, str]:
    """Return the operator that an operator class serves, and its distance: ``<=>``, cosine for vector_cosine_ops."""
    return next(found for end, found in OPERATORS.items() if opclass.endswith(end))


@dataclass(frozen=True)
class Shape:
    """How a search is written.

    Attributes:
        table: Quoted, with its schema.
        column: Quoted.
        type: Of the column: vector, halfvec …; queries are cast to it.
        operator: Distance that is wanted.
        key: What the index orders by, where it is not the column itself …
        key_operator: … by which operator …
        key_query: … and the query as it compares with it; ``{}`` stands for the parameter.
        rerank: The nearest by key are ordered again by the true distance.
        row_id: What tells rows apart, partitions included.
    """

    table: str
    column: str
    type: str
    operator: str
    key: str = ""
    key_operator: str = ""
    key_query: str = ""
    rerank: bool = False
    row_id: str = ROW_ID

    @property
    def distance(self) -> str:
        """Return the true distance to the query."""
        return f"({self.column} {self.operator} {self._query('{}')})"

    def exact(self, where: str) -> str:
        """Return the statement for the true nearest rows; parameters are the query, the query, how many."""
        return (
            f"SELECT /* perfnb */ {self.row_id}, {self.distance.format('%s')} FROM {self.table} "
            f"WHERE {self.column} IS NOT NULL AND {where} ORDER BY {self.distance.format('%s')} LIMIT %s"
        )

    def search(self, where: str) -> str:
        """Return the statement as an app would send it: what it takes is told by :meth:`parameters`."""
        if not self.rerank:
            return (
                f"SELECT /* perfnb */ {self.row_id}, {self.distance.format('%s')} FROM {self.table} "
                f"WHERE {where} ORDER BY {self._order} LIMIT %s"
            )
        return (
            f"SELECT /* perfnb */ id, distance FROM (SELECT {self.row_id} AS id, {self.distance.format('%s')} AS distance"
            f" FROM {self.table} WHERE {where} ORDER BY {self._order} LIMIT %s) AS nearest ORDER BY distance LIMIT %s"
        )

    def parameters(self, query: str, limit: int, rerank: int | None = None) -> tuple[str | int, ...]:
        """Return the parameters of :meth:`search`."""
        return (query, query, rerank or limit, limit) if self.rerank else (query, query, limit)

    @property
    def _order(self) -> str:
        if not self.key:
            return self.distance.format("%s")
        return f"{self.key} {self.key_operator} {self.key_query.format('%s')}"

    def _query(self, parameter: str) -> str:
        return f"{parameter}::{self.type}"


def quoted(*names: str) -> str:
    """Return a name, with its schema, as SQL takes it."""
    return sql.Identifier(*names).as_string(None)


def as_text(vector: object) -> str:
    """Return a vector in pgvector's own writing."""
    values = vector.tolist() if hasattr(vector, "tolist") else list(vector)  # type: ignore[call-overload]
    return f"[{','.join(map(repr, values))}]"


def condensed(key_type: str, column_type: str, method_key: str) -> tuple[str, bool]:
    """Return how a query is written for an index on an expression, and whether its results need a second look.

    ``key_type`` is the type of the index' key (halfvec(128), bit(128)), ``method_key`` its expression.
    """
    if "binary_quantize" in method_key:
        return f"binary_quantize({{}}::{column_type})::{key_type}", True
    return f"{{}}::{column_type}::{key_type}", key_type.startswith("bit")
