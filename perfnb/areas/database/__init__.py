"""The area database: what statements, indexes, connections and vector searches cost, and why."""

from perfnb.areas.database import (
    buffers,
    embeddings,
    reads,
    repeats,
    statements,
    vector_filters,
    vector_parameters,
    vector_resources,
    vector_traffic,
    vectors,
)

__all__ = [
    "buffers",
    "embeddings",
    "reads",
    "repeats",
    "statements",
    "vector_filters",
    "vector_parameters",
    "vector_resources",
    "vector_traffic",
    "vectors",
]
