"""The area slow: where the user's wait goes, and why."""

from perfnb.areas.slow import (
    caching,
    clients,
    concurrency,
    context,
    hotspots,
    models,
    provider,
    reasoning,
    retries,
    stages,
    streaming,
)

__all__ = [
    "caching",
    "clients",
    "concurrency",
    "context",
    "hotspots",
    "models",
    "provider",
    "reasoning",
    "retries",
    "stages",
    "streaming",
]
