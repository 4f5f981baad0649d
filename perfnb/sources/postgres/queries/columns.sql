-- Columns: type, width and distribution as the planner knows them; no value of a row is read.
SELECT /* perfnb */
    relation.oid::bigint AS table_oid,
    schema.nspname || '.' || relation.relname || '.' || named.attname AS name,
    format_type(named.atttypid, named.atttypmod) AS type,
    named.attnum AS position,
    named.attnotnull AS is_required,
    named.attlen AS fixed_bytes,
    named.attalign::text AS alignment,
    CASE WHEN named.attstattarget >= 0 THEN named.attstattarget END AS statistics_target,
    known.avg_width AS average_bytes,
    known.null_frac::float8 AS null_fraction,
    known.n_distinct::float8 AS distinct,
    known.correlation::float8 AS correlation,
    known.most_common_freqs[1]::float8 AS most_common_fraction
FROM pg_class AS relation
JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
JOIN pg_attribute AS named ON named.attrelid = relation.oid AND named.attnum > 0 AND NOT named.attisdropped
LEFT JOIN pg_stats AS known ON known.schemaname = schema.nspname AND known.tablename = relation.relname
    AND known.attname = named.attname AND known.inherited = (relation.relkind = 'p')
WHERE relation.oid = ANY(%(oids)s::oid[])
ORDER BY relation.oid, named.attnum
