-- Texts of some statements; this reads the whole file of texts, so it is asked only for statements not seen before.
SELECT /* perfnb */ queryid::text AS queryid, max(query) AS query
FROM {schema}.pg_stat_statements(true)
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND queryid = ANY(%(queryids)s::bigint[])
GROUP BY queryid
