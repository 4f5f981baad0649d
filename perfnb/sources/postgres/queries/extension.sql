-- Where pg_stat_statements is, in which version, with which columns, and whether the server loads it.
SELECT /* perfnb */
    extension.extversion AS version,
    schema.nspname AS schema,
    has_schema_privilege(schema.oid, 'USAGE') AS is_schema_open,
    ARRAY(
        SELECT attname::text FROM pg_attribute
        WHERE attrelid = view.oid AND attnum > 0 AND NOT attisdropped
    ) AS columns,
    EXISTS (
        SELECT FROM pg_class WHERE relnamespace = schema.oid AND relname = 'pg_stat_statements_info'
    ) AS has_info,
    EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements') AS is_available,
    (SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries') AS preloaded,
    (SELECT setting::bigint FROM pg_settings WHERE name = 'pg_stat_statements.max') AS most
FROM (SELECT) AS one
LEFT JOIN pg_extension AS extension ON extension.extname = 'pg_stat_statements'
LEFT JOIN pg_namespace AS schema ON schema.oid = extension.extnamespace
LEFT JOIN pg_class AS view ON view.relnamespace = schema.oid AND view.relname = 'pg_stat_statements'
