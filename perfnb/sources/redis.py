"""Read Redis or Valkey: memory, hits and evictions, commands, keys that never expire, vector indexes.

Read only, a few commands a look. REDIS_PASSWORD is sent where it is set, and no password is ever written. Of keys, a
sample is looked at with SCAN, and only first words that several of them share are written.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from perfnb.errors import NotInstalled, NotPermitted, NotReachable
from perfnb.sources.base import Emit
from perfnb.sources.polled import Polled, Rows, host_and_port, sample, thing
from perfnb.sources.redis_rows import index_properties, info_values, key_facts, unit_of

INTERVAL_S = 2.0
TIMEOUT_S = 2.0
PASSWORD = "REDIS_PASSWORD"
KEYS_SAMPLED = 400
KEYS_EVERY = 15
INDEXES_MOST = 50


class Redis(Polled):
    """Writes ``samples`` of source redis (entity ``server``, counters since it started) and ``catalog`` rows.

    Kinds are store (eviction, memory limit, prefixes and expiry of sampled keys) and collection, one for each vector
    field of a search index.
    """

    name = "redis"

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
        self._url = url if "://" in url else f"redis://{url}"
        self._password = environment.get(PASSWORD)
        self._now = now
        self._client: Any = None
        self._keys: Mapping[str, Any] = {}

    def look(self) -> Rows:
        """Return what one look saw; raises NotReachable or NotPermitted with what to do."""
        with self._told():
            return list(self._rows(self._connected()))

    def found(self, rows: Rows) -> str:
        """Return in a few words what a look saw."""
        keys = next((row["properties"].get("keys") for table, row in rows if table == "catalog"), None)
        return f"{keys} keys"

    def close(self) -> None:
        """Close the client."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _rows(self, client: Any) -> Rows:
        taken, server = self._now(), host_and_port(self._url, 6379)
        info = client.info("everything")
        slow = self._maybe(client.slowlog_len)
        values = info_values(info) | ({} if slow is None else {"slow_commands": float(slow)})
        yield from (sample(taken, "redis", "server", name, value, unit_of(name)) for name, value in values.items())
        if self._counters["looks"] % KEYS_EVERY == 0:
            self._keys = key_facts(self._sampled_keys(client))
        about = {"engine": "redis", "version": str(info.get("redis_version", "")), "mode": "server"}
        limit = info.get("maxmemory") or None
        own = {"eviction": info.get("maxmemory_policy"), "memory_limit_bytes": limit, "keys": int(values["keys"])}
        own |= {"keys_without_expiry": int(values["keys"] - values["keys_with_expiry"])}
        yield thing(taken, server, "store", server, {**about, **own, **self._keys})
        for name in self._index_names(client):
            for field, known in index_properties(client.execute_command("FT.INFO", name)):
                yield thing(taken, server, "collection", f"{name}/{field}", {**known, **about})

    def _sampled_keys(self, client: Any) -> list[str]:
        """Return the names of some keys; SCAN does not block a server as KEYS does, and counts as no hit."""
        keys: list[bytes] = []
        cursor = 0
        while len(keys) < KEYS_SAMPLED:
            cursor, found = client.scan(cursor, count=KEYS_SAMPLED)
            keys += found
            if cursor == 0:
                break
        return [key.decode("utf-8", "replace") for key in keys[:KEYS_SAMPLED]]

    def _index_names(self, client: Any) -> list[str]:
        """Return the names of search indexes; none where the server has no search."""
        names = self._maybe(lambda: client.execute_command("FT._LIST")) or []
        return sorted(name.decode("utf-8", "replace") for name in names)[:INDEXES_MOST]

    def _maybe(self, ask: Callable[[], Any]) -> Any:
        """Return the answer, or None where the server does not know the command or does not let us use it."""
        from redis.exceptions import ResponseError

        try:
            return ask()
        except ResponseError:
            return None

    def _connected(self) -> Any:
        if self._client is None:
            try:
                from redis import Redis as Client
            except ImportError:
                raise NotInstalled("redis is not installed", hint="pip install 'perfnb[vector]'") from None
            given = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "client_name": "perfnb"}
            if self._password and "@" not in self._url:
                given["password"] = self._password
            self._client = Client.from_url(self._url, **given)
        return self._client

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the client raises into our errors; its messages may hold addresses and users, ours do not."""
        where = host_and_port(self._url, 6379)
        try:
            yield
        except (NotInstalled, NotReachable):
            raise
        except Exception as error:
            self.close()
            words = f"{type(error).__name__} {error}".lower()
            if any(word in words for word in ("auth", "noperm", "wrongpass", "permission")):
                raise NotPermitted(f"Redis at {where} does not let us in", hint=f"set {PASSWORD}") from None
            raise NotReachable(f"no Redis answers at {where}", hint="start it, or mend --redis URL") from None
