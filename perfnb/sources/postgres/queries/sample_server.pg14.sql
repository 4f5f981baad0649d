-- Connections, checkpoints and write-ahead log of the server.
SELECT /* perfnb */
    (SELECT sum(numbackends)::bigint FROM pg_stat_database) AS connections,
    current_setting('max_connections')::int AS connections_max,
    checkpoints_timed AS checkpoints_timed,
    checkpoints_req AS checkpoints_requested,
    (SELECT wal_bytes::bigint FROM pg_stat_wal) AS wal_bytes
FROM pg_stat_bgwriter
