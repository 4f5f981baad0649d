"""Faults that cost dollars."""

from perfnb.demo.faults.fault import Fault

FAULTS = (
    Fault(
        "oversized-model",
        "costs",
        "A premium model at twelve times the price gives fifty-word answers to simple questions.",
        app={"model": "sim-premium"},
    ),
    Fault(
        "no-embedding-cache",
        "costs",
        "A wiki sends its four documents again and again, and all of them are embedded anew each time.",
        app={"cache_embeddings": False},
        workload={"sync_share": 0.45},
    ),
    Fault(
        "verbose-system-prompt",
        "costs",
        "Three thousand tokens of house rules stand in every prompt.",
        app={"handbook_characters": 14_000},
    ),
    Fault(
        "no-output-limit",
        "costs",
        "Answers are asked for in full detail, and no call sets a cap.",
        app={"answer_words": 0, "max_tokens": 0},
        workload={"rate": 1.5, "session_share": 0.15},
    ),
    Fault(
        "redundant-prompt-text",
        "costs",
        "Each question is searched for in three wordings, and a passage found three times is in the prompt three times.",
        app={"queries": 3, "top_k": 9},
    ),
    Fault(
        "no-usage-tracking",
        "costs",
        "Streams are not asked for their usage, so nobody knows what a call took.",
        app={"count_usage": False},
    ),
    Fault(
        "costly-embedding-model",
        "costs",
        "A wiki's documents are embedded by a model at six times the price.",
        app={"embedding_model": "sim-embedding-premium"},
        workload={"sync_share": 0.45, "sync_documents": 100},
    ),
    Fault(
        "heavy-tool-schemas",
        "costs",
        "The agent offers the company's forty tools with every call, of which no question needs one.",
        app={"toolbox": "company"},
        workload={"agent_share": 0.4},
    ),
    Fault(
        "unstable-prompt-prefix",
        "costs",
        "The time of day stands before fifteen hundred tokens that are the same in every prompt.",
        app={"clock": True, "handbook_characters": 6000},
    ),
    Fault(
        "bulk-at-full-price",
        "costs",
        "A job in the background summarises all documentation at the price of calls that somebody waits for.",
        app={"summaries": True},
    ),
)
