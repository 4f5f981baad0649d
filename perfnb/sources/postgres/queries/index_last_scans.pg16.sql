-- When each index was last used.
SELECT /* perfnb */
    indexrelid::bigint AS oid,
    (extract(epoch FROM last_idx_scan) * 1000000)::bigint AS last_scan_at_us
FROM pg_stat_all_indexes
WHERE relid = ANY(%(oids)s::oid[]) AND last_idx_scan IS NOT NULL
