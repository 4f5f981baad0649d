-- Counters of each database, its sessions' times included.
SELECT /* perfnb */
    datname::text AS name,
    numbackends AS connections,
    xact_commit AS commits,
    xact_rollback AS rollbacks,
    blks_read AS blocks_read,
    blks_hit AS blocks_hit,
    tup_returned AS rows_returned,
    tup_fetched AS rows_fetched,
    temp_files,
    temp_bytes,
    deadlocks,
    blk_read_time AS block_read_time_ms,
    blk_write_time AS block_write_time_ms,
    sessions,
    session_time AS session_time_ms,
    active_time AS active_time_ms,
    idle_in_transaction_time AS idle_in_transaction_time_ms,
    sessions_abandoned,
    sessions_fatal,
    sessions_killed
FROM pg_stat_database
WHERE datname IS NOT NULL AND datname NOT LIKE 'template_'
