"""A long list is read a page at a time, each page beginning after the last row of the one before.

Mends: over-fetching, slow-statement
Needs: psycopg
Source: E11; PostgreSQL manual (row constructor comparison, LIMIT and OFFSET)
Unlike the guides: OFFSET reads and throws away all rows before the page and skips some when rows are added meanwhile; the
    key of the last row costs the same for every page.
Costs: an index on the two columns: CREATE INDEX CONCURRENTLY ON messages (created_at DESC, id DESC). There is no jump to
    page 17.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

Key = tuple[datetime, int]
Row = tuple[datetime, int, str]

# the columns that are shown, not *; the id tells rows of the same instant apart
FIRST = "SELECT created_at, id, title FROM messages ORDER BY created_at DESC, id DESC LIMIT %s"
AFTER = (
    "SELECT created_at, id, title FROM messages WHERE (created_at, id) < (%s, %s)"
    " ORDER BY created_at DESC, id DESC LIMIT %s"
)


async def page(database: AsyncConnection[Any], after: Key | None = None, *, size: int = 50) -> list[Row]:
    """Return the ``size`` newest rows older than ``after``; give the last row's first two values for the next page."""
    rows = await database.execute(AFTER, (*after, size)) if after else await database.execute(FIRST, (size,))
    return await rows.fetchall()


async def pages(database: AsyncConnection[Any], *, size: int = 50) -> AsyncIterator[list[Row]]:
    """Yield every page, for an export; an app hands ``after`` to its caller instead."""
    rows = await page(database, size=size)
    while rows:
        yield rows
        rows = await page(database, rows[-1][:2], size=size) if len(rows) == size else []
