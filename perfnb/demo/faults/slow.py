"""Faults that make users wait."""

from perfnb.demo.faults.fault import Fault

_REPEATED = {"repeat_share": 0.85, "session_share": 0.1}

FAULTS = (
    Fault(
        "no-streaming",
        "slow",
        "Long answers are asked for in one piece.",
        app={"stream": False, "answer_words": 220},
    ),
    Fault(
        "sequential-calls",
        "slow",
        "An answer is put together from four calls that don't need each other, one after another.",
        app={"plan": "sections"},
        consequences=("too-many-llm-calls",),
    ),
    Fault(
        "large-context",
        "slow",
        "The whole documentation of three modules goes into the prompt.",
        app={"context": "documents", "candidates": 40, "top_k": 40},
    ),
    Fault(
        "too-many-documents",
        "slow",
        "Twenty-five passages are retrieved and all of them go into the prompt.",
        app={"candidates": 25, "top_k": 25, "max_context_tokens": 0},
        consequences=("large-context",),
    ),
    Fault(
        "long-history",
        "slow",
        "A session's history is never cut; returning customers bring sixty messages.",
        app={"history_messages": -1},
        workload={"session_share": 0.85},
        # sixty messages stand behind passages that change with each question, so that no cache can read them
        consequences=("large-context", "unstable-prompt-prefix"),
    ),
    Fault(
        "slow-model",
        "slow",
        "A large model that says eleven tokens a second answers simple questions.",
        app={"model": "sim-large"},
        consequences=("oversized-model",),
    ),
    Fault(
        "provider-slow",
        "slow",
        "The provider takes five times as long for every prompt from the middle of the run on.",
        provider={"slow_factor": 5},
        begins_at=0.5,
    ),
    Fault(
        "slow-network",
        "slow",
        "Two tenths of a second lie between app and provider in each direction, and more to connect.",
        network={"delay_ms": 200, "jitter_ms": 120, "connect_ms": 400},
        consequences=("slow-embedding",),  # a question's embedding comes the same long way
    ),
    Fault(
        "rate-limited",
        "slow",
        "The provider turns away two calls in five and asks to wait one to two seconds.",
        provider={"rate_limit_share": 0.4, "retry_after_s": (1, 2)},
    ),
    Fault(
        "slow-processing",
        "slow",
        "Each question is checked against a dictionary that is read from a slow share every time.",
        app={"normalise": "dictionary"},
    ),
    Fault(
        "dominant-stage",
        "slow",
        "Reranking asks a ranking service that takes longer than everything else together.",
        app={"rerank": "service"},
    ),
    Fault(
        "unbatched-requests",
        "slow",
        "A model judges the relevance of each of twelve passages in a call of its own.",
        app={"judge": True},
        consequences=("too-many-llm-calls",),
    ),
    Fault(
        "deep-reasoning",
        "slow",
        "A reasoning model thinks hard, then checks and revises its own draft before anything is sent.",
        app={"model": "sim-reasoning", "reasoning_effort": "high", "plan": "checked", "max_tokens": 1000},
        workload={"rate": 2.5},
        consequences=("no-streaming", "late-first-content", "too-many-llm-calls", "verbose-reasoning"),
    ),
    Fault(
        "timeout-too-long",
        "slow",
        "One call in eight is never answered, and the app would wait five minutes for it.",
        app={"timeout_s": 300.0},
        provider={"stall_share": 0.125},
        workload={"patience_s": 8},
    ),
    Fault(
        "timeout-too-short",
        "slow",
        "The app waits 0.8 s for a first token that takes longer in a third of the calls, and does not try again.",
        app={"timeout_s": 0.8, "max_retries": 0},
        provider={"late_share": 0.34, "late_ms": 1200},
        consequences=("no-retry",),
    ),
    Fault(
        "no-retry",
        "slow",
        "The provider answers one call in ten with 503 or a reset, and the app never tries again.",
        app={"max_retries": 0},
        provider={"error_share": 0.1},
    ),
    Fault(
        "retry-amplification",
        "slow",
        "The app tries four times around a client that tries three times itself.",
        app={"attempts": 4, "max_retries": 2},
        provider={"fail_share": 0.35, "fail_first": 7},
    ),
    Fault(
        "no-response-cache",
        "slow",
        "Most questions are repeats of a few, and no answer is kept.",
        app={"enable_caching": False},
        workload=_REPEATED,
    ),
    Fault(
        "cache-misses",
        "slow",
        "Most questions are repeats of a few; answers are kept under a key that is new for each request.",
        app={"cache_key": "request"},
        workload=_REPEATED,
        consequences=("no-response-cache",),
    ),
    Fault(
        "cold-start",
        "slow",
        "The first requests after the start wait until tables and connections are loaded.",
        app={"warm_up": False},
    ),
    Fault(
        "blocked-event-loop",
        "slow",
        "An async handler asks the provider's moderation with a blocking client.",
        app={"moderation": True},
    ),
    Fault(
        "python-hot-spot",
        "slow",
        "Each word of a question is compared with every known word in pure Python, in a worker thread.",
        app={"normalise": "pairwise"},
        consequences=("slow-processing", "blocked-event-loop", "cpu-saturation"),
    ),
    Fault(
        "varying-context",
        "slow",
        "The whole documentation of the best module goes into the prompt, be it long or short.",
        app={"context": "document"},
        consequences=("large-context", "unstable-prompt-prefix"),  # where the question stands before the document
    ),
    Fault(
        "slow-embedding",
        "slow",
        "A large embedding model embeds each question.",
        app={"embedding_model": "sim-embedding-large"},
        consequences=("costly-embedding-model",),
    ),
    Fault(
        "errors-as-success",
        "slow",
        "The provider refuses one prompt in eight, and the app tells its users so with status 200.",
        app={"errors": "body"},
        provider={"refuse_share": 0.125},
    ),
    Fault(
        "late-first-content",
        "slow",
        "Streams open at once with an empty chunk; the first word comes two seconds later.",
        app={"start_event": True},
        provider={"early_start": True, "late_share": 1, "late_ms": 2000},
    ),
    Fault(
        "client-per-request",
        "slow",
        "Each model call makes a new client with connections of its own.",
        app={"client": "per call"},
        consequences=("python-hot-spot",),  # making TLS contexts is what the processor then does most
    ),
)
