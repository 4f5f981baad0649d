"""Read Qdrant: collections with status, backlog and settings, memory and request counters; or a shard of its engine.

A server is asked over REST, read only; QDRANT_API_KEY is sent to it where that is set, and never written. A folder is
opened as a shard of qdrant-edge, which is Qdrant's engine in a process; while an app has it open nobody else can.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfnb.errors import NotInstalled, NotPermitted, NotReachable, WrongUse
from perfnb.sources.base import Emit
from perfnb.sources.polled import Polled, Rows, host_and_port, sample, thing
from perfnb.sources.qdrant_edge import edge_rows
from perfnb.sources.qdrant_rows import collection_rows, metric_values, slow_filters

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

INTERVAL_S = 5.0
TIMEOUT_S = 3
KEY = "QDRANT_API_KEY"
IN_MEMORY = ":memory:"

WHY_NOT_LOCAL = (
    "qdrant-client's local mode is exact search in numpy: no vector index, and search parameters have no effect"
)
INSTEAD_OF_LOCAL = "run the Qdrant server, or open a shard of qdrant-edge-py, which is the same engine"


class Qdrant(Polled):
    """Writes ``catalog`` rows (store, collection) and ``samples`` of source qdrant about the server or shard at ``url``.

    Entities are ``collection NAME`` (points, indexed_points, segments) and ``server`` (memory_resident_bytes,
    memory_allocated_bytes, memory_limit_bytes, searches and search_time_ms since it started).
    """

    name = "qdrant"

    def __init__(
        self,
        emit: Emit,
        url: str,
        *,
        interval_s: float = INTERVAL_S,
        environment: Mapping[str, str] = os.environ,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(emit, interval_s=interval_s)
        self._url = url
        self._key = environment.get(KEY)
        self._now = now
        self._client: QdrantClient | None = None

    def look(self) -> Rows:
        """Return what one look saw; raises NotReachable, NotPermitted or WrongUse with what to do."""
        refuse_local(self._url)
        if "://" not in self._url and Path(self._url).is_dir():
            return edge_rows(Path(self._url), self._now())
        return self._rows()

    def close(self) -> None:
        """Close the client, where there is one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _rows(self) -> Rows:
        server, taken = host_and_port(self._url, 6333), self._now()
        version = str(self._get("/").get("version", ""))
        about = {"engine": "qdrant", "version": version, "mode": "server"}
        filters = slow_filters(self._maybe("/issues"))
        for name in sorted(each["name"] for each in self._get("/collections")["result"]["collections"]):
            info = self._get("/collections/{name}", name=name)["result"]
            known = {**about, "slow_filters": filters.get(name)}
            yield from collection_rows(taken, server, name, info, known)
        values = metric_values(self._text("/metrics"), self._maybe("/telemetry?details_level=1"))
        yield from (sample(taken, "qdrant", "server", metric, value, _unit(metric)) for metric, value in values.items())
        limit = values.get("memory_limit_bytes")
        yield thing(
            taken, server, "store", server, about | {"memory_limit_bytes": None if limit is None else int(limit)}
        )

    def _get(self, path: str, **parts: str) -> dict[str, Any]:
        """Return the JSON answer of ``path``; older and newer servers may tell less or more than the client's models."""
        from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

        try:
            found = self._api.request(type_=dict, method="GET", url=path, path_params=parts)
        except UnexpectedResponse as error:
            raise _refused(self._url, error.status_code) from None
        except ValueError:
            raise _stranger(self._url, "what it answers is no JSON") from None
        except (ApiException, OSError):
            raise NotReachable(
                f"no Qdrant answers at {host_and_port(self._url, 6333)}", hint="start it, or mend --qdrant URL"
            ) from None
        if path.startswith("/collections") and "result" not in (found or {}):
            raise _stranger(self._url, "it tells no collections")
        return dict(found or {})

    def _maybe(self, path: str) -> dict[str, Any]:
        """Return the answer of ``path``, or nothing where the server has no such page or does not let us see it."""
        try:
            return self._get(path)
        except (NotPermitted, NotReachable):
            return {}

    def _text(self, path: str) -> str:
        from qdrant_client.http.exceptions import ApiException

        client = self._api._client  # the library reads answers as JSON, which a metrics page is not
        try:
            answer = self._api.send_inner(client.build_request("GET", self._api.host.rstrip("/") + path))
        except (ApiException, OSError):
            return ""
        return str(answer.text) if answer.status_code == 200 else ""

    @property
    def _api(self) -> Any:
        if self._client is None:
            self._client = _connected(self._url, self._key)
        return self._client.http.client


def refuse_local(where: object) -> None:
    """Raise WrongUse where ``where`` (a URL, a path or a QdrantClient) is qdrant-client's local mode.

    A tuner pointed at it would call any setting perfect: every search there is exact, whatever ef is asked for.
    """
    inner = type(getattr(where, "_client", None)).__name__
    is_folder = isinstance(where, str | Path) and (Path(where) / "meta.json").is_file()
    if str(where) == IN_MEMORY or inner in ("QdrantLocal", "AsyncQdrantLocal") or is_folder:
        raise WrongUse(WHY_NOT_LOCAL, hint=INSTEAD_OF_LOCAL)


def _connected(url: str, key: str | None) -> "QdrantClient":
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise NotInstalled("qdrant-client is not installed", hint="pip install 'perfnb[vector]'") from None
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a key over plain http is for the app's owner to judge
        return QdrantClient(url=url, api_key=key, timeout=TIMEOUT_S, check_compatibility=False)


def _refused(url: str, status: int | None) -> NotPermitted | NotReachable:
    where = host_and_port(url, 6333)
    if status in (401, 403):
        return NotPermitted(f"Qdrant at {where} wants a key", hint=f"set {KEY} to a read-only key")
    return _stranger(url, f"it answers {status}")


def _stranger(url: str, why: str) -> NotReachable:
    return NotReachable(f"{host_and_port(url, 6333)} is no Qdrant: {why}", hint="mend --qdrant URL")


def _unit(metric: str) -> str:
    return next((unit for unit in ("bytes", "ms") if metric.endswith(unit)), "count")
