-- What each waiting session waits for and who holds it; asking for it holds the lock table for a moment.
SELECT /* perfnb */
    waiting.pid,
    pg_blocking_pids(waiting.pid) AS blocked_by,
    waiting.mode AS lock_mode,
    CASE
        WHEN relation.oid IS NOT NULL THEN schema.nspname || '.' || relation.relname
        WHEN waiting.locktype = 'transactionid' THEN 'transaction'
        ELSE waiting.locktype
    END AS lock_on
FROM pg_locks AS waiting
LEFT JOIN pg_class AS relation ON relation.oid = waiting.relation
    AND waiting.database = (SELECT oid FROM pg_database WHERE datname = current_database())
LEFT JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
WHERE NOT waiting.granted
