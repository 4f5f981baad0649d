"""The area database: what statements, indexes, connections and vector searches cost, and why."""

from perfnb.areas.database import (
    buffers,
    connections,
    embeddings,
    exhaustion,
    held,
    locks,
    reads,
    repeats,
    stale,
    statements,
    vector_filters,
    vector_parameters,
    vector_resources,
    vector_traffic,
    vectors,
)

__all__ = [
    "buffers",
    "connections",
    "embeddings",
    "exhaustion",
    "held",
    "locks",
    "reads",
    "repeats",
    "stale",
    "statements",
    "vector_filters",
    "vector_parameters",
    "vector_resources",
    "vector_traffic",
    "vectors",
]
