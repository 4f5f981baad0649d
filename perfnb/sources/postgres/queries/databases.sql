-- The server's databases: size, age of their oldest transactions, limits.
SELECT /* perfnb */
    db.datname::text AS name,
    CASE
        WHEN has_database_privilege(db.oid, 'CONNECT') OR pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
        THEN pg_database_size(db.oid)
    END AS bytes,
    age(db.datfrozenxid) AS transaction_age,
    mxid_age(db.datminmxid) AS multixact_age,
    db.datconnlimit AS connection_limit,
    (extract(epoch FROM counted.stats_reset) * 1000000)::bigint AS statistics_reset_at_us
FROM pg_database AS db
LEFT JOIN pg_stat_database AS counted ON counted.datid = db.oid
WHERE NOT db.datistemplate
