-- Vacuums, index builds, analyses and rewrites of this database that are under way.
WITH /* perfnb */ running AS (
    SELECT pid, datname, relid, NULL::oid AS index_oid, 'VACUUM' AS command, phase,
        heap_blks_scanned AS done, heap_blks_total AS total
    FROM pg_stat_progress_vacuum
    UNION ALL
    SELECT pid, datname, relid, nullif(index_relid, 0), command, phase,
        CASE WHEN blocks_total > 0 THEN blocks_done ELSE tuples_done END,
        CASE WHEN blocks_total > 0 THEN blocks_total ELSE tuples_total END
    FROM pg_stat_progress_create_index
    UNION ALL
    SELECT pid, datname, relid, NULL, 'ANALYZE', phase, sample_blks_scanned, sample_blks_total
    FROM pg_stat_progress_analyze
    UNION ALL
    SELECT pid, datname, relid, nullif(cluster_index_relid, 0), command, phase, heap_blks_scanned, heap_blks_total
    FROM pg_stat_progress_cluster
)
SELECT
    running.pid::text AS name,
    running.command,
    schema.nspname || '.' || relation.relname AS table,
    schema.nspname || '.' || index.relname AS index,
    running.phase,
    running.done,
    running.total
FROM running
LEFT JOIN pg_class AS relation ON relation.oid = running.relid
LEFT JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
LEFT JOIN pg_class AS index ON index.oid = running.index_oid
WHERE running.datname = current_database()
