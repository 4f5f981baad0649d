"""A user's session row is read once a minute, not with every request, and a change is seen at once.

Mends: uncached-session-reads, frequent-statement
Needs: redis
Source: E50; Redis manual (SET with EX, DEL)
Unlike the guides: the row is forgotten when it is written, so a user who is signed out is not let in for the rest of the
    minute; a lifetime alone would do just that.
Costs: a round trip to Redis in place of one to the database. A reader who is slow at the very moment of a change may put
    the old row back: it lives no longer than the lifetime.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

Row = dict[str, Any]
LIFETIME_S = 60


async def session_row(cache: Redis, session: str, read: Callable[[str], Awaitable[Row | None]]) -> Row | None:
    """Return the row of ``session``, from the cache where it is younger than the lifetime; ``read`` asks the database."""
    known = await cache.get(f"session:{session}")
    if known is not None:
        return dict(json.loads(known))
    row = await read(session)
    if row is not None:
        await cache.set(f"session:{session}", json.dumps(row), ex=LIFETIME_S)
    return row


async def change(cache: Redis, session: str, write: Callable[[str], Awaitable[None]]) -> None:
    """Write to the database and forget what the cache knows; forget after, or a reader brings the old row back."""
    await write(session)
    await cache.delete(f"session:{session}")
