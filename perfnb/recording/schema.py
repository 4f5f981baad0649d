"""Every table of a recording: each column with its type, unit, meaning and origin.

Types are those DuckDB and Spark share: BIGINT, DOUBLE, BOOLEAN and VARCHAR; JSON is kept as text. Points in time are
BIGINT, UTC nanoseconds since 1970, from one clock per host. Durations come from a monotonic clock.
"""

from dataclasses import dataclass
from typing import Literal

from perfnb.recording import kinds

SCHEMA_VERSION = 1

Type = Literal["BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR", "JSON"]


@dataclass(frozen=True)
class Column:
    """One column of a table; ``unit`` is empty for names, flags and texts."""

    name: str
    type: Type
    meaning: str
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """One table: what a row is, which sources write it, and its columns. ``time`` names the column every row has."""

    name: str
    row: str
    written_by: str
    time: str
    columns: tuple[Column, ...]

    @property
    def types(self) -> dict[str, str]:
        """Return column name to DuckDB type, in order."""
        return {column.name: column.type for column in self.columns}


def _text(name: str, meaning: str) -> Column:
    return Column(name, "VARCHAR", meaning)


def _flag(name: str, meaning: str) -> Column:
    return Column(name, "BOOLEAN", meaning)


def _json(name: str, meaning: str) -> Column:
    return Column(name, "JSON", meaning)


def _count(name: str, meaning: str) -> Column:
    unit = next((unit for unit in ("tokens", "bytes") if name.endswith(unit)), "count")
    return Column(name, "BIGINT", meaning, unit)


def _time(name: str, meaning: str) -> Column:
    return Column(name, "BIGINT", meaning, "ns since 1970, UTC")


def _ms(name: str, meaning: str) -> Column:
    return Column(name, "DOUBLE", meaning, "ms")


def _number(name: str, meaning: str, unit: str = "") -> Column:
    return Column(name, "DOUBLE", meaning, unit)


SPANS = Table(
    "spans",
    "an OpenTelemetry span, or one timed step read from a log",
    "otlp, logs",
    "start_time",
    (
        _text("trace_id", "32 hex digits; the same for every span of one request"),
        _text("span_id", "16 hex digits"),
        _text("parent_span_id", "the span that caused this one; null at a root"),
        _text("name", "span name; texts of people in it are digests unless --content full"),
        _text("kind", "INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER"),
        _text("service", "resource attribute service.name"),
        _text("operation", "what is done: chat, embeddings, retrieval, tool, agent, database, http, step"),
        _time("start_time", "when the span started"),
        _ms("duration_ms", "end minus start"),
        _text("status", "OK, ERROR or UNSET"),
        _text("error_type", "error.type, or the type of the recorded exception"),
        _text(
            "statement", "db.query.text, for database spans; SQL without literals but a LIMIT's, unless texts are kept"
        ),
        _count("http_status_code", "HTTP status, for HTTP spans"),
        _count("documents", "documents a retrieval returned, where the span tells"),
        _flag("cache_hit", "whether a cache answered, where the span tells"),
        _text("source", "otlp or logs"),
        _json(
            "attributes",
            "all other attributes; texts of people are digests, addresses and statements lose their values unless --content full",
        ),
        _json("events", "span events: name, time, attributes"),
        _json("resource", "resource attributes"),
    ),
)

LLM_CALLS = Table(
    "llm_calls",
    "one attempt at a model call",
    "llm_proxy, otlp",
    "start_time",
    (
        _text("call_id", "unique within the recording"),
        _text("trace_id", "trace the call belongs to; null where no traceparent was sent"),
        _text("span_id", "the call's own span; null for a call only the proxy saw"),
        _text("parent_span_id", "the span that made the call"),
        _text("source", "proxy or span"),
        _text("arm", "trial arm the call was given to, as trial/A; null outside trials"),
        _text("answered_by", "cache where the proxy answered from a cache of its own; null where the provider did"),
        _text("provider", "openai, anthropic, … or the upstream's host name"),
        _text("path", "request path at the provider, e.g. /v1/chat/completions"),
        _text("operation", "chat, text_completion, responses, embeddings, models, moderation or other"),
        _text("request_model", "model asked for"),
        _text("response_model", "model that answered"),
        _flag("stream", "whether the caller asked for a stream"),
        _time("start_time", "when the request reached the proxy, or the span started"),
        _ms("duration_ms", "to the last byte of the answer"),
        _ms("time_to_first_byte_ms", "to the first byte of the answer's body"),
        _ms(
            "time_to_first_token_ms", "to the first event that carries content, reasoning or a tool call; null if none"
        ),
        _ms("last_token_ms", "to the last event that carries content"),
        _number("output_tokens_per_s", "output tokens after the first, per second of generation", "tokens/s"),
        _ms("connect_ms", "time the proxy took to open a new upstream connection; null when one was reused"),
        _ms("processing_ms", "the provider's own time, from openai-processing-ms or a like header"),
        _count("status_code", "HTTP status; null when no answer came"),
        _text(
            "error_type",
            "timeout, disconnected, connection, unfinished (still open when recording stopped), superseded (the proxy asked twice and the other attempt was quicker), rate_limit, server_error, client_error, or the provider's code",
        ),
        _flag("client_disconnected", "whether the caller went away before the end"),
        _count("retry_count", "x-stainless-retry-count: 0 for the client's first attempt"),
        _ms("retry_after_ms", "how long the provider asked to wait"),
        _ms("timeout_ms", "read timeout the client announces (x-stainless-read-timeout or -timeout)"),
        _count("connection_id", "number of the caller's connection to the proxy"),
        _count("connection_requests", "how many requests that connection had carried, this one included"),
        _text("user_agent", "the caller's User-Agent"),
        _text("request_digest", "keyed hash of the request body without stream flags and volatile fields"),
        _text("prompt_digest", "keyed hash of messages and tools alone"),
        _text("response_digest", "keyed hash of the answer's text and tool calls"),
        _json("response_sketch", "shingle sketch of the answer's text: a sorted list of integers"),
        _count("input_tokens", "all input tokens, cached ones included"),
        _count("cache_read_tokens", "input tokens read from the provider's cache"),
        _count("cache_write_tokens", "input tokens written to the provider's cache"),
        _count("output_tokens", "all output tokens, reasoning included"),
        _count("reasoning_tokens", "output tokens spent on hidden reasoning"),
        _text("usage_rule", "how input tokens were read: inclusive, exclusive (cache was added) or estimated"),
        _flag("tokens_estimated", "true where the provider gave no usage and tokens were computed"),
        _count("max_tokens", "output cap the caller set"),
        _number("temperature", "sampling temperature the caller set"),
        _text("service_tier", "default, flex, priority, batch …"),
        _text("finish_reason", "stop, length, tool_calls …"),
        _count("tools_offered", "tools in the request"),
        _count("tool_schema_tokens", "tokens of the tools' schemas"),
        _json("tool_calls", "tools the answer calls: [{name, arguments_digest, id_digest}]"),
        _count("system_tokens", "tokens of system and developer messages"),
        _count("history_messages", "user and assistant messages before the last user message"),
        _count("history_tokens", "tokens of all messages before it but the system's: tools' answers count as well"),
        _count("inputs", "texts in one embeddings request"),
        _count(
            "passages",
            "retrieved passages recognised in the prompt (numbered, tagged or separated blocks, JSON, tools' answers); those of earlier turns are history",
        ),
        _count("passage_tokens", "tokens of those passages"),
        _json(
            "messages",
            "per message: role, digest, tokens, sketch, passages, tokens_of_passages (each one's, unscaled), repeated_tokens (said before in it), of the first one its opening and longer openings, of the last question its edges (both ends, and what is announced as a question in between); with --content full also the text",
        ),
        _text("response_text", "the answer; null unless --content full"),
        _text("conversation_id", "conversation or session id as sent, hashed"),
        _count("request_bytes", "size of the request body"),
        _count("response_bytes", "size of the answer's body"),
        _json("attributes", "usage object as received and other details"),
    ),
)

HTTP_REQUESTS = Table(
    "http_requests",
    "one request to the target",
    "front, probe, load, otlp (server spans)",
    "start_time",
    (
        _text("request_id", "unique within the recording"),
        _text("trace_id", "from traceparent, or the server span's"),
        _text("span_id", "the server span"),
        _text("source", "front, probe, span or load"),
        _text("method", "HTTP method"),
        _text("route", "URL template, or the path with ids replaced"),
        _count("status_code", "HTTP status; null when no answer came"),
        _text("error_type", "timeout, disconnected, connection, or what the body says of an error"),
        _flag("error_in_body", "the status is a success but the body reports an error"),
        _time("start_time", "when the request arrived"),
        _ms("duration_ms", "to the last byte"),
        _ms("time_to_first_byte_ms", "to the first byte of the answer's body"),
        _ms("time_to_first_content_ms", "to the first byte a reader can use: past empty events and role-only chunks"),
        _flag("stream", "the answer came in several pieces or as an event stream"),
        _count("chunks", "pieces of the body that arrived apart"),
        _text("cache_status", "hit or miss, from X-Cache, Cache-Status or the like"),
        _count("connection_id", "number of the caller's connection"),
        _count("connection_requests", "how many requests that connection had carried, this one included"),
        _flag("client_disconnected", "whether the caller went away before the end"),
        _text("body_digest", "keyed hash of the request body"),
        _json("body_sketch", "shingle sketch of the request's text"),
        _count("request_bytes", "size of the request body"),
        _count("response_bytes", "size of the answer's body"),
        _count("users", "load: concurrent users"),
        _text(
            "phase",
            "measure, warm-up, lag (a light request sent beside another to see whether the app still answers) or control (one that a trial's change can't affect)",
        ),
        _text("arm", "trial and arm a load run sent it for: 4711abcd/A; null outside trials"),
        _count("block", "number of the block within its trial"),
    ),
)

SAMPLES = Table(
    "samples",
    "one value of one metric",
    "process, postgres, pgbouncer, prometheus, otlp, proxy",
    "time",
    (
        _time("time", "when it was read"),
        _text("source", "process, prometheus, otlp …"),
        _text("entity", "what it is about: pid 4711 (uvicorn), container api …"),
        _text("metric", "name, e.g. cpu_percent"),
        _number("value", "the value"),
        _text("unit", "percent, bytes, count, ms …"),
        _json("attributes", "labels"),
    ),
)

STATEMENTS = Table(
    "statements",
    "one pg_stat_statements row at one snapshot: all of them in the first and the last, else those that ran since the one "
    "before; and one without queryid a snapshot, the sum of those the role may not see",
    "postgres",
    "time",
    (
        _time("time", "when the snapshot was taken"),
        _text("server", "host:port"),
        _text("database", "database name"),
        _text("role", "who ran it"),
        _text("queryid", "identifier of the normalised statement"),
        _flag("is_top_level", "called by a client, not inside a function; null before version 14"),
        _text("query", "normalised text, without any literal; null where the role may not see it or it was discarded"),
        _count("calls", "executions since the last reset; those that failed or were cancelled are not counted"),
        _count("plans", "times it was planned; 0 where track_planning is off"),
        _ms("total_plan_time_ms", "planning time since the last reset; 0 where track_planning is off"),
        _ms("total_exec_time_ms", "execution time since the last reset"),
        _ms("mean_exec_time_ms", "mean execution time"),
        _ms("min_exec_time_ms", "shortest execution"),
        _ms("max_exec_time_ms", "longest execution"),
        _ms("stddev_exec_time_ms", "standard deviation of the execution time"),
        _count("rows", "rows returned or changed since the last reset"),
        _count("shared_blocks_hit", "blocks found in shared buffers"),
        _count("shared_blocks_read", "blocks read from outside shared buffers"),
        _count("shared_blocks_dirtied", "blocks changed"),
        _count("shared_blocks_written", "blocks the statement itself had to write out"),
        _count("temp_blocks_read", "blocks read from temporary files"),
        _count("temp_blocks_written", "blocks written to temporary files: sorts and hashes that did not fit"),
        _ms("block_read_time_ms", "time reading blocks; null where track_io_timing is off"),
        _ms("block_write_time_ms", "time writing blocks; null where track_io_timing is off"),
        _ms("temp_block_time_ms", "time with temporary files; null where it is not measured"),
        Column("wal_bytes", "BIGINT", "write-ahead log it made", "bytes"),
        _time("since", "when the server began to count this statement; null before version 17"),
    ),
)

ACTIVITY = Table(
    "activity",
    "one session of the database at one look",
    "postgres",
    "time",
    (
        _time("time", "when it was looked at, by this host's clock"),
        _text("server", "host:port"),
        _count("pid", "the session's server process"),
        _text("backend", "client backend, autovacuum worker, …"),
        _text("database", "database name"),
        _text("role", "user name"),
        _text("application", "application_name"),
        _text("client", "local or remote"),
        _text("state", "active, idle, idle in transaction, …; null where the role may not see it"),
        _text("wait_event_type", "what kind of thing it waits for; null when it does not"),
        _text("wait_event", "what it waits for"),
        _time("session_start", "when the session began"),
        _time("transaction_start", "when its transaction began; null outside one"),
        _time("query_start", "when its last statement began"),
        _time("state_change", "when its state changed last"),
        _text("queryid", "statement it runs or ran last; null before version 14 or where compute_query_id is off"),
        _text("query", "its last statement, without any literal"),
        _json("blocked_by", "pids that hold what it waits for; 0 is a prepared transaction"),
        _text("lock_mode", "lock it waits for, as AccessExclusiveLock"),
        _text("lock_on", "table, transaction or other thing the lock is on"),
        _count("transaction_age", "transactions that began since its snapshot; what keeps vacuum from removing rows"),
    ),
)

CATALOG = Table(
    "catalog",
    "one object of a database or vector store at one snapshot",
    "postgres, qdrant, milvus, redis, pgbouncer",
    "time",
    (
        _time("time", "when it was read"),
        _text("server", "host:port"),
        _text("kind", "one of the kinds below: table, index, setting, collection …"),
        _text("name", "qualified name"),
        _json("properties", "what is known of it, as its kind says"),
    ),
)

PLANS = Table(
    "plans",
    "one plan of a statement",
    "postgres, import",
    "time",
    (
        _time("time", "when it was made"),
        _text("server", "host:port; null for one that was imported"),
        _text("queryid", "the statement"),
        _text("query", "its text, without any literal"),
        _json("plan", "as EXPLAIN (FORMAT JSON) has it, without any literal"),
        _text("origin", "generic (no parameters), analyze (executed), explain, log (auto_explain) or pasted"),
        _ms("duration_ms", "how long the statement took; null where it was not executed"),
    ),
)

STACKS = Table(
    "stacks",
    "a stack seen in samples of one thread",
    "stacks, import",
    "time",
    (
        _time("time", "when it was sampled, or the start of the sampling window"),
        _count("pid", "process"),
        _text("thread", "thread name or id"),
        _text("stack", "collapsed, root first: function (file:line);…"),
        _count("samples", "how many samples showed it"),
        _flag("on_cpu", "the thread was running"),
        _flag("holds_gil", "the thread held the interpreter lock"),
        _text("mode", "dump (one look at every thread) or profile (aggregated samples)"),
        _number("period_ms", "time one sample stands for", "ms"),
    ),
)

ALLOCATIONS = Table(
    "allocations",
    "one allocation site at one snapshot",
    "heap",
    "time",
    (
        _time("time", "when the snapshot was taken"),
        _count("pid", "process"),
        _text("site", "file:line function"),
        Column("bytes", "BIGINT", "bytes still held", "bytes"),
        _count("count", "allocations still held"),
    ),
)

BILLS = Table(
    "bills",
    "one line of a provider's own usage or cost export: what it counted or charged for one model in one stretch of time",
    "import",
    "time",
    (
        _time("time", "start of the stretch the line is about"),
        _time("end_time", "its end"),
        _text("provider", "whose export it is"),
        _text("model", "model billed; null where the export was not grouped by model"),
        _text("item", "what is charged, as the export words it; null for lines of usage"),
        _count("requests", "calls counted"),
        _count("input_tokens", "all input tokens, cached ones included"),
        _count("cache_read_tokens", "input tokens read from the provider's cache"),
        _count("cache_write_tokens", "input tokens written to it"),
        _count("output_tokens", "all output tokens"),
        _number("charged_usd", "dollars charged; null for lines of usage", "usd"),
        _text("service_tier", "default, flex, priority, batch …"),
        _text("project", "project id, hashed"),
        _text("source", "usage or costs: what kind of export"),
        _text(
            "line_digest", "keyed hash of what the line is about: of lines that are about the same, the latest counts"
        ),
        _time("imported", "when the export was imported"),
    ),
)

EVENTS = Table(
    "events",
    "one entry of the timeline",
    "everything",
    "time",
    (
        _time("time", "when it happened"),
        _text("kind", "note, finding, knob, trial, tuning, alert, mark, source"),
        _text("title", "one line"),
        _json("body", "details"),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        SPANS, LLM_CALLS, HTTP_REQUESTS, SAMPLES, STATEMENTS, ACTIVITY, CATALOG, PLANS, STACKS, ALLOCATIONS, BILLS,
        EVENTS,
    )
}  # fmt: skip


def as_markdown() -> str:
    """Return the tables' documentation page, made from the declarations above."""
    parts = ["# The tables of a recording\n", __doc__ or ""]
    for table in TABLES.values():
        parts.append(f"\n## {table.name}\n\nOne row is {table.row}. Written by: {table.written_by}.\n")
        parts.append("| column | type | unit | meaning |\n|---|---|---|---|")
        parts += [f"| {c.name} | {c.type} | {c.unit} | {c.meaning} |" for c in table.columns]
    return "\n".join(parts) + "\n" + kinds.as_markdown()
