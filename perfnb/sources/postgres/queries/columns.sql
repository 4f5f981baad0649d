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
    known.most_common_freqs[1]::float8 AS most_common_fraction,
    CASE
        WHEN named.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
            AND known.attname IS NOT NULL
        THEN (
            SELECT json_object_agg(days, round((
                coalesce((
                    SELECT sum(part)
                    FROM unnest(known.most_common_vals::text::timestamptz[], known.most_common_freqs) AS usual (at, part)
                    WHERE at < now() - make_interval(days => days)
                ), 0)
                + (1 - known.null_frac - coalesce((SELECT sum(part) FROM unnest(known.most_common_freqs) AS part), 0))
                * coalesce((
                    SELECT greatest(0, count(*) FILTER (WHERE at < now() - make_interval(days => days)) - 1)::float8
                        / nullif(count(*) - 1, 0)
                    FROM unnest(known.histogram_bounds::text::timestamptz[]) AS at
                ), 0)
            )::numeric, 4))
            FROM unnest(ARRAY[7, 30, 60, 90, 180, 365, 730]) AS days
        )
    END AS older
FROM pg_class AS relation
JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
JOIN pg_attribute AS named ON named.attrelid = relation.oid AND named.attnum > 0 AND NOT named.attisdropped
LEFT JOIN pg_stats AS known ON known.schemaname = schema.nspname AND known.tablename = relation.relname
    AND known.attname = named.attname AND known.inherited = (relation.relkind = 'p')
WHERE relation.oid = ANY(%(oids)s::oid[])
ORDER BY relation.oid, named.attnum
