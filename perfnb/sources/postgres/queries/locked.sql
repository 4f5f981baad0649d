-- Tables whose size can't be asked for now without waiting behind a lock.
SELECT /* perfnb */ DISTINCT relation::bigint AS oid
FROM pg_locks
WHERE relation IS NOT NULL AND mode = 'AccessExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
