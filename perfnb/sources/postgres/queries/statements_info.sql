-- When statement counters began and how often the least-run statements were thrown out.
SELECT /* perfnb */
    dealloc AS evicted,
    (extract(epoch FROM stats_reset) * 1000000)::bigint AS reset_at_us
FROM {schema}.pg_stat_statements_info
