"""Milvus: a collection on a server or in Milvus Lite, through pymilvus.

Milvus has no exact search beside an index, so the truth is reckoned here from all vectors, up to a size.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from perfnb.errors import WrongUse
from perfnb.tuner.engines.base import Description, Filter, Question, Vector, as_percent, timed, values_for
from perfnb.tuner.recall import Found
from perfnb.tuner.setting import Family, Setting, ladder

MOST_EF = 1000
MOST_BYTES = 1024**3
BATCH = 2000
COMPRESSED = ("SQ", "PQ", "RABITQ", "SCANN", "DISKANN", "AUTOINDEX")
LITE = "Milvus Lite answers through gRPC and Python, which takes longer than a search and hides what a setting costs"
READ_HERE = "an exact search was not timed: Milvus has none beside an index, its answers were reckoned here"


class MilvusCollection:
    """A vector field of a loaded collection.

    Raises WrongUse where the field has no index, or the collection is larger than ``most_bytes``, for all its vectors
    are read once.
    """

    def __init__(self, client: Any, collection: str, field: str | None = None, *, most_bytes: int = MOST_BYTES) -> None:
        self._client = client
        self.collection = collection
        told = client.describe_collection(collection)
        self._id = next(each["name"] for each in told["fields"] if each.get("is_primary"))
        self.field = field or _vector_field(told)
        self._index = self._read_index()
        self._metric = str(self._index.get("metric_type", "COSINE")).upper()
        self._version = str(client.get_server_version())
        self._rows = int(client.get_collection_stats(collection)["row_count"])
        self._dimensions = int(next(each for each in told["fields"] if each["name"] == self.field)["params"]["dim"])
        if self._rows * self._dimensions * 4 > most_bytes:
            raise WrongUse(
                f"{self._rows:,} vectors are too many to read for the exact answers",
                hint="most_bytes=…, or a smaller collection",
            )
        self._read: tuple[list[Any], np.typing.NDArray[np.float32]] | None = None
        self._passing: dict[str, np.typing.NDArray[np.bool_]] = {}

    @property
    def _type(self) -> str:
        return str(self._index.get("index_type", "")).upper()

    @property
    def _is_lite(self) -> bool:
        return "lite" in self._version.lower()

    def describe(self) -> Description:
        """Return what is tuned."""
        numbers = {name: int(value) for name, value in self._index.items() if str(value).isdigit()}
        build = {
            new: numbers[old]
            for old, new in (("M", "m"), ("efConstruction", "ef_construction"), ("nlist", "nlist"))
            if old in numbers
        }
        kind = (
            "hnsw" if self._type.startswith("HNSW") else "ivf" if self._type.startswith("IVF") else self._type.lower()
        )
        return Description(
            engine=f"Milvus {self._version}",
            name=f"{self.collection}.{self.field}",
            rows=self._rows,
            dimensions=self._dimensions,
            distance=self._metric.lower(),
            index=None if self._type == "FLAT" else f"{kind} {self._type}",
            build=build,
            by_distance=not any(part in self._type for part in COMPRESSED),
            no_latency=LITE if self._is_lite else "",
            notes=(READ_HERE,),
        )

    def families(self, limit: int, condition: Filter | None) -> tuple[Family, ...]:
        """Return ``ef`` or ``nprobe``; none for an index that has neither."""
        if "HNSW" in self._type:
            return (Family("hnsw", "ef", ladder(limit, MOST_EF)),)
        if "IVF" in self._type:
            lists = int(self._index.get("nlist", 128))
            return (Family("ivf", "nprobe", ladder(1, lists)),)
        return ()

    def current(self, limit: int) -> Setting | None:
        """Return nothing: each search says its own."""
        return None

    def sample(self, number: int, seed: int) -> list[Question]:
        """Return rows drawn at random."""
        ids, vectors = self._all()
        chosen = np.random.default_rng(seed).permutation(len(ids))[:number]
        return [Question(vectors[at], ids[at]) for at in chosen]

    def exact(self, vector: Vector, limit: int, condition: Filter | None) -> Found:
        """Return the true nearest rows, reckoned from all vectors."""
        ids, vectors = self._all()
        distances = _distances(vectors, np.asarray(vector, np.float32), self._metric)
        if condition is not None:
            distances = np.where(self._passes(str(condition.condition)), distances, np.inf)
        nearest = np.argsort(distances, kind="stable")[:limit]
        kept = [at for at in nearest if np.isfinite(distances[at])]
        return Found([ids[at] for at in kept], [float(distances[at]) for at in kept], 0.0)

    def search(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> Found:
        """Return what a search with ``setting`` gives."""
        asked = {
            "data": [[float(each) for each in vector]],
            "anns_field": self.field,
            "limit": limit,
            "filter": str(condition.condition) if condition else "",
            "search_params": {"metric_type": self._metric, "params": setting.values},
            "output_fields": [self._id],
        }
        hits, ms = timed(lambda: self._client.search(self.collection, **asked)[0])
        sign = 1 if self._metric == "L2" else -1
        return Found([hit[self._id] for hit in hits], [sign * float(hit["distance"]) for hit in hits], ms)

    def uses(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> str:
        """Return the index: Milvus uses it for every search."""
        return self._type

    def filtered(self, condition: Any) -> Filter:
        """Return a filter expression with the rows that meet it."""
        rows = int(self._passes(str(condition)).sum())
        return Filter(f"a filter on {as_percent(rows / max(1, self._rows))}", str(condition), rows, self._rows)

    def filters(self, column: str, selectivities: Sequence[float]) -> list[Filter]:
        """Return ``column in […]`` for values that about these parts of the rows hold."""
        counts = Counter(row[column] for row in self._rows_of([column]))
        made = ((part, values_for(counts, self._rows, part)) for part in selectivities)
        return [
            Filter(
                f"{column} on {as_percent(part)}",
                f"{column} in {_listed(values)}",
                sum(counts[each] for each in values),
                self._rows,
            )
            for part, values in made
            if values
        ]

    def _read_index(self) -> dict[str, Any]:
        names = self._client.list_indexes(self.collection, self.field)
        found = self._client.describe_index(self.collection, names[0]) if names else None
        if not found:
            raise WrongUse(f"{self.collection}.{self.field} has no index", hint="create one, and load the collection")
        nested = found.get("params") or {}
        return {**found, **(nested if isinstance(nested, dict) else {})}

    def _all(self) -> tuple[list[Any], "np.typing.NDArray[np.float32]"]:
        if self._read is None:
            rows = self._rows_of([self._id, self.field])
            self._read = [row[self._id] for row in rows], np.asarray([row[self.field] for row in rows], np.float32)
        return self._read

    def _passes(self, expression: str) -> "np.typing.NDArray[np.bool_]":
        if expression not in self._passing:
            passing = {row[self._id] for row in self._rows_of([self._id], expression)}
            self._passing[expression] = np.array([each in passing for each in self._all()[0]])
        return self._passing[expression]

    def _rows_of(self, fields: Sequence[str], expression: str = "") -> list[dict[str, Any]]:
        walk = self._client.query_iterator(
            self.collection, batch_size=BATCH, filter=expression, output_fields=list(fields)
        )
        rows: list[dict[str, Any]] = []
        try:
            while batch := walk.next():
                rows += batch
        finally:
            walk.close()
        return rows


def _vector_field(told: dict[str, Any]) -> str:
    names = [str(each["name"]) for each in told["fields"] if "dim" in each.get("params", {})]
    if len(names) != 1:
        raise WrongUse(f"the collection has {len(names)} vector fields", hint="name one: field=…")
    return names[0]


def _distances(
    vectors: "np.typing.NDArray[np.float32]", query: "np.typing.NDArray[np.float32]", metric: str
) -> "np.typing.NDArray[np.float64]":
    """Return the distances of all vectors to the query; less is nearer."""
    wide, one = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "L2":
        squared: np.typing.NDArray[np.float64] = ((wide - one) ** 2).sum(axis=1)
        return squared
    products = wide @ one
    if metric == "COSINE":
        products = products / np.maximum(np.linalg.norm(wide, axis=1) * np.linalg.norm(one), 1e-30)
    return -np.asarray(products, np.float64)


def _listed(values: Sequence[Any]) -> str:
    return (
        "["
        + ", ".join(
            repr(each) if not isinstance(each, str) else '"' + each.replace('"', '\\"') + '"' for each in values
        )
        + "]"
    )
