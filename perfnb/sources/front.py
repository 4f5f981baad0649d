"""The front: the same pass-through before the app, for apps without tracing; each request is a row of ``http_requests``."""

from pathlib import Path

from perfnb.sources.traffic.passthrough import base_url
from perfnb.sources.traffic.traffic_worker import run
from perfnb.sources.worker import WorkerSource, serve


class Front(WorkerSource):
    """Stands in front of the app at ``app`` and records each request; in a process of its own.

    The caller's Host header reaches the app, so that addresses the app makes lead back to the front.
    """

    def __init__(self, recording: Path, app: str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._base = base_url(app)
        settings = {"name": "front", "kind": "http", "base": app, "host": host, "port": port}
        super().__init__("front", "perfnb.sources.front", recording, settings)

    @property
    def url(self) -> str:
        """Return the address to use instead of the app's."""
        return f"{self.ready['origin']}{self._base.raw_path.rstrip('/')}"


if __name__ == "__main__":
    serve(run)
