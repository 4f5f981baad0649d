-- Every session of the server but perfnb's own, at one look.
SELECT /* perfnb */
    pid,
    backend_type AS backend,
    datname::text AS database,
    usename::text AS role,
    application_name AS application,
    CASE
        WHEN client_port = -1 OR client_addr <<= '127.0.0.0/8' OR client_addr = '::1' THEN 'local'
        WHEN client_addr IS NOT NULL THEN 'remote'
    END AS client,
    state,
    wait_event_type,
    wait_event,
    (extract(epoch FROM backend_start) * 1000000)::bigint AS session_start_us,
    (extract(epoch FROM xact_start) * 1000000)::bigint AS transaction_start_us,
    (extract(epoch FROM query_start) * 1000000)::bigint AS query_start_us,
    (extract(epoch FROM state_change) * 1000000)::bigint AS state_change_us,
    NULL::text AS queryid,
    left(query, 8192) AS query,
    age(backend_xmin) AS transaction_age
FROM pg_stat_activity
WHERE pid <> pg_backend_pid()
    AND coalesce(application_name, '') NOT LIKE 'perfnb%'
    AND CASE
        WHEN backend_type IS NULL THEN datname IS NOT NULL
        ELSE backend_type IN ('client backend', 'autovacuum worker', 'parallel worker', 'background worker', 'walsender',
            'logical replication worker', 'logical replication apply worker')
    END
