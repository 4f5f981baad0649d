"""Every kind of object in the table ``catalog``: its properties with type, unit and meaning.

Times are UTC nanoseconds since 1970; counters are since the server's last reset of statistics. A property that a
server's version does not have, or that the role may not see, is left out.
"""

from dataclasses import dataclass
from typing import Literal

Type = Literal["BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR", "JSON"]


@dataclass(frozen=True)
class Property:
    """One property of an object."""

    name: str
    type: Type
    meaning: str


@dataclass(frozen=True)
class Kind:
    """One kind of object: what its name looks like, what one is, and its properties."""

    kind: str
    named: str
    one: str
    properties: tuple[Property, ...]


def _properties(type_: Type, **meanings: str) -> tuple[Property, ...]:
    return tuple(Property(name, type_, meaning) for name, meaning in meanings.items())


SERVER = Kind(
    "server",
    "host:port",
    "the database server as this role sees it",
    (
        *_properties(
            "VARCHAR",
            version="as the server tells it: 18.4",
            database="the database that is looked at",
            role="who looks",
            statements_version="installed version of pg_stat_statements; missing where it is not there",
            statements_missing="why there are no statements: not created, not preloaded, not permitted",
            pooler="pgbouncer where the connection goes through it",
        ),
        *_properties(
            "BIGINT",
            version_num="180004",
            started_at="when the server started",
            statements_reset_at="when statement counters began (version 14 and newer)",
            statements_evicted="times that least-run statements were thrown out (version 14 and newer)",
            statements_max="most statements that are kept",
            replicas="standbys that follow this server",
            replica_lag_bytes="how far the slowest standby is behind",
        ),
        *_properties(
            "BOOLEAN",
            is_in_recovery="a standby",
            is_superuser="the role is a superuser",
            sees_all="the role sees what other roles do (pg_monitor, pg_read_all_stats)",
            times_io="track_io_timing is on",
        ),
    ),
)

DATABASE = Kind(
    "database",
    "database",
    "a database of the server",
    _properties(
        "BIGINT",
        bytes="size; missing where the role may not connect to it",
        transaction_age="transactions since its oldest unfrozen one",
        multixact_age="multixacts since its oldest",
        connection_limit="most connections; -1 is no limit",
        statistics_reset_at="when its counters began",
    ),
)

SETTING = Kind(
    "setting",
    "setting",
    "a setting of the server, as in a new session of this role",
    _properties(
        "VARCHAR",
        value="in effect, in its unit",
        unit="8kB, ms, …",
        default="value it has when nobody sets it",
        source="default, configuration file, database, user …",
        context="postmaster (needs a restart), sighup, user …",
    ),
)

ROLE_SETTING = Kind(
    "role_setting",
    "role or database or role@database",
    "what ALTER ROLE or ALTER DATABASE … SET says",
    _properties("JSON", settings="setting to value"),
)

EXTENSION = Kind(
    "extension", "extension", "an installed extension", _properties("VARCHAR", version="installed", available="newest the server has")
)  # fmt: skip

TABLE = Kind(
    "table",
    "schema.table",
    "a table, materialised view or partition",
    (
        *_properties("VARCHAR", relation="table, materialised view, partitioned table or partition", parent="its partitioned table", persistence="permanent, unlogged or temporary"),
        *_properties(
            "DOUBLE",
            rows_estimated="reltuples; -1 where never analysed",
            bloat_fraction="part of the heap that is neither row nor free below fillfactor, estimated from column statistics",
        ),
        *_properties(
            "BIGINT",
            pages="relpages",
            pages_all_visible="relallvisible",
            live_rows="n_live_tup",
            dead_rows="n_dead_tup",
            modified_since_analyze="n_mod_since_analyze",
            inserted_since_vacuum="n_ins_since_vacuum",
            bytes="with indexes and TOAST",
            heap_bytes="main fork alone",
            index_bytes="all indexes",
            toast_bytes="TOAST and its index",
            sequential_scans="seq_scan",
            sequential_rows="rows that sequential scans read",
            index_scans="idx_scan; missing where there is no index",
            index_rows="live rows that index scans fetched",
            inserted="n_tup_ins",
            updated="n_tup_upd",
            hot_updated="n_tup_hot_upd",
            deleted="n_tup_del",
            vacuums="by hand",
            autovacuums="by autovacuum",
            analyzes="by hand",
            autoanalyzes="by autovacuum",
            last_vacuum_at="by hand",
            last_autovacuum_at="by autovacuum",
            last_analyze_at="by hand",
            last_autoanalyze_at="by autovacuum",
            heap_blocks_read="from outside shared buffers",
            heap_blocks_hit="in shared buffers",
            index_blocks_read="of all its indexes",
            index_blocks_hit="of all its indexes",
            toast_blocks_read="of TOAST and its index",
            toast_blocks_hit="of TOAST and its index",
            transaction_age="transactions since its oldest unfrozen row",
            multixact_age="multixacts since its oldest",
        ),
        *_properties("JSON", options="storage parameters: autovacuum_enabled, fillfactor …"),
    ),
)  # fmt: skip

COLUMN = Kind(
    "column",
    "schema.table.column",
    "a column of a table; values are never read",
    (
        *_properties("VARCHAR", type="as format_type has it: vector(1536), bigint …"),
        *_properties("JSON", older="of a time column: days to the part of rows older than that (7, 30, 60, 90, 180, 365, 730), from the planner's statistics"),
        *_properties("BIGINT", position="attnum", average_bytes="avg_width", statistics_target="attstattarget, where set"),
        *_properties("BOOLEAN", is_required="NOT NULL"),
        *_properties(
            "DOUBLE",
            null_fraction="part that is null",
            distinct="n_distinct: negative is a fraction of the rows",
            correlation="of physical and logical order",
            most_common_fraction="part of the rows that hold the commonest value",
        ),
    ),
)  # fmt: skip

INDEX = Kind(
    "index",
    "schema.index",
    "an index",
    (
        *_properties(
            "VARCHAR",
            table="schema.table",
            method="btree, hnsw, ivfflat, gin …",
            definition="CREATE INDEX …",
            predicate="of a partial index",
            constraint="primary key, unique or exclusion constraint that it serves",
        ),
        *_properties(
            "JSON",
            keys="key columns or expressions, in order",
            descending="for each key whether it descends",
            included="columns of INCLUDE",
            opclasses="operator class of each key",
            collations="collation of each key where it is not the column's",
            options="m, ef_construction, lists, fillfactor …",
            references="foreign keys of other tables that lean on it",
        ),
        *_properties(
            "BOOLEAN",
            is_unique="unique",
            is_primary="primary key",
            is_valid="usable by queries",
            is_ready="kept up by inserts",
            is_replica_identity="logical replication identifies rows by it",
            is_clustered="CLUSTER orders by it",
            is_building="a CREATE INDEX or REINDEX on it is under way",
        ),
        *_properties(
            "BIGINT",
            bytes="size",
            rows_at_build="reltuples when last counted",
            scans="idx_scan",
            rows_read="entries that scans returned",
            rows_fetched="live rows that simple scans fetched",
            last_scan_at="version 16 and newer",
            blocks_read="from outside shared buffers",
            blocks_hit="in shared buffers",
        ),
    ),
)  # fmt: skip

FOREIGN_KEY = Kind(
    "foreign_key",
    "schema.table.constraint",
    "a foreign key",
    (
        *_properties("VARCHAR", table="schema.table that refers", target="schema.table referred to", on_delete="no action, cascade …"),
        *_properties("JSON", columns="that refer", target_columns="referred to"),
    ),
)  # fmt: skip

PROGRESS = Kind(
    "progress",
    "pid",
    "a vacuum, index build or analyse under way",
    (
        *_properties("VARCHAR", command="CREATE INDEX, VACUUM …", table="schema.table", index="schema.index", phase="as the server words it"),
        *_properties("BIGINT", done="blocks or rows done", total="of how many"),
    ),
)  # fmt: skip

POOL = Kind(
    "pool",
    "database/user or the pool's own name",
    "a pool of connections: PgBouncer's, or an app's as its metrics name it",
    (
        *_properties("VARCHAR", pooler="pgbouncer or the metric's name", mode="session, transaction or statement"),
        *_properties("BIGINT", size="most connections", waiting_limit="most that may wait", reserve="extra ones"),
    ),
)

COLLECTION = Kind(
    "collection",
    "collection, or collection/field where it has several vectors",
    "a collection of a vector store",
    (
        *_properties("VARCHAR", engine="qdrant, milvus, redis", version="of the engine", status="as the engine words it", optimizer="what its optimizer says: ok, or its error", distance="cosine, l2, dot", index="hnsw, ivf_flat, flat …; missing where there is none", quantization="scalar, product, binary; missing where none", mode="server, embedded or in memory"),
        *_properties("BIGINT", points="rows", indexed_points="rows the vector index holds", pending_points="rows that wait to be indexed or written, where told", dimensions="of a vector", segments="parts that are searched apart", full_scan_threshold_kb="below this a filtered part is scanned", indexing_threshold_kb="below this a part has no index; 0 is never", bytes="memory or disk, where told"),
        *_properties("BOOLEAN", is_loaded="searches can be answered"),
        *_properties("JSON", build="m, ef_construct, nlist …", search="default ef, nprobe … where they are told", fields="filter fields that are indexed, with type", payload="filter fields there are, with type, where told", slow_filters="fields without an index that the engine itself names as slowing searches down"),
    ),
)  # fmt: skip

STORE = Kind(
    "store",
    "host:port",
    "a vector store's or cache's server",
    (
        *_properties("VARCHAR", engine="qdrant, milvus, redis", version="of the engine", mode="server or embedded", eviction="what is thrown out when memory is full: noeviction, allkeys-lru …"),
        *_properties("BIGINT", memory_limit_bytes="most memory it may use; missing where there is no limit", keys="keys there are", keys_without_expiry="keys that never expire", keys_sampled="keys whose names were looked at"),
        *_properties("JSON", prefixes="of the sampled keys: how many begin with a word that several begin with; all others under *"),
    ),
)  # fmt: skip

KINDS: dict[str, Kind] = {
    kind.kind: kind
    for kind in (
        SERVER, DATABASE, SETTING, ROLE_SETTING, EXTENSION, TABLE, COLUMN, INDEX, FOREIGN_KEY, PROGRESS, POOL, COLLECTION,
        STORE,
    )
}  # fmt: skip


def as_markdown() -> str:
    """Return the kinds' part of the tables' documentation page."""
    parts = ["\n## Kinds of objects in catalog\n", __doc__ or ""]
    for kind in KINDS.values():
        parts.append(f"\n### {kind.kind}\n\nOne is {kind.one}; named `{kind.named}`.\n")
        parts.append("| property | type | meaning |\n|---|---|---|")
        parts += [f"| {each.name} | {each.type} | {each.meaning} |" for each in kind.properties]
    return "\n".join(parts) + "\n"
