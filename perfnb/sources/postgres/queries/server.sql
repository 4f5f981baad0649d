-- Standbys that follow this server, and how far the slowest is behind.
SELECT /* perfnb */
    count(*) AS replicas,
    max(pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, replay_lsn
    ))::bigint AS replica_lag_bytes
FROM pg_stat_replication
