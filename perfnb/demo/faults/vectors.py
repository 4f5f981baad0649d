"""Faults of vector searches, and of how documents are cut up, embedded and stored."""

from perfnb.demo.faults.fault import Fault


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

# Twenty thousand passages in twenty lists, of which half are looked through for each search.
IVFFLAT = (
    *documents(20_000),
    "CREATE INDEX documents_embedding ON documents USING ivfflat (embedding vector_cosine_ops) WITH (lists = 20)",
    "ALTER DATABASE supportdesk SET ivfflat.probes = 10",
)
# A wiki that sends long documents again and again.
WIKI = {"ingest_share": 0, "sync_share": 0.12, "sync_documents": 10}

FAULTS = (
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
