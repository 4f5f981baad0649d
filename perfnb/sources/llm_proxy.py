"""The LLM proxy: the app's base URL points at it, every byte passes, and each attempt becomes a row of ``llm_calls``."""

from pathlib import Path

from perfnb.sources.traffic.passthrough import base_url
from perfnb.sources.traffic.traffic_worker import run
from perfnb.sources.worker import WorkerSource, serve


class LlmProxy(WorkerSource):
    """Passes model calls on to ``upstream`` and records them; in a process of its own.

    ``upstream`` is what the app would use as its base URL, path included; the app then uses :attr:`url`. See
    :mod:`perfnb.sources.traffic.passthrough` for how paths join. WebSockets pass too and are timed as one call. With
    ``has_control`` (see :mod:`perfnb.sources.traffic.control`) policies can be set while it runs.
    """

    def __init__(
        self, recording: Path, upstream: str, *, host: str = "127.0.0.1", port: int = 0, has_control: bool = True
    ) -> None:
        self._base = base_url(upstream)
        settings = {"name": "LLM proxy", "kind": "llm", "base": upstream, "host": host, "port": port}
        settings["has_control"] = has_control
        super().__init__("llm_proxy", "perfnb.sources.llm_proxy", recording, settings)

    @property
    def url(self) -> str:
        """Return the base URL for the app: ``http://127.0.0.1:PORT`` and the upstream's own path (often ``/v1``)."""
        return f"{self.ready['origin']}{self._base.raw_path.rstrip('/')}"


if __name__ == "__main__":
    serve(run)
