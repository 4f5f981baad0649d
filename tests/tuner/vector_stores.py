"""Small real engines for the tuner's tests: vectors to store, vectors to ask, and stores that hold them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from perfnb.tuner import QdrantShard

ROWS, DIMENSIONS = 3000, 48
TENANTS = 100


def drawn(rows: int, *, seed: int = 0, dimensions: int = DIMENSIONS) -> npt.NDArray[np.float32]:
    """Return independent Gaussian vectors: none is near another, so recall rises slowly with ef."""
    return np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)


STORED, ASKED = drawn(ROWS), drawn(400, seed=1)


def fill(
    dsn: str, *, table: str = "docs", type_: str = "vector", index: str = "", rows: npt.NDArray[np.float32] = STORED
) -> None:
    """Make a table of ``rows`` with tenants; ``index`` is what follows ``ON table USING``."""
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(f"CREATE TABLE {table} (id int, tenant int, label text, embedding {type_}({rows.shape[1]}))")
        with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for at, vector in enumerate(rows):
                copy.write_row((at, at % TENANTS, f"100% of {at % 3}", str(vector.tolist())))
        if index:
            connection.execute(f"CREATE INDEX ON {table} USING {index}")
        connection.execute(f"ANALYZE {table}")


@contextmanager
def shard(folder: Path, *, quantization: Any = None, is_built: bool = True) -> Iterator[QdrantShard]:
    """Yield Qdrant's own engine with the stored vectors; the graph is built where ``is_built``."""
    import qdrant_edge as edge

    config = edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(DIMENSIONS, edge.Distance.Cosine),
        quantization_config=quantization,
        hnsw_config=edge.HnswIndexConfig(m=8, ef_construct=50, full_scan_threshold=1),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1),
    )
    made = edge.EdgeShard.create(str(folder / "shard"), config)
    made.update(edge.UpdateOperation.create_field_index("tenant", edge.PayloadSchemaType.Integer))
    points = [edge.Point(at, vector.tolist(), {"tenant": at % TENANTS}) for at, vector in enumerate(STORED)]
    made.update(edge.UpdateOperation.upsert_points(points))
    if is_built:
        made.optimize()
    build = {"m": 8, "ef_construct": 50}
    yield QdrantShard(made, dimensions=DIMENSIONS, build=build, is_quantized=quantization is not None)
    made.close()
