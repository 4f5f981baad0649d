"""Statements that mend what the checks find, written out for somebody to read and run. perfnb never runs them.

Names are quoted by psycopg. Values an engineer should look at (days, batches) stand in the text.

Source: E12 to E16, corrected: plain REINDEX blocks writes, VACUUM gives little back to the system, NOT IN is slow and wrong with
nulls, and deleting much at once holds locks and bloats; PostgreSQL manual, Routine Vacuuming, CREATE INDEX
"""

from collections.abc import Sequence

from psycopg import sql

BATCH = 10_000


def quoted(name: str) -> str:
    """Return ``schema.name`` of the catalog as an identifier."""
    schema, dot, plain = name.partition(".")
    return sql.Identifier(*((schema, plain) if dot else (name,))).as_string(None)


def column(name: str) -> str:
    """Return a column's name as an identifier."""
    return sql.Identifier(name).as_string(None)


def create_index(table: str, keys: Sequence[str], *, method: str = "", where: str = "") -> str:
    """Return a CREATE INDEX that lets writes go on; ``keys`` and ``where`` are SQL already."""
    using = f"USING {method} " if method else ""
    condition = f" WHERE {where}" if where else ""
    return f"CREATE INDEX CONCURRENTLY ON {quoted(table)} {using}({', '.join(keys)}){condition};"


def drop_index(index: str) -> str:
    """Return a DROP INDEX that waits for nobody's lock."""
    return f"DROP INDEX CONCURRENTLY {quoted(index)};"


def reindex(index: str) -> str:
    """Return a REINDEX that lets reads and writes go on; it needs room for a second copy."""
    return f"REINDEX INDEX CONCURRENTLY {quoted(index)};"


def vacuum(table: str, *, freeze: bool = False) -> str:
    """Return a VACUUM that makes room reusable and counts rows anew."""
    return f"VACUUM ({'FREEZE, ' if freeze else ''}ANALYZE) {quoted(table)};"


def enable_autovacuum(table: str, *, toast: bool = False) -> str:
    """Return what gives ``table`` back to autovacuum."""
    return f"ALTER TABLE {quoted(table)} RESET ({'toast.' if toast else ''}autovacuum_enabled);"


def vacuum_sooner(table: str, *, scale_factor: float = 0.02) -> str:
    """Return what lets autovacuum come by sooner than at a fifth of the rows, which is late for a large table."""
    return f"ALTER TABLE {quoted(table)} SET (autovacuum_vacuum_scale_factor = {scale_factor:g});"


def count_old(table: str, time: str, days: float) -> str:
    """Return a count of rows older than ``days``: to be looked at before anything is deleted."""
    return f"SELECT count(*) FROM {quoted(table)} WHERE {column(time)} < now() - interval '{days:g} days';"


def delete_old(table: str, time: str, days: float, *, batch: int = BATCH) -> str:
    """Return a DELETE of one batch of rows older than ``days``; to be run again until it deletes none."""
    return (
        f"DELETE FROM {quoted(table)} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {quoted(table)} "
        f"WHERE {column(time)} < now() - interval '{days:g} days' LIMIT {batch}));"
    )


def count_orphans(table: str, key: str, target: str, target_key: str) -> str:
    """Return a count of rows that refer to none of ``target``."""
    return f"SELECT count(*) FROM {quoted(table)} c WHERE {_is_orphan(key, target, target_key)};"


def delete_orphans(table: str, key: str, target: str, target_key: str, *, batch: int = BATCH) -> str:
    """Return a DELETE of one batch of rows that refer to none of ``target``; to be run again until it deletes none."""
    return (
        f"DELETE FROM {quoted(table)} WHERE ctid = ANY(ARRAY(SELECT c.ctid FROM {quoted(table)} c "
        f"WHERE {_is_orphan(key, target, target_key)} LIMIT {batch}));"
    )


def _is_orphan(key: str, target: str, target_key: str) -> str:
    return (
        f"c.{column(key)} IS NOT NULL AND NOT EXISTS "
        f"(SELECT 1 FROM {quoted(target)} p WHERE p.{column(target_key)} = c.{column(key)})"
    )
