"""Where caches keep what they know: in this process, bounded, or in Redis, for several proxies and across restarts."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from cachetools import TTLCache

from perfnb.errors import NotInstalled

PASSWORD = "PERFNB_REDIS_PASSWORD"
REDIS_TIMEOUT_S = 1.0
PAUSE_S = 5.0
"""How long a Redis that failed is left alone: no call should wait for it again and again."""


class Store(Protocol):
    """Keeps bytes by key for some time."""

    async def get(self, key: str) -> bytes | None:
        """Return what is kept under ``key``."""

    async def put(self, key: str, value: bytes) -> None:
        """Keep ``value`` under ``key``."""

    async def close(self) -> None:
        """Let go of connections."""


class Memory:
    """Keeps the ``entries`` used last, each for ``ttl_s``."""

    def __init__(self, entries: int, ttl_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: TTLCache[str, bytes] = TTLCache(entries, ttl_s, timer=clock)

    async def get(self, key: str) -> bytes | None:
        """Return what is kept under ``key``."""
        return self._kept.get(key)

    async def put(self, key: str, value: bytes) -> None:
        """Keep ``value`` under ``key``."""
        self._kept[key] = value

    async def close(self) -> None:
        """Forget everything."""
        self._kept.clear()


class InRedis:
    """Keeps values in Redis for ``ttl_s``; its password comes from PERFNB_REDIS_PASSWORD alone.

    An error is raised once; then the store is empty for a while and tried again.
    """

    def __init__(self, url: str, ttl_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            from redis.asyncio import Redis
        except ImportError:
            raise NotInstalled("the redis package is missing", hint='pip install "perfnb[redis]"') from None
        given: dict[str, Any] = {"password": password} if (password := os.environ.get(PASSWORD)) else {}
        self._redis = Redis.from_url(
            url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S, **given
        )
        self._ttl_ms = max(1, round(ttl_s * 1e3))
        self._clock = clock
        self._rests_until = 0.0

    async def get(self, key: str) -> bytes | None:
        """Return what is kept under ``key``; raises what redis raises, at most once in PAUSE_S."""
        value: bytes | None = await self._tried(lambda: self._redis.get(f"perfnb:{key}"))
        return value

    async def put(self, key: str, value: bytes) -> None:
        """Keep ``value`` under ``key``; raises as :meth:`get` does."""
        await self._tried(lambda: self._redis.set(f"perfnb:{key}", value, px=self._ttl_ms))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _tried(self, ask: Callable[[], Any]) -> Any:
        if self._clock() < self._rests_until:
            return None
        try:
            return await ask()
        except asyncio.CancelledError:
            raise
        except Exception:
            self._rests_until = self._clock() + PAUSE_S
            raise


def store(entries: int, ttl_s: float, redis: str | None) -> Store:
    """Return the store that these settings describe; raises NotInstalled where Redis' client is missing."""
    return InRedis(redis, ttl_s) if redis else Memory(entries, ttl_s)
