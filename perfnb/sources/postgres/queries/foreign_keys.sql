-- Foreign keys: which columns refer to which.
SELECT /* perfnb */
    owner.nspname || '.' || relation.relname || '.' || kept.conname AS name,
    owner.nspname || '.' || relation.relname AS table,
    aim.nspname || '.' || target.relname AS target,
    CASE kept.confdeltype
        WHEN 'a' THEN 'no action' WHEN 'r' THEN 'restrict' WHEN 'c' THEN 'cascade' WHEN 'n' THEN 'set null'
        WHEN 'd' THEN 'set default'
    END AS on_delete,
    ARRAY(
        SELECT attname::text FROM unnest(kept.conkey) WITH ORDINALITY AS key (number, place)
        JOIN pg_attribute ON attrelid = kept.conrelid AND attnum = key.number ORDER BY key.place
    ) AS columns,
    ARRAY(
        SELECT attname::text FROM unnest(kept.confkey) WITH ORDINALITY AS key (number, place)
        JOIN pg_attribute ON attrelid = kept.confrelid AND attnum = key.number ORDER BY key.place
    ) AS target_columns
FROM pg_constraint AS kept
JOIN pg_class AS relation ON relation.oid = kept.conrelid
JOIN pg_namespace AS owner ON owner.oid = relation.relnamespace
JOIN pg_class AS target ON target.oid = kept.confrelid
JOIN pg_namespace AS aim ON aim.oid = target.relnamespace
WHERE kept.contype = 'f' AND kept.conparentid = 0 AND kept.conrelid = ANY(%(oids)s::oid[])
