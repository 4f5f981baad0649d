"""Qdrant's own engine in this process: a shard of qdrant-edge-py."""

from collections.abc import Sequence
from typing import Any

from perfnb.tuner.engines import qdrant
from perfnb.tuner.engines.base import Description, Filter, Question, Vector, as_percent, timed
from perfnb.tuner.recall import Found
from perfnb.tuner.setting import Family, Setting


class QdrantShard:
    """A ``qdrant_edge.EdgeShard``. What a shard does not tell of itself is to be given.

    Attributes:
        distance: cosine, dot, euclid or manhattan.
        build: ``m`` and ``ef_construct`` of its graph.
        is_quantized: Vectors are compressed.
        vector: The name of one of several.
    """

    def __init__(
        self,
        shard: Any,
        *,
        dimensions: int,
        distance: str = "cosine",
        build: "dict[str, int] | None" = None,
        is_quantized: bool = False,
        vector: str | None = None,
        name: str = "shard",
    ) -> None:
        import qdrant_edge

        self._models: Any = qdrant_edge
        self._shard = shard
        self._dimensions, self._distance = dimensions, distance.lower()
        self._build, self._is_quantized = dict(build or {}), is_quantized
        self._vector, self._name = vector, name

    def describe(self) -> Description:
        """Return what is tuned."""
        info = self._shard.info()
        build = {"ef_construction" if name == "ef_construct" else name: value for name, value in self._build.items()}
        return Description(
            engine="Qdrant Edge",
            name=self._name,
            rows=info.points_count,
            dimensions=self._dimensions,
            distance=self._distance,
            index="hnsw" if info.indexed_vectors_count else None,
            build=build,
            index_rows=info.indexed_vectors_count,
            by_distance=not self._is_quantized,
            notes=tuple(qdrant.status_notes(info.points_count, info.indexed_vectors_count, "green")),
        )

    def families(self, limit: int, condition: Filter | None) -> tuple[Family, ...]:
        """Return ``hnsw_ef``, as on a server; none before ``optimize()`` has built the graph."""
        if not self._shard.info().indexed_vectors_count:
            return ()
        return qdrant.families(limit, is_filtered=condition is not None, is_quantized=self._is_quantized)

    def current(self, limit: int) -> Setting | None:
        """Return what a search has that names no ``hnsw_ef``."""
        ef = self._build.get("ef_construct")
        return Setting("hnsw", "hnsw_ef", max(limit, ef)) if ef and self._shard.info().indexed_vectors_count else None

    def sample(self, number: int, seed: int) -> list[Question]:
        """Return points drawn at random; the draw can't be repeated."""
        request = self._models.QueryRequest(query=self._models.Sample.Random, limit=number, with_vector=True)
        return [
            Question(qdrant.vector_of(point.vector, self._vector), point.id) for point in self._shard.query(request)
        ]

    def exact(self, vector: Vector, limit: int, condition: Filter | None) -> Found:
        """Return the true nearest points: every vector is compared, uncompressed."""
        ignore = self._models.QuantizationSearchParams(ignore=True)
        return self._found(vector, limit, self._models.SearchParams(exact=True, quantization=ignore), condition)

    def search(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> Found:
        """Return what a search with ``setting`` gives."""
        return self._found(vector, limit, qdrant.search_params(self._models, setting), condition)

    def uses(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> str:
        """Return nothing: the engine does not tell whether a search used the graph."""
        return ""

    def filtered(self, condition: Any) -> Filter:
        """Return a ``qdrant_edge.Filter`` with the points that meet it."""
        rows, total = self._shard.count(self._models.CountRequest(filter=condition)), self._shard.info().points_count
        return Filter(f"a filter on {as_percent(rows / max(1, total))}", condition, rows, total)

    def filters(self, column: str, selectivities: Sequence[float]) -> list[Filter]:
        """Return matches on the payload field ``column``, which must be indexed."""
        asked = self._models.FacetRequest(column, limit=qdrant.MOST_VALUES, exact=True)
        counts = {hit.value: hit.count for hit in self._shard.facet(asked).hits}
        return qdrant.made_filters(self._models, column, counts, self._shard.info().points_count, selectivities)

    def _found(self, vector: Vector, limit: int, params: Any, condition: Filter | None) -> Found:
        query = self._models.Query.Nearest([float(each) for each in vector], self._vector)
        asked = self._models.SearchRequest(
            query, limit, params=params, filter=condition.condition if condition else None
        )
        points, ms = timed(lambda: self._shard.search(asked))
        return qdrant.found_of(points, self._distance, ms)
