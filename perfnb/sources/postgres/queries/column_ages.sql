-- Which part of a table's rows is older than so many days, by the planner's statistics of its time columns.
WITH /* perfnb */ known AS (
    SELECT
        schema.nspname || '.' || relation.relname || '.' || named.attname AS name,
        statistics.null_frac,
        statistics.most_common_freqs AS shares,
        statistics.most_common_vals::text::timestamptz[] AS common,
        statistics.histogram_bounds::text::timestamptz[] AS bounds
    FROM pg_class AS relation
    JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
    JOIN pg_attribute AS named ON named.attrelid = relation.oid AND named.attnum > 0 AND NOT named.attisdropped
    JOIN pg_stats AS statistics ON statistics.schemaname = schema.nspname AND statistics.tablename = relation.relname
        AND statistics.attname = named.attname AND statistics.inherited = (relation.relkind = 'p')
    WHERE relation.oid = ANY(%(oids)s::oid[])
        AND named.atttypid IN ('timestamp'::regtype, 'timestamptz'::regtype, 'date'::regtype)
)
SELECT known.name, jsonb_object_agg(ages.days, round((
    coalesce((SELECT sum(share) FROM unnest(known.common, known.shares) AS each (value, share) WHERE value < since), 0)
    + greatest(0, 1 - known.null_frac - coalesce((SELECT sum(share) FROM unnest(known.shares) AS share), 0))
    * coalesce(
        greatest(0, (SELECT count(*) FROM unnest(known.bounds) AS bound WHERE bound < since) - 1)::float8
        / nullif(cardinality(known.bounds) - 1, 0), 0
    ))::numeric, 4)) AS older
FROM known
CROSS JOIN LATERAL (
    SELECT days, now() - days * interval '1 day' AS since FROM unnest(ARRAY[7, 30, 60, 90, 180, 365, 730]) AS days
) AS ages
GROUP BY known.name
