-- What ALTER ROLE … SET and ALTER DATABASE … SET say.
SELECT /* perfnb */
    CASE
        WHEN role.rolname IS NULL THEN db.datname
        WHEN db.datname IS NULL THEN role.rolname
        ELSE role.rolname || '@' || db.datname
    END AS name,
    kept.setconfig AS settings
FROM pg_db_role_setting AS kept
LEFT JOIN pg_roles AS role ON role.oid = kept.setrole
LEFT JOIN pg_database AS db ON db.oid = kept.setdatabase
WHERE role.rolname IS NOT NULL OR db.datname IS NOT NULL
