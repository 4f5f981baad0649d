-- Which tables are read: all, or of very many the largest and the most used. Tables of extensions are not the app's.
WITH /* perfnb */ ranked AS (
    SELECT
        relation.oid,
        row_number() OVER (ORDER BY relation.relpages DESC, relation.oid) AS by_size,
        row_number() OVER (
            ORDER BY
                pg_stat_get_tuples_returned(relation.oid) + pg_stat_get_tuples_inserted(relation.oid)
                + pg_stat_get_tuples_updated(relation.oid) + pg_stat_get_tuples_deleted(relation.oid) DESC NULLS LAST,
                relation.oid
        ) AS by_use,
        count(*) OVER () AS tables
    FROM pg_class AS relation
    JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
    WHERE relation.relkind IN ('r', 'm', 'p')
        AND relation.relpersistence <> 't'
        AND schema.nspname NOT IN ('pg_catalog', 'information_schema')
        AND schema.nspname !~ '^pg_(toast|temp)'
        AND NOT EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = relation.oid AND deptype = 'e'
        )
)
SELECT oid::bigint AS oid, tables FROM ranked ORDER BY least(by_size, by_use), oid LIMIT %(most)s
