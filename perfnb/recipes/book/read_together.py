"""Rows of many ids are read with one statement, not one statement for each.

Mends: n-plus-one, per-id-queries, frequent-statement
Needs: psycopg
Source: B22, C58; psycopg manual (lists adaptation), PostgreSQL manual (row and array comparisons)
Unlike the guides: IN %s with a tuple is a syntax error in psycopg 3; = ANY(%s) takes a list, an empty one too, and is one
    statement to pg_stat_statements however long the list.
Costs: a few hundred ids a statement are well; tens of thousands make one slow statement of many fast ones, so they are read
    in batches.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import dict_row

PASSAGES = "SELECT id, body FROM passages WHERE id = ANY(%s)"


async def read_together(
    database: AsyncConnection[Any], ids: Iterable[int], *, query: str = PASSAGES, batch: int = 1000
) -> list[dict[str, Any]]:
    """Return the row of every id in the order of ``ids``; ids without a row are left out."""
    wanted = list(ids)
    unique = list(dict.fromkeys(wanted))
    found: dict[int, dict[str, Any]] = {}
    for start in range(0, len(unique), batch):
        found |= {row["id"]: row for row in await _rows(database, query, unique[start : start + batch])}
    return [found[each] for each in wanted if each in found]


async def _rows(database: AsyncConnection[Any], query: str, ids: Sequence[int]) -> list[dict[str, Any]]:
    async with database.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query.encode(), (list(ids),))
        return await cursor.fetchall()
