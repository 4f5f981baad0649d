-- Tables: size, rows, what was done to them since the last reset, and how old their rows are.
SELECT /* perfnb */
    relation.oid::bigint AS oid,
    schema.nspname || '.' || relation.relname AS name,
    CASE
        WHEN relation.relispartition THEN 'partition'
        WHEN relation.relkind = 'm' THEN 'materialised view'
        WHEN relation.relkind = 'p' THEN 'partitioned table'
        ELSE 'table'
    END AS relation,
    (
        SELECT above.nspname || '.' || parent.relname
        FROM pg_inherits
        JOIN pg_class AS parent ON parent.oid = pg_inherits.inhparent
        JOIN pg_namespace AS above ON above.oid = parent.relnamespace
        WHERE pg_inherits.inhrelid = relation.oid AND relation.relispartition
    ) AS parent,
    CASE relation.relpersistence WHEN 'u' THEN 'unlogged' ELSE 'permanent' END AS persistence,
    CASE WHEN relation.reltuples = 0 AND relation.relpages = 0 THEN -1 ELSE relation.reltuples END::float8
        AS rows_estimated,
    relation.relpages AS pages,
    relation.relallvisible AS pages_all_visible,
    relation.reloptions AS options,
    counted.n_live_tup AS live_rows,
    counted.n_dead_tup AS dead_rows,
    counted.n_mod_since_analyze AS modified_since_analyze,
    counted.n_ins_since_vacuum AS inserted_since_vacuum,
    CASE WHEN sized.is_free THEN pg_total_relation_size(relation.oid) END AS bytes,
    CASE WHEN sized.is_free THEN pg_relation_size(relation.oid) END AS heap_bytes,
    CASE WHEN sized.is_free THEN pg_indexes_size(relation.oid) END AS index_bytes,
    CASE WHEN sized.is_free AND toast.oid IS NOT NULL THEN pg_total_relation_size(toast.oid) END AS toast_bytes,
    counted.seq_scan AS sequential_scans,
    counted.seq_tup_read AS sequential_rows,
    counted.idx_scan AS index_scans,
    counted.idx_tup_fetch AS index_rows,
    counted.n_tup_ins AS inserted,
    counted.n_tup_upd AS updated,
    counted.n_tup_hot_upd AS hot_updated,
    counted.n_tup_del AS deleted,
    counted.vacuum_count AS vacuums,
    counted.autovacuum_count AS autovacuums,
    counted.analyze_count AS analyzes,
    counted.autoanalyze_count AS autoanalyzes,
    (extract(epoch FROM counted.last_vacuum) * 1000000)::bigint AS last_vacuum_at_us,
    (extract(epoch FROM counted.last_autovacuum) * 1000000)::bigint AS last_autovacuum_at_us,
    (extract(epoch FROM counted.last_analyze) * 1000000)::bigint AS last_analyze_at_us,
    (extract(epoch FROM counted.last_autoanalyze) * 1000000)::bigint AS last_autoanalyze_at_us,
    blocks.heap_blks_read AS heap_blocks_read,
    blocks.heap_blks_hit AS heap_blocks_hit,
    blocks.idx_blks_read AS index_blocks_read,
    blocks.idx_blks_hit AS index_blocks_hit,
    (blocks.toast_blks_read + coalesce(blocks.tidx_blks_read, 0))::bigint AS toast_blocks_read,
    (blocks.toast_blks_hit + coalesce(blocks.tidx_blks_hit, 0))::bigint AS toast_blocks_hit,
    CASE WHEN relation.relkind <> 'p' THEN greatest(age(relation.relfrozenxid), age(toast.relfrozenxid)) END
        AS transaction_age,
    CASE WHEN relation.relkind <> 'p' THEN greatest(mxid_age(relation.relminmxid), mxid_age(toast.relminmxid)) END
        AS multixact_age
FROM pg_class AS relation
JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
CROSS JOIN LATERAL (
    SELECT %(sizes)s AND relation.oid <> ALL(%(locked)s::oid[]) AND relation.relkind <> 'p' AS is_free
) AS sized
LEFT JOIN pg_class AS toast ON toast.oid = relation.reltoastrelid AND relation.reltoastrelid <> 0
LEFT JOIN pg_stat_all_tables AS counted ON counted.relid = relation.oid
LEFT JOIN pg_statio_all_tables AS blocks ON blocks.relid = relation.oid
WHERE relation.oid = ANY(%(oids)s::oid[])
