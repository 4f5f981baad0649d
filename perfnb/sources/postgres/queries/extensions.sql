-- Installed extensions, and the newest version the server could have of each.
SELECT /* perfnb */ extension.extname::text AS name, extension.extversion AS version, offered.default_version AS available
FROM pg_extension AS extension
LEFT JOIN pg_available_extensions AS offered ON offered.name = extension.extname
