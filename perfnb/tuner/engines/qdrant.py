"""Qdrant: a collection on a server, through the official client; its own engine's time is used where it tells it.

qdrant-client's local mode (``:memory:`` or a path) is refused: it answers every search exactly, by numpy, whatever is set.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perfnb.errors import NotReachable, WrongUse
from perfnb.tuner.engines.base import Description, Filter, Question, Vector, as_percent, timed, values_for
from perfnb.tuner.recall import Found
from perfnb.tuner.setting import Family, Setting, ladder

MOST_EF = 2000
MOST_VALUES = 1000
NEARER_IS_LESS = ("euclid", "manhattan")
OVERSAMPLING = (1.0, 2.0, 4.0)
LOCAL_MODE = "qdrant-client's local mode can't be tuned: it compares every vector with numpy, so recall is 1 and hnsw_ef does nothing"


class QdrantCollection:
    """A collection on a Qdrant server; ``vector`` names one of several.

    Raises WrongUse for the client's local mode, and NotReachable where the server does not answer.
    """

    def __init__(self, client: Any, collection: str, *, vector: str | None = None) -> None:
        refuse_local(client)
        self._client = client
        self.collection = collection
        self._vector = vector
        self._info = _answer(lambda: client.get_collection(collection))
        self._version = str(_answer(client.info).version)
        self._params = _vector_params(self._info.config.params.vectors, vector)

    @property
    def _distance(self) -> str:
        return str(self._params.distance.value).lower()

    @property
    def _quantization(self) -> Any:
        return self._params.quantization_config or self._info.config.quantization_config

    def describe(self) -> Description:
        """Return what is tuned."""
        hnsw, own = self._info.config.hnsw_config, self._params.hnsw_config
        points, indexed = int(self._info.points_count or 0), int(self._info.indexed_vectors_count or 0)
        return Description(
            engine=f"Qdrant {self._version}",
            name=self.collection,
            rows=points,
            dimensions=int(self._params.size),
            distance=self._distance,
            index="hnsw" if indexed else None,
            build={"m": (own and own.m) or hnsw.m, "ef_construction": (own and own.ef_construct) or hnsw.ef_construct},
            index_rows=indexed,
            by_distance=self._quantization is None,
            notes=tuple(status_notes(points, indexed, str(self._info.status.value))),
        )

    def families(self, limit: int, condition: Filter | None) -> tuple[Family, ...]:
        """Return ``hnsw_ef``, with ACORN under a filter and for each way to rescore compressed vectors."""
        if not self._info.indexed_vectors_count:
            return ()
        return families(limit, is_filtered=condition is not None, is_quantized=self._quantization is not None)

    def current(self, limit: int) -> Setting | None:
        """Return what a search has that names no ``hnsw_ef``: ef_construct, but never fewer than it asks for."""
        if not self._info.indexed_vectors_count:
            return None
        build = self.describe().build
        return Setting("hnsw", "hnsw_ef", max(limit, build["ef_construction"]))

    def sample(self, number: int, seed: int) -> list[Question]:
        """Return points drawn at random by the server; the draw can't be repeated."""
        from qdrant_client import models

        query = models.SampleQuery(sample=models.Sample.RANDOM)
        found = self._ask(query=query, limit=number, with_vector=[self._vector] if self._vector else True)[0]
        return [Question(vector_of(point.vector, self._vector), point.id) for point in found]

    def exact(self, vector: Vector, limit: int, condition: Filter | None) -> Found:
        """Return the true nearest points: ``exact`` compares every vector, uncompressed."""
        from qdrant_client import models

        params = models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))
        return self._found(vector, limit, params, condition)

    def search(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> Found:
        """Return what a search with ``setting`` gives."""
        from qdrant_client import models

        return self._found(vector, limit, search_params(models, setting), condition)

    def uses(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> str:
        """Return nothing: Qdrant does not tell whether a search used the graph."""
        return ""

    def filtered(self, condition: Any) -> Filter:
        """Return a ``models.Filter`` with the points that meet it."""
        rows = int(_answer(lambda: self._client.count(self.collection, count_filter=condition, exact=True)).count)
        total = int(self._info.points_count or 0)
        return Filter(f"a filter on {as_percent(rows / max(1, total))}", condition, rows, total)

    def filters(self, column: str, selectivities: Sequence[float]) -> list[Filter]:
        """Return matches on the payload field ``column``, which must be indexed: the server counts its values."""
        from qdrant_client import models

        total = int(self._info.points_count or 0)
        hits = _answer(lambda: self._client.facet(self.collection, key=column, limit=MOST_VALUES, exact=True)).hits
        return made_filters(models, column, {hit.value: hit.count for hit in hits}, total, selectivities)

    def _found(self, vector: Vector, limit: int, params: Any, condition: Filter | None) -> Found:
        values = [float(each) for each in vector]
        (points, server_ms), ms = timed(
            lambda: self._ask(query=values, limit=limit, params=params, condition=condition)
        )
        return found_of(points, self._distance, ms, server_ms)

    def _ask(
        self, *, condition: Filter | None = None, with_vector: Any = False, **asked: Any
    ) -> tuple[Any, float | None]:
        """Return the points of one query, and the milliseconds that the server says it took."""
        from qdrant_client import models

        request = models.QueryRequest(
            using=self._vector, filter=condition.condition if condition else None, with_vector=with_vector,
            with_payload=False, **asked,
        )  # fmt: skip
        api = self._client.http.search_api
        answer = _answer(lambda: api.query_points(collection_name=self.collection, query_request=request))
        return answer.result.points, answer.time * 1000 if answer.time is not None else None


def refuse_local(client: Any) -> None:
    """Raise WrongUse where ``client`` searches by itself instead of asking a server."""
    from qdrant_client.local.qdrant_local import QdrantLocal

    if isinstance(getattr(client, "_client", client), QdrantLocal):
        raise WrongUse(
            LOCAL_MODE, hint="tune against the server: QdrantClient(url=…), or qdrant-edge for its engine embedded"
        )


def families(limit: int, *, is_filtered: bool, is_quantized: bool, acorn: bool = True) -> tuple[Family, ...]:
    """Return the settings of Qdrant's searches: ``hnsw_ef`` in each way that makes a difference."""
    values = ladder(limit, MOST_EF)
    made = [Family("hnsw", "hnsw_ef", values)]
    if is_quantized:
        made = [Family("compressed alone", "hnsw_ef", values, (("rescore", False),))]
        made += [
            Family(f"rescored, {factor:g} times", "hnsw_ef", values, (("rescore", True), ("oversampling", factor)))
            for factor in OVERSAMPLING
        ]
    if is_filtered and acorn:
        made += [Family(f"{each.name}, acorn", each.parameter, values, (*each.fixed, ("acorn", True))) for each in made]
    return tuple(made)


def search_params(models: Any, setting: Setting) -> Any:
    """Return ``setting`` as the client's or the embedded engine's ``models`` take it."""
    values = dict(setting.values)
    told: dict[str, Any] = {"hnsw_ef": values.get("hnsw_ef")}
    if "rescore" in values:
        told["quantization"] = models.QuantizationSearchParams(
            rescore=values["rescore"], oversampling=values.get("oversampling")
        )
    if values.get("acorn"):
        told["acorn"] = models.AcornSearchParams(enable=True)
    return models.SearchParams(**told)


def made_filters(
    models: Any, column: str, counts: Mapping[Any, int], total: int, selectivities: Sequence[float]
) -> list[Filter]:
    """Return matches on ``column`` that about these parts of the points meet, as far as its values allow."""
    made = []
    for part in selectivities:
        if values := values_for(counts, total, part):
            match = models.MatchValue(value=values[0]) if len(values) == 1 else models.MatchAny(any=list(values))
            condition = models.Filter(must=[models.FieldCondition(key=column, match=match)])
            made.append(
                Filter(f"{column} on {as_percent(part)}", condition, sum(counts[each] for each in values), total)
            )
    return made


def found_of(points: Sequence[Any], distance: str, ms: float, server_ms: float | None = None) -> Found:
    """Return scored points as distances: less is nearer, so similarities change their sign."""
    sign = 1 if distance in NEARER_IS_LESS else -1
    return Found([point.id for point in points], [sign * point.score for point in points], ms, server_ms)


def vector_of(stored: Any, name: str | None) -> Any:
    """Return a point's vector, by its name where there are several."""
    return stored[name or ""] if isinstance(stored, Mapping) else stored


def status_notes(points: int, indexed: int, status: str) -> list[str]:
    """Return what the collection's state means for a tuning."""
    notes = (
        [] if status == "green" else [f"status is {status}: segments are still to be optimised, results will change"]
    )
    if points and not indexed:
        notes.append("no vector is indexed yet: every search compares all of them")
    elif indexed < points:
        notes.append(
            f"{points - indexed:,} of {points:,} points are not indexed (normal below the indexing threshold): they are compared one by one"
        )
    return notes


def _vector_params(told: Any, name: str | None) -> Any:
    if not isinstance(told, Mapping):
        return told
    if name not in told:
        raise WrongUse(f"the collection has the vectors {', '.join(told)}", hint="name one: vector=…")
    return told[name]


def _answer(ask: Callable[[], Any]) -> Any:
    from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

    try:
        return ask()
    except (ApiException, ResponseHandlingException) as error:
        raise NotReachable(
            f"Qdrant refused: {str(error).strip()[:200]}", hint="check the address, the key and the collection"
        ) from None
