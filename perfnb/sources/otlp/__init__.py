"""OpenTelemetry in: a receiver for traces, metrics and logs, and a tolerant reader of OTLP/JSON."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfnb.sources.otlp.receiver import Otlp

__all__ = ["Otlp"]


def __getattr__(name: str) -> Any:
    if name != "Otlp":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from perfnb.sources.otlp.receiver import Otlp  # late: the receiver also runs as a program

    return Otlp
