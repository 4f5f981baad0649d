-- Who looks at which server, and how much of it this role may see.
SELECT /* perfnb */
    current_setting('server_version_num')::int AS version_num,
    split_part(current_setting('server_version'), ' ', 1) AS version,
    current_database()::text AS database,
    current_user::text AS role,
    pg_backend_pid() AS pid,
    pg_is_in_recovery() AS is_in_recovery,
    current_setting('is_superuser') = 'on' AS is_superuser,
    pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all,
    current_setting('track_io_timing')::boolean AS times_io,
    current_setting('block_size')::int AS block_bytes,
    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS started_at_us,
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us
