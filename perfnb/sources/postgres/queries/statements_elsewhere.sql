-- How many statements the server counts for its other databases.
SELECT /* perfnb */ count(*) AS statements, count(DISTINCT dbid) AS databases
FROM {schema}.pg_stat_statements(false)
WHERE dbid <> (SELECT oid FROM pg_database WHERE datname = current_database())
