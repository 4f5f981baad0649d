"""Faults of the database, its connections and its vector searches."""

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


def documents(rows: int) -> tuple[str, ...]:
    """Return what makes so many passages of those there are, without a vector index.

    Copies differ a little in their vectors and not in their text, so that a prompt may hold a text twice.
    """
    return (
        "DROP INDEX documents_embedding",
        "INSERT INTO documents (module, title, body, about, embedding)"
        " SELECT d.module, d.title || ' ' || n, d.body, d.about,"
        " (SELECT array_agg(v + (random() - 0.5) * 0.15) FROM unnest(d.embedding::real[]) v WHERE n > 0)::vector"
        f" FROM documents d, generate_series(1, 20) n LIMIT {rows}",
        "VACUUM ANALYZE documents",
    )


RARE_LANGUAGE = """UPDATE documents SET about = '{"language": "de"}' WHERE id % 100 <> 0"""

# Each reads all messages; none makes half of the reading.
REPORTS = (
    "SELECT role, avg(length(content)) FROM messages GROUP BY role",
    "SELECT date_trunc('hour', created_at), count(*) FROM messages GROUP BY 1",
    "SELECT count(DISTINCT left(content, 2)) FROM messages",
    "SELECT max(md5(content)) FROM messages",
)
# Twenty thousand passages in twenty lists, of which half are looked through for each search.
IVFFLAT = (
    *documents(20_000),
    "CREATE INDEX documents_embedding ON documents USING ivfflat (embedding vector_cosine_ops) WITH (lists = 20)",
    "ALTER DATABASE supportdesk SET ivfflat.probes = 10",
)
# A wiki that sends long documents again and again.
WIKI = {"ingest_share": 0, "sync_share": 0.12, "sync_documents": 10}

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
    Fault(
        "vector-index-missing",
        "database",
        "Thirty thousand passages have embeddings and no index on them.",
        database={"sql": documents(30_000)},
        consequences=("slow-statement", "redundant-prompt-text"),
    ),
    Fault(
        "wrong-vector-index",
        "database",
        "A vector index stands behind shared buffers of a third of its size.",
        database={"settings": {"shared_buffers": "1MB"}},
        consequences=("low-cache-hit-ratio",),
    ),
    Fault(
        "vector-search-parameters",
        "database",
        "An IVFFlat index of two hundred lists looks into one of them for each question.",
        database={
            "sql": (
                *documents(20_000),
                "CREATE INDEX documents_embedding ON documents USING ivfflat (embedding vector_cosine_ops) WITH (lists = 200)",
            )
        },
        consequences=("redundant-prompt-text",),
    ),
    Fault(
        "vector-build-parameters",
        "database",
        "The lists of an IVFFlat index were laid out when there were two thousand passages; there are twenty times as many.",
        database={
            "sql": (
                "DROP INDEX documents_embedding",
                "CREATE INDEX documents_first ON documents USING ivfflat (embedding vector_cosine_ops) WITH (lists = 2)",
                *documents(40_000)[1:],
            )
        },
        consequences=("vector-search-parameters", "slow-statement", "redundant-prompt-text"),
    ),
    Fault(
        "unindexed-filter",
        "database",
        "Passages of one language in a hundred are searched for by a member of a JSON document.",
        app={"search": "language"},
        database={"sql": (*documents(20_000), RARE_LANGUAGE, "VACUUM ANALYZE documents")},
        consequences=("slow-statement", "vector-index-missing", "redundant-prompt-text"),
    ),
    Fault(
        "missing-results",
        "database",
        "A hundred and twenty passages are asked for, of which the index hands over forty.",
        app={"candidates": 120},
    ),
    Fault(
        "single-inserts",
        "database",
        "The passages of a document are stored one by one, each in a transaction of its own.",
        app={"store": "one by one", "passage_characters": 300},
        workload=WIKI,
    ),
    Fault(
        "single-vector-searches",
        "database",
        "Each question is searched for in six wordings, one search after another.",
        app={"queries": 6, "answer_words": 20},
        database={"sql": IVFFLAT},
        consequences=("redundant-prompt-text",),
    ),
    Fault(
        "unbatched-embeddings",
        "database",
        "The passages of a document are embedded one by one.",
        app={"embed_at_once": 1, "passage_characters": 300},
        workload=WIKI,
    ),
    Fault(
        "chunk-size",
        "database",
        "Documents are cut into pieces of a hundred characters.",
        app={"passage_characters": 100},
        workload=WIKI,
        consequences=("slow-statement",),  # so many passages take long to store
    ),
)
