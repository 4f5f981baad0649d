-- Indexes: definition, what depends on them, size and use since the last reset; asking for one waits for its table's lock.
SELECT /* perfnb */
    index.oid::bigint AS oid,
    kept.indrelid::bigint AS table_oid,
    schema.nspname || '.' || index.relname AS name,
    owner.nspname || '.' || relation.relname AS table,
    method.amname::text AS method,
    pg_get_indexdef(index.oid) AS definition,
    pg_get_expr(kept.indpred, kept.indrelid, true) AS predicate,
    served.conname::text AS constraint,
    ARRAY(SELECT pg_get_indexdef(index.oid, n, true) FROM generate_series(1, kept.indnkeyatts) AS n ORDER BY n) AS keys,
    ARRAY(SELECT kept.indoption[n - 1] & 1 = 1 FROM generate_series(1, kept.indnkeyatts) AS n ORDER BY n)
        AS descending,
    ARRAY(
        SELECT pg_get_indexdef(index.oid, n, true)
        FROM generate_series(kept.indnkeyatts + 1, kept.indnatts) AS n ORDER BY n
    ) AS included,
    ARRAY(
        SELECT (SELECT opcname::text FROM pg_opclass WHERE oid = kept.indclass[n - 1])
        FROM generate_series(1, kept.indnkeyatts) AS n ORDER BY n
    ) AS opclasses,
    ARRAY(
        SELECT (
            SELECT collname::text FROM pg_collation
            WHERE oid = kept.indcollation[n - 1] AND oid <> coalesce((
                SELECT attcollation FROM pg_attribute
                WHERE attrelid = kept.indrelid AND attnum = kept.indkey[n - 1] AND attnum > 0
            ), 'pg_catalog."default"'::regcollation)
        )
        FROM generate_series(1, kept.indnkeyatts) AS n ORDER BY n
    ) AS collations,
    index.reloptions AS options,
    coalesce(leaning.names, '{}') AS references,
    kept.indisunique AS is_unique,
    kept.indisprimary AS is_primary,
    kept.indisvalid AS is_valid,
    kept.indisready AS is_ready,
    kept.indisreplident AS is_replica_identity,
    kept.indisclustered AS is_clustered,
    EXISTS (SELECT FROM pg_stat_progress_create_index AS build WHERE build.index_relid = index.oid) AS is_building,
    CASE
        WHEN %(sizes)s AND index.oid <> ALL(%(locked)s::oid[]) AND index.relkind = 'i' THEN pg_relation_size(index.oid)
    END AS bytes,
    index.reltuples::bigint AS rows_at_build,
    counted.idx_scan AS scans,
    counted.idx_tup_read AS rows_read,
    counted.idx_tup_fetch AS rows_fetched,
    blocks.idx_blks_read AS blocks_read,
    blocks.idx_blks_hit AS blocks_hit
FROM pg_index AS kept
JOIN pg_class AS index ON index.oid = kept.indexrelid
JOIN pg_namespace AS schema ON schema.oid = index.relnamespace
JOIN pg_class AS relation ON relation.oid = kept.indrelid
JOIN pg_namespace AS owner ON owner.oid = relation.relnamespace
JOIN pg_am AS method ON method.oid = index.relam
LEFT JOIN pg_constraint AS served ON served.conindid = index.oid AND served.conrelid = kept.indrelid
    AND served.contype IN ('p', 'u', 'x')
LEFT JOIN (
    SELECT lean.conindid, array_agg(theirs.nspname || '.' || their.relname || '.' || lean.conname) AS names
    FROM pg_constraint AS lean
    JOIN pg_class AS their ON their.oid = lean.conrelid
    JOIN pg_namespace AS theirs ON theirs.oid = their.relnamespace
    WHERE lean.contype = 'f'
    GROUP BY lean.conindid
) AS leaning ON leaning.conindid = index.oid
LEFT JOIN pg_stat_all_indexes AS counted ON counted.indexrelid = index.oid
LEFT JOIN pg_statio_all_indexes AS blocks ON blocks.indexrelid = index.oid
WHERE kept.indrelid = ANY(%(oids)s::oid[]) AND kept.indrelid <> ALL(%(locked)s::oid[])
