from pathlib import Path
from typing import Any

import pytest
from builders import START, Row, answer, call, embedding, every, failed_call, request, span
from statement_rows import counted, snapshots

from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding


def episode(slow: range, total: int = 40, times: float = 5, **columns: Any) -> list[Row]:
    return [call(n * 3000, 800 * (times if n in slow else 1), **columns) for n in range(total)]


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        (episode(range(20, 40)), True),
        (episode(range(10, 20)), True),
        (episode(range(20, 40), times=1.8), False),
        (episode(range(0, 40, 2)), False),  # every second call: no stretch
        (episode(range(0, 40)), False),  # slow all the time: no change to see
        (episode(range(38, 40)), False),  # two calls prove nothing
    ],
)
def test_provider_slow(tmp_path: Path, calls: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, "provider-slow", calls=calls), Finding) is found


def test_larger_prompts_are_not_the_providers_fault(tmp_path: Path) -> None:
    calls = [call(n * 5000, 4000 if n >= 20 else 800, input_tokens=9000 if n >= 20 else 700) for n in range(40)]
    assert isinstance(answer(tmp_path, "provider-slow", calls=calls), Clear)


@pytest.mark.parametrize(
    ("byte_ms", "processing_ms", "found"), [(500, 100, True), (230, 100, True), (190, 100, False), (500, 490, False)]
)
def test_slow_network(tmp_path: Path, byte_ms: float, processing_ms: float, found: bool) -> None:
    calls = [call(n * 3000, byte_ms + 500, first_token_ms=byte_ms, processing_ms=processing_ms) for n in range(10)]
    assert isinstance(answer(tmp_path, "slow-network", calls=calls), Finding) is found


def test_slow_network_is_not_claimed_without_the_providers_own_time(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="--upstream"):
        answer(tmp_path, "slow-network", calls=[call(0, source="span")])


@pytest.mark.parametrize(
    ("ms", "count", "found"), [(600, 10, True), (201, 10, True), (200, 10, False), (30, 10, False), (600, 2, False)]
)
def test_slow_embedding(tmp_path: Path, ms: float, count: int, found: bool) -> None:
    calls = every(4000, count, lambda at: embedding(at, ms), lambda at: call(at + ms, 800))
    requests = every(4000, count, lambda at: request(at, ms + 900))
    assert isinstance(answer(tmp_path, "slow-embedding", calls=calls, requests=requests), Finding) is found


def test_a_slow_way_is_not_a_slow_embedding(tmp_path: Path) -> None:
    way = {"first_token_ms": 590, "time_to_first_token_ms": None, "processing_ms": 20}
    calls = every(
        4000, 10, lambda at: embedding(at, 600, **way) | {"time_to_first_byte_ms": 590}, lambda at: call(at + 600, 800)
    )
    assert isinstance(answer(tmp_path, "slow-embedding", calls=calls), Clear)


def test_embedding_a_batch_is_not_a_query(tmp_path: Path) -> None:
    calls = every(4000, 10, lambda at: embedding(at, 900, inputs=64))
    assert isinstance(answer(tmp_path, "slow-embedding", calls=calls), Clear)


STATEMENT = "SELECT id FROM documents ORDER BY embedding {} %s::vector LIMIT 5"
BY_SPANS = {"source": "span", "provider": "openai"}


def searching(*statements: str, operation: str = "database", system: str = "postgresql") -> list[Row]:
    return [
        span("search", 5, 3, operation=operation, statement=statement, attributes={"db.system": system})
        for statement in statements
    ]


@pytest.mark.parametrize(
    ("spans", "columns", "is_clear"),
    [
        (searching(STATEMENT.format("<=>")), BY_SPANS, False),
        (searching(STATEMENT.format("<->")), BY_SPANS, False),
        (searching(STATEMENT.format("<=>").lower().replace(" order", "\norder")), BY_SPANS, False),
        (searching("", operation="retrieval"), BY_SPANS, False),
        (searching(STATEMENT.format("<=>")), {}, True),  # the proxy sees all calls: what embeds is no call
        (searching("SELECT id FROM places ORDER BY place <-> %s LIMIT 5"), BY_SPANS, True),  # nearest on a map
        (searching("SELECT id FROM orders WHERE shop <=> %s", system="mysql"), BY_SPANS, True),  # an equality
        (searching("SELECT id FROM documents WHERE id = %s"), BY_SPANS, True),
        ([], BY_SPANS, True),
    ],
)
def test_embeddings_that_are_not_seen(
    tmp_path: Path, spans: list[Row], columns: dict[str, Any], is_clear: bool
) -> None:
    tables = {"calls": [call(n * 1000, 800, **columns) for n in range(6)], "spans": spans}
    for folder, cause in (("a", "slow-embedding"), ("b", "no-embedding-cache")):
        if is_clear:
            assert isinstance(answer(tmp_path / folder, cause, **tables), Clear)
            continue
        with pytest.raises(NotMeasured, match="what embeds the queries is not seen"):
            answer(tmp_path / folder, cause, **tables)


def test_what_the_database_counts_tells_of_searches_too(tmp_path: Path) -> None:
    calls = [call(n * 1000, 800, **BY_SPANS) for n in range(6)]
    one = counted(STATEMENT.format("<=>").replace("%s", "$1"), calls=60, ms=3)
    with pytest.raises(NotMeasured):
        answer(tmp_path, "slow-embedding", calls=calls, statements=snapshots(one))
    plain = counted("SELECT id FROM documents WHERE id = $1", calls=60, ms=3)
    assert isinstance(answer(tmp_path / "b", "slow-embedding", calls=calls, statements=snapshots(plain)), Clear)


def test_embedding_spans_of_documents_are_seen(tmp_path: Path) -> None:
    calls = [embedding(n * 4000, 900, inputs=64, **BY_SPANS) for n in range(10)]
    said = answer(tmp_path, "slow-embedding", calls=calls, spans=searching("", operation="retrieval"))
    assert isinstance(said, Clear)


def connections(count: int, per_connection: int, pause: float = 2000, **columns: Any) -> list[Row]:
    return [
        call(
            n * pause, 500, connection_id=n // per_connection, connection_requests=n % per_connection + 1, connect_ms=40,
            **({"stream": False} | columns),
        )
        for n in range(count)
    ]  # fmt: skip


def streams(count: int, *, embedded: str = "") -> list[Row]:
    """Return streamed answers on a connection each; ``embedded`` before, on the "same" connection or on one of its "own"."""
    rows = [
        call(n * 2000 + 100, 500, connection_id=n, connection_requests=1 + (embedded == "same"), connect_ms=40, stream=True)
        for n in range(count)
    ]  # fmt: skip
    where = {"same": range(count), "own": range(1000, 1000 + count), "kept": [1000] * count}.get(embedded, [])
    told = [1 if embedded != "kept" else n + 1 for n in range(count)]
    return rows + [
        embedding(n * 2000, 50, connection_id=number, connection_requests=told[n], stream=False)
        for n, number in enumerate(where)
    ]


def making(ms: float) -> list[Row]:
    """Return stacks of a process that makes clients for so long, beside other work."""
    seen = {"create_client (app.py:9);create_default_context (ssl.py:700)": ms, "answer (app.py:5)": 1000}
    return [
        {"time": START, "pid": 7, "thread": "1", "stack": stack, "samples": 1, "on_cpu": True, "mode": "profile", "period_ms": each}
        for stack, each in seen.items() if each
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        (connections(20, 1), True),
        (connections(20, 20), False),
        (connections(20, 2), False),
        (connections(9, 1), False),  # too few to tell
        (connections(20, 1, pause=10), False),  # twenty at once need twenty connections
        ([row | {"error_type": "disconnected"} for row in connections(20, 1)], False),  # callers left, and so did they
    ],
)
def test_client_per_request(tmp_path: Path, calls: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, "client-per-request", calls=calls), Finding) is found


@pytest.mark.parametrize(
    ("calls", "stacks", "found"),
    [
        (streams(20, embedded="own"), [], True),  # a connection for each embedding as well
        (streams(20, embedded="kept"), [], False),
        (streams(20, embedded="same"), [], False),  # … used again by the answer: it ends with that stream
        (streams(20), making(400), True),
        (streams(20), making(20), True),  # one millisecond each
        (streams(20), making(19), False),
        (streams(20), making(0), False),
    ],
)
def test_where_streams_end_connections_others_tell(
    tmp_path: Path, calls: list[Row], stacks: list[Row], found: bool
) -> None:
    assert isinstance(answer(tmp_path, "client-per-request", calls=calls, stacks=stacks), Finding) is found


def test_streams_alone_do_not_tell_whether_clients_are_made_anew(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="end a connection where a stream ends") as missing:
        answer(tmp_path, "client-per-request", calls=streams(20))
    assert "--pid" in str(missing.value.hint)


@pytest.mark.parametrize(("refused", "good", "found"), [(10, 20, True), (3, 20, True), (2, 20, False), (3, 200, False)])
def test_rate_limited(tmp_path: Path, refused: int, good: int, found: bool) -> None:
    calls = [call(n * 3000, 800) for n in range(good)]
    for n in range(refused):
        calls[n] |= {"prompt_digest": f"again {n}", "attempt": 2}
        calls.append(failed_call(n * 3000 - 1500, prompt_digest=f"again {n}", retry_after_ms=1000))
    for row in calls:
        row.pop("attempt", None)
    assert isinstance(answer(tmp_path, "rate-limited", calls=calls), Finding) is found


def test_other_errors_are_not_rate_limits(tmp_path: Path) -> None:
    calls = [failed_call(n * 1000, status=500) for n in range(10)]
    assert isinstance(answer(tmp_path, "rate-limited", calls=calls), Clear)
