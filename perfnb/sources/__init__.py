"""Sources of evidence: each probes, starts, yields rows and stops.

A package adds one through the entry point group ``perfnb.sources``, whose value is a :class:`Kind`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from perfnb.sources.base import Emit, Readiness, Source
from perfnb.target import Target

__all__ = ["Emit", "Kind", "Readiness", "Source", "added_kinds", "kinds"]


@dataclass(frozen=True)
class Kind:
    """A kind of evidence: the tables it fills, how it is turned on, and whether it would start for a target.

    ``start`` makes the source of a kind that a package adds; a recorder starts it wherever ``ready`` says it works.
    """

    name: str
    writes: tuple[str, ...]
    switch: str
    ready: Callable[[Target], Readiness]
    start: Callable[[Target, Emit], Source] | None = None


def kinds() -> tuple[Kind, ...]:
    """Return every kind of source, ours first, then those of installed packages."""
    from perfnb.sources import readiness as ready

    ours = (
        Kind("proxy", ("llm_calls",), "--upstream URL", ready.proxy),
        Kind("otlp", ("spans", "llm_calls", "http_requests", "samples", "events"), "--otlp", ready.otlp),
        Kind("front", ("http_requests",), "--listen PORT --app URL", ready.front),
        Kind("probe", ("http_requests",), "--url URL, or [[request]] in perfnb.toml", ready.probe),
        Kind("logs", ("spans",), "--log FILE", ready.logs),
        Kind("postgres", ("statements", "activity", "catalog", "samples", "events"), "--dsn DSN", ready.postgres),
        Kind("pgbouncer", ("samples", "catalog"), "--pgbouncer DSN", ready.pgbouncer),
        Kind("metrics", ("samples",), "--metrics URL", ready.metrics),
        Kind("process", ("samples",), "--pid PID", ready.process),
        Kind("stacks", ("stacks",), "--pid PID", ready.stacks),
        Kind("qdrant", ("catalog", "samples"), "--qdrant URL", ready.qdrant),
        Kind("milvus", ("catalog", "samples"), "--milvus URI", ready.milvus),
        Kind("redis", ("catalog", "samples"), "--redis URL", ready.redis),
    )
    return (*ours, *added_kinds())


def added_kinds() -> tuple[Kind, ...]:
    """Return the kinds of source that installed packages add."""
    return tuple(_loaded(point) for point in entry_points(group="perfnb.sources"))


def _loaded(point: EntryPoint) -> Kind:
    """Return the kind a package adds; one that can't be loaded is told by the doctor instead of stopping us."""
    try:
        kind: Kind = point.load()
    except Exception as error:
        broken = Readiness(point.name, False, f"{point.value} can't be loaded: {error}", "update or remove its package")
        return Kind(point.name, (), "", lambda target: broken)
    return kind
