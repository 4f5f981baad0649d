-- Settings as a new session of this role would have them; those that may hold a password or a command are left out.
SELECT /* perfnb */
    name,
    reset_val AS value,
    unit,
    boot_val AS default,
    CASE WHEN setting IS NOT DISTINCT FROM reset_val THEN source END AS source,
    context
FROM pg_settings
WHERE name !~ '(conninfo|_command|passphrase|password_file|krb_server)' AND name <> 'application_name'
    AND name NOT LIKE 'transaction\_%'
