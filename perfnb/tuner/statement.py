"""What an app's own statement does to its chances of using the vector index.

Source: pgvector README and FAQ: an index serves ORDER BY column operator value ascending with LIMIT, by its own operator
"""

from collections.abc import Iterator, Mapping
from typing import Any

from perfnb.sql import Distance, parsed
from perfnb.tuner.engines.base import Description

OPERATORS: Mapping[str, str] = {
    "l2": "<->",
    "inner product": "<#>",
    "cosine": "<=>",
    "l1": "<+>",
    "hamming": "<~>",
    "jaccard": "<%>",
}


def statement_advice(statement: str, described: Description, k: int) -> list[str]:
    """Return why ``statement`` can't use the index, or gets fewer rows than it asks for; nothing where all is well."""
    read = parsed(statement)
    if read is None:
        return ["the statement could not be read, so its operator and LIMIT were not looked at"]
    if read.distance is None:
        return ["the statement orders by no distance operator of pgvector: no vector index serves it"]
    return [*_shape(read.distance), *_operator(read.distance, described), *_limit(read.distance, described.now, k)]


def _shape(distance: Distance) -> Iterator[str]:
    if distance.is_descending:
        yield "the statement orders descending: no vector index serves that; order by the distance, ascending"
    if not distance.is_plain:
        yield f"the statement orders by an expression around {distance.operator}: the index serves the operator alone"
    if not distance.has_limit:
        yield "the statement has no LIMIT: without one the planner sorts the whole table"


def _operator(distance: Distance, described: Description) -> Iterator[str]:
    wanted = OPERATORS.get(described.distance)
    if described.index and wanted and distance.operator != wanted:
        yield (
            f"the statement orders by {distance.operator}, the index is for {wanted} ({described.distance}): it can't be used;"
            " change the operator or build the index with the other operator class"
        )


def _limit(distance: Distance, now: Mapping[str, Any], k: int) -> Iterator[str]:
    if not distance.limit_parameter.isdigit():
        return
    limit, ef = int(distance.limit_parameter), int(now.get("hnsw.ef_search", 0))
    if 0 < ef < limit and now.get("hnsw.iterative_scan", "off") == "off":
        yield f"the statement asks for {limit} rows and hnsw.ef_search is {ef}: it gets {ef} at most"
    if limit != k:
        yield f"the statement asks for {limit} rows and {k} were measured: give k={limit}"
