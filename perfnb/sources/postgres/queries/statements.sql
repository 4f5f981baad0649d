-- Counters of this database's statements; the file with their texts is not read.
SELECT /* perfnb */ statement.userid::bigint AS userid, role.rolname::text AS role, {columns}
FROM {schema}.pg_stat_statements(false) AS statement
LEFT JOIN pg_roles AS role ON role.oid = statement.userid
WHERE statement.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
