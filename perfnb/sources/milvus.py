"""Read Milvus: collections with index, backlog and load state, and the search times of its metrics page.

MILVUS_TOKEN (``user:password`` or a key) is sent where it is set, and never written. A path that ends in ``.db`` is
opened with Milvus Lite; while an app has it open nobody else can.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.request import urlopen

from perfnb.errors import NotInstalled, NotPermitted, NotReachable, PerfnbError
from perfnb.sources.base import Emit
from perfnb.sources.milvus_rows import collection_rows, metric_values
from perfnb.sources.polled import Polled, Rows, host_and_port, sample, thing

INTERVAL_S = 5.0
TIMEOUT_S = 3.0
TOKEN = "MILVUS_TOKEN"
METRICS_PORT = 9091


class Milvus(Polled):
    """Writes ``catalog`` rows (store, collection) and ``samples`` of source milvus about the server at ``uri``.

    Entities are ``collection NAME`` (points, indexed_points, pending_points) and ``server`` (searches and
    search_time_ms since it started, memory_resident_bytes) where its metrics page on port 9091 answers.
    """

    name = "milvus"

    def __init__(
        self,
        emit: Emit,
        uri: str,
        *,
        metrics_port: int = METRICS_PORT,
        interval_s: float = INTERVAL_S,
        environment: Mapping[str, str] = os.environ,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        super().__init__(emit, interval_s=interval_s)
        self._uri = uri
        self._token = environment.get(TOKEN, "")
        self._metrics_port = metrics_port
        self._now = now
        self._client: Any = None

    @property
    def is_embedded(self) -> bool:
        """Tell whether it is a file of Milvus Lite, not a server."""
        return "://" not in self._uri

    def look(self) -> Rows:
        """Return what one look saw; raises NotReachable or NotPermitted with what to do."""
        with _quiet(), self._told():
            return list(self._rows(self._connected()))

    def close(self) -> None:
        """Close the client; a file of Milvus Lite is let go of, so that the app can open it."""
        client, self._client = self._client, None
        if client is None:
            return
        with _quiet(), contextlib.suppress(Exception):
            client.close()
        if self.is_embedded:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self._uri)

    def _rows(self, client: Any) -> Rows:
        taken, server = self._now(), self._server
        about = {
            "engine": "milvus",
            "version": str(client.get_server_version()),
            "mode": "embedded" if self.is_embedded else "server",
        }
        for name in sorted(client.list_collections()):
            indexes = [client.describe_index(name, index) for index in client.list_indexes(name)]
            state = {} if self.is_embedded else client.get_load_state(name)  # a file is loaded by its app, not by us
            told = client.describe_collection(name), client.get_collection_stats(name), state
            yield from collection_rows(taken, server, *told, [each for each in indexes if each], about)
        values = {} if self.is_embedded else metric_values(self._metrics())
        for metric, value in values.items():
            unit = next((unit for unit in ("bytes", "ms") if metric.endswith(unit)), "count")
            yield sample(taken, "milvus", "server", metric, value, unit)
        yield thing(taken, server, "store", server, about)

    @property
    def _server(self) -> str:
        return f"embedded {os.path.basename(self._uri)}" if self.is_embedded else host_and_port(self._uri, 19530)  # noqa: PTH119 - a name, no file

    def _metrics(self) -> str:
        """Return the metrics page, or nothing: hosted servers have none, and firewalls close its port."""
        host = host_and_port(self._uri, 19530).rpartition(":")[0]
        try:
            with urlopen(f"http://{host}:{self._metrics_port}/metrics", timeout=TIMEOUT_S) as answer:
                return str(answer.read().decode("utf-8", "replace"))
        except (OSError, ValueError):
            return ""

    def _connected(self) -> Any:
        if self._client is None:
            try:
                from pymilvus import MilvusClient
            except ImportError:
                raise NotInstalled("pymilvus is not installed", hint="pip install 'perfnb[vector]'") from None
            if self.is_embedded and not os.path.exists(self._uri):  # noqa: PTH110 - opening it would make one
                raise NotReachable(f"there is no {self._server}", hint="name the file as the app does")
            self._client = MilvusClient(self._uri, token=self._token, timeout=TIMEOUT_S)
        return self._client

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the client raises into our errors; its messages may hold addresses and tokens, ours do not."""
        try:
            yield
        except PerfnbError:
            raise
        except Exception as error:  # of pymilvus, of grpc, of milvus-lite's storage
            self.close()
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> NotPermitted | NotReachable:
        words = str(error).lower()
        if "auth" in words or "permission" in words or "token" in words:
            return NotPermitted(
                f"Milvus at {self._server} does not let us in", hint=f"set {TOKEN} to user:password or a key"
            )
        if self.is_embedded:
            return NotPermitted(
                f"{self._server} can't be opened",
                hint="look while the app is stopped: one process at a time may open it",
            )
        return NotReachable(f"no Milvus answers at {self._server}", hint="start it, or mend --milvus URI")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' error logs, which repeat what is raised, out of the recorder's lines."""
    loggers = [logging.getLogger(name) for name in ("pymilvus", "milvus_lite")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
