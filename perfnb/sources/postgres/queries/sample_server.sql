-- Connections, checkpoints and write-ahead log of the server.
SELECT /* perfnb */
    (SELECT sum(numbackends)::bigint FROM pg_stat_database) AS connections,
    current_setting('max_connections')::int AS connections_max,
    checkpoints_timed AS checkpoints_timed,
    checkpoints_req AS checkpoints_requested,
    pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, '0/0'
    )::bigint AS wal_bytes
FROM pg_stat_bgwriter
