"""Faults of the database and of the app's connections to it."""

from perfnb.demo.faults.fault import Fault

VISITORS = (
    "INSERT INTO sessions (id, created_at, last_active_at) SELECT 'visitor-' || n, now() - interval '1 hour' * n,"
    " now() - interval '1 hour' * n FROM generate_series(1, 1000) n"
)


def past(messages: int) -> tuple[str, ...]:
    """Return what gives the desk a thousand visitors of the last weeks, who left so many messages together."""
    return (
        VISITORS,
        "INSERT INTO messages (session_id, role, content, created_at) SELECT 'visitor-' || (n % 1000 + 1),"
        " CASE n % 2 WHEN 0 THEN 'user' ELSE 'assistant' END, repeat(md5(n::text) || ' ', 6),"
        f" now() - interval '1 second' * ({messages} - n) FROM generate_series(1, {messages}) n",
        "VACUUM ANALYZE messages",
    )


# Each reads all messages; none makes half of the reading.
REPORTS = (
    "SELECT role, avg(length(content)) FROM messages GROUP BY role",
    "SELECT date_trunc('hour', created_at), count(*) FROM messages GROUP BY 1",
    "SELECT count(DISTINCT left(content, 2)) FROM messages",
    "SELECT max(md5(content)) FROM messages",
)
# What is read besides may well be what a request waits for most: the stage it stands in is then named with reason.
FAULTS = (
    Fault(
        "no-connection-pool",
        "database",
        "A connection is made for each statement and closed after it.",
        app={"pool": "none"},
    ),
    Fault(
        "pool-exhausted",
        "database",
        "All requests share one connection, and each needs it for a fifth of a second.",
        app={"pool_size": 1, "pool_least": 1, "records": "words"},
        workload={"rate": 5},
        database={"sql": past(200_000)},
        consequences=("slow-statement", "missing-index"),
    ),
    Fault(
        "pool-too-large",
        "database",
        "The app opens fifty-four of the sixty connections that the server has, and uses two.",
        app={"pool_size": 54, "pool_least": 54},
    ),
    Fault(
        "stale-connections",
        "database",
        "Something between app and database cuts idle connections, and the app finds out by using them.",
        database={
            "jobs": [
                {
                    "name": "firewall",
                    "sql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle'"
                    " AND backend_type = 'client backend' AND application_name NOT IN ('perfnb', 'firewall')",
                    "every_s": 2.5,
                }
            ]
        },
    ),
    Fault(
        "missing-index",
        "database",
        "Nothing leads from a session to its messages but reading all of them.",
        database={"sql": (*past(300_000), "DROP INDEX messages_session")},
        consequences=("slow-statement",),
    ),
    Fault(
        "unused-index",
        "database",
        "Six indexes on messages are kept up with every turn, and no statement uses them.",
        database={
            "sql": (
                *past(200_000),
                "CREATE INDEX messages_role ON messages (role)",
                "CREATE INDEX messages_created ON messages (created_at)",
                "CREATE INDEX messages_length ON messages (length(content))",
                "CREATE INDEX messages_content ON messages (md5(content))",
                "CREATE INDEX messages_role_created ON messages (role, created_at)",
                "CREATE INDEX messages_day ON messages (date_trunc('day', created_at AT TIME ZONE 'UTC'))",
            ),
            "jobs": [
                {
                    "name": "importer",
                    "sql": "INSERT INTO messages (session_id, role, content) SELECT 'visitor-' || (n % 1000 + 1),"
                    " 'user', repeat(md5(n::text) || ' ', 6) FROM generate_series(1, 400) n",
                    "every_s": 1,
                }
            ],
        },
        consequences=("slow-statement",),  # each insert keeps six indexes up
    ),
    Fault(
        "duplicate-index",
        "database",
        "Two further indexes on messages lead where the first one leads.",
        database={
            "sql": (
                *past(200_000),
                "CREATE INDEX messages_by_session ON messages (session_id, id)",
                "CREATE INDEX messages_of ON messages (session_id)",
            )
        },
    ),
    Fault(
        "slow-statement",
        "database",
        "Each question is looked for in the text of all messages ever written.",
        app={"records": "words"},
        database={"sql": past(300_000)},
        consequences=("missing-index", "dominant-stage", "pool-exhausted"),
    ),
    Fault(
        "frequent-statement",
        "database",
        "Sixty places in the code look at the table of flags for each question.",
        app={"records": "flags"},
        consequences=("dominant-stage",),
    ),
    Fault(
        "unstable-statement",
        "database",
        "Counting a customer's messages takes no time, but for one who wrote a million times as much.",
        app={"records": "volume"},
        workload={"session_share": 0.8},
        database={
            "sql": (
                "INSERT INTO messages (session_id, role, content) SELECT 'customer-1', 'user',"
                " repeat(md5(n::text) || ' ', 6) FROM generate_series(1, 400000) n",
                "VACUUM ANALYZE messages",
            )
        },
        consequences=("slow-statement", "dominant-stage"),
    ),
    Fault(
        "n-plus-one",
        "database",
        "Of each of a customer's last forty messages the rating is read by itself.",
        app={"records": "ratings"},
        database={"sql": ("INSERT INTO ratings SELECT id, 1 + id % 5 FROM messages", "ANALYZE ratings")},
        consequences=("dominant-stage",),
    ),
    Fault(
        "per-id-queries",
        "database",
        "Each of thirty passages that were found is read again, one by one, by its number.",
        app={"records": "passages", "candidates": 30},
        consequences=("dominant-stage",),
    ),
    Fault(
        "over-fetching",
        "database",
        "All that a customer ever wrote is read with all its columns, and thrown away but for a line.",
        app={"records": "messages"},
        database={
            "sql": (
                "INSERT INTO messages (session_id, role, content) SELECT 'customer-' || (n % 8 + 1), 'user',"
                " repeat(md5(n::text) || ' ', 6) FROM generate_series(1, 80000) n",
                "VACUUM ANALYZE messages",
            )
        },
        consequences=("slow-statement", "dominant-stage"),
    ),
    Fault(
        "stale-statistics",
        "database",
        "The planner knows an archive of ten rows, which has grown to two hundred thousand since.",
        app={"records": "statistics"},
        database={
            "sql": (
                *past(100_000),
                "INSERT INTO ratings SELECT id, 1 + id % 5 FROM messages",
                "CREATE TABLE archive (message_id bigint NOT NULL, topic text NOT NULL) WITH (autovacuum_enabled = false)",
                "CREATE INDEX archive_topic ON archive (topic)",
                "INSERT INTO archive SELECT id, 'other' FROM messages ORDER BY id LIMIT 10",
                "VACUUM ANALYZE",
                "INSERT INTO archive SELECT id, CASE id % 3 WHEN 0 THEN 'other' ELSE 'install' END FROM messages",
                "INSERT INTO archive SELECT id, CASE id % 3 WHEN 1 THEN 'other' ELSE 'install' END FROM messages",
            ),
        },
        consequences=("slow-statement", "dominant-stage", "autovacuum-disabled"),
    ),
    Fault(
        "low-cache-hit-ratio",
        "database",
        "Two megabytes of shared buffers stand before messages that lie scattered over ninety.",
        app={"records": "volume"},
        workload={"session_share": 0.8},
        database={
            "settings": {"shared_buffers": "2MB"},
            "sql": (
                VISITORS,
                "INSERT INTO messages (session_id, role, content) SELECT CASE WHEN n % 80 < 8 THEN 'customer-' || (n % 80"
                " + 1) ELSE 'visitor-' || (n % 1000 + 1) END, 'user', repeat(md5(n::text) || ' ', 6)"
                " FROM generate_series(1, 300000) n",
                "VACUUM ANALYZE messages",
            ),
        },
        consequences=(
            "slow-statement",
            "dominant-stage",
            "wrong-vector-index",
        ),  # indexes are larger than the buffers too
    ),
    Fault(
        "table-bloat",
        "database",
        "All messages were rewritten three times, and no vacuum came by.",
        database={
            "settings": {"autovacuum_naptime": "1h"},
            "sql": (
                *past(100_000),
                "UPDATE messages SET content = content || '.'",
                "UPDATE messages SET content = content || '.'",
                "UPDATE messages SET content = content || '.'",
            ),
        },
    ),
    Fault(
        "autovacuum-disabled",
        "database",
        "Autovacuum was turned off for the messages before an import, and never on again.",
        database={
            "sql": (
                "ALTER TABLE messages SET (autovacuum_enabled = false)",
                *past(50_000)[:2],
                "UPDATE messages SET content = content || '.' WHERE id % 2 = 0",
            )
        },
        consequences=("table-bloat", "stale-statistics"),
    ),
    Fault(
        "stale-rows",
        "database",
        "Nearly all sessions and messages are of customers that nobody heard of for half a year.",
        database={
            "sql": (
                *past(300_000)[:2],
                "UPDATE sessions SET last_active_at = now() - interval '200 days', created_at = now() - interval"
                " '220 days' WHERE id LIKE 'visitor-%'",
                "UPDATE messages SET created_at = created_at - interval '200 days' WHERE session_id LIKE 'visitor-%'",
                "VACUUM FULL messages",
                "VACUUM ANALYZE",
            )
        },
    ),
    Fault(
        "lock-waits",
        "database",
        "A migration locks the messages for more than a second, every three seconds.",
        database={
            "jobs": [
                {
                    "name": "migration",
                    "sql": "LOCK TABLE messages IN ACCESS EXCLUSIVE MODE",
                    "every_s": 3,
                    "hold_s": 1.2,
                }
            ]
        },
        consequences=("unstable-statement",),
    ),
    Fault(
        "read-load-on-primary",
        "database",
        "Four reports are made again and again on the server that the app writes to.",
        database={
            "sql": past(200_000),
            "jobs": [
                {"name": f"report {number}", "sql": report, "every_s": 0} for number, report in enumerate(REPORTS)
            ],
        },
        consequences=("slow-statement", "missing-index", "sort-spill"),
    ),
    Fault(
        "uncached-session-reads",
        "database",
        "The customer's session, with half a megabyte of preferences, is read three times for each question.",
        app={"records": "session"},
        database={
            "sql": (
                "UPDATE sessions SET preferences = (SELECT string_agg(md5(n || id), '') FROM generate_series(1, 16000) n)",
                "VACUUM ANALYZE sessions",
            )
        },
        consequences=("dominant-stage",),
    ),
    Fault(
        "connection-held-during-model-call",
        "database",
        "A transaction that read the session stays open until the answer is complete.",
        app={"transaction": "whole answer", "pool_size": 40},
    ),
    Fault(
        "sort-spill",
        "database",
        "All messages are sorted for one line of a ranking, with four megabytes of memory.",
        app={"records": "ranking"},
        database={"sql": past(100_000)},
        consequences=("slow-statement", "missing-index", "dominant-stage"),
    ),
)
