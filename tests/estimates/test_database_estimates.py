import math
from pathlib import Path
from typing import Any

import pytest
from builders import Row, call, recording
from database_rows import session, statement, thing

from perfnb.errors import NotMeasured, WrongUse
from perfnb.estimates import Prediction, changes_for, predict
from perfnb.estimates.indexing import index_for
from perfnb.finding import Estimate, Finding
from perfnb.recording import Recording

BY_SESSION = "SELECT * FROM messages WHERE session_id = $1"
SEARCH = "SELECT id FROM documents ORDER BY embedding <=> $1 LIMIT $2"
MESSAGES = [
    thing("table", "public.messages", pages=1000, rows_estimated=100_000.0),
    thing("column", "public.messages.session_id", distinct=-0.01, most_common_fraction=0.005),
    thing("column", "public.messages.at", distinct=-1.0),
    thing("index", "public.messages_pkey", table="public.messages", keys=["id"], method="btree", is_valid=True),
]
HNSW = thing(
    "index", "public.documents_embedding", table="public.documents", keys=["embedding"], method="hnsw", is_valid=True
)


def made(folder: Path, *statements: list[Row], catalog: list[Row] | None = None, **tables: Any) -> Recording:
    return recording(folder, statements=[row for each in statements for row in each], catalog=catalog or [], **tables)


def effect(prediction: Prediction, metric: str) -> Estimate:
    found = prediction.effect(metric)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("cause", "name"),
    [
        ("missing-index", "index"),
        ("sort-spill", "work_mem"),
        ("vector-search-parameters", "vector_search"),
        ("missing-results", "vector_search"),
        ("connection-held-during-model-call", "release_connection"),
    ],
)
def test_the_change_that_mends_a_cause_comes_first(cause: str, name: str) -> None:
    assert changes_for([Finding("", "high", 0.5, (), "", cause=cause)])[0].name == name


def test_an_index_leaves_the_blocks_of_the_rows_that_match(tmp_path: Path) -> None:
    seen = made(tmp_path, statement(BY_SESSION, "1", calls=100, ms=20, shared_blocks_hit=100_000), catalog=MESSAGES)
    prediction = predict(seen, "index")
    blocks, time = effect(prediction, "statement_blocks"), effect(prediction, "statement_ms")
    assert (blocks.before, time.before) == (1000, 20)
    assert blocks.low == pytest.approx(3 + 1)  # 100 rows, side by side: a block
    assert blocks.high == pytest.approx(3 + 500)  # the commonest value's 500 rows, each in its own
    assert time.low == pytest.approx(20 * 4 / 1000)
    assert time.high == 20  # 503 blocks that take four times as long: nothing is sure to be saved
    assert prediction.setting == {"statement": "1", "columns": "session_id"}
    assert index_for(seen)[1].statement == "CREATE INDEX ON public.messages (session_id)"


def test_a_column_that_is_there_for_the_order_alone_leaves_all_rows(tmp_path: Path) -> None:
    seen = made(tmp_path, statement(BY_SESSION, "1", calls=100, ms=20, shared_blocks_hit=100_000), catalog=MESSAGES)
    assert predict(seen, "index", columns="session_id, at").effects == predict(seen, "index").effects


def test_equal_columns_come_before_a_range_and_names_are_quoted(tmp_path: Path) -> None:
    text = 'SELECT * FROM messages m WHERE m."at" > $1 AND m.session_id = $2'
    seen = made(tmp_path, statement(text, "1", calls=100, ms=20, shared_blocks_read=100_000), catalog=MESSAGES)
    assert predict(seen, "index").setting["columns"] == "session_id, at"
    named = predict(seen, "index", statement="1", columns="at")
    assert effect(named, "statement_blocks").high == 1000
    with pytest.raises(WrongUse, match="has no column 'nothing'"):
        predict(seen, "index", statement="1", columns="nothing")
    with pytest.raises(WrongUse, match="no statement 9"):
        predict(seen, "index", statement="9")


@pytest.mark.parametrize(
    ("text", "blocks", "catalog"),
    [
        (BY_SESSION, 400, MESSAGES),  # does not read the whole table
        ("SELECT count(*) FROM messages", 100_000, MESSAGES),  # has no filter
        ("SELECT * FROM messages WHERE id = $1", 100_000, MESSAGES),  # an index is there
        (
            BY_SESSION,
            100_000,
            [thing("table", "public.messages", pages=50, rows_estimated=500.0), *MESSAGES[1:]],
        ),  # small
    ],
)
def test_where_no_index_would_help_none_is_estimated(
    tmp_path: Path, text: str, blocks: int, catalog: list[Row]
) -> None:
    seen = made(tmp_path, statement(text, "1", calls=100, ms=20, shared_blocks_hit=blocks), catalog=catalog)
    with pytest.raises(NotMeasured) as missing:
        predict(seen, "index")
    assert missing.value.hint


@pytest.mark.parametrize(
    ("megabytes", "timed", "time", "bytes_left"),
    [
        (64, 300.0, (70, 70), (0, 0)),
        (64, 0.0, (50, 100), (0, 0)),
        (12, 300.0, (70, 100), (0, 8_192_000)),
        (4, 300.0, (100, 100), (8_192_000, 8_192_000)),
    ],
)
def test_memory_saves_the_files_that_fit(
    tmp_path: Path, megabytes: int, timed: float, time: tuple[float, float], bytes_left: tuple[float, float]
) -> None:
    spills = statement(
        "SELECT a FROM t ORDER BY b", "2", calls=10, ms=100, temp_blocks_written=10_000, temp_block_time_ms=timed
    )
    prediction = predict(made(tmp_path, spills), "work_mem", megabytes=megabytes)
    found = effect(prediction, "statement_ms")
    assert (found.before, found.low, found.high) == (100, *time)
    left = effect(prediction, "temporary_bytes")
    assert (left.before, left.low, left.high) == (8_192_000, *bytes_left)
    assert any("run out of it" in line for line in prediction.not_modelled)


def test_without_a_spill_there_is_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="none of 1 statements writes temporary files"):
        predict(made(tmp_path, statement(BY_SESSION, "1", calls=5, ms=1)), "work_mem")


def test_a_wider_search_takes_longer_and_its_rows_are_not_promised(tmp_path: Path) -> None:
    seen = made(
        tmp_path,
        statement(SEARCH, "3", calls=10, ms=2, rows=100),
        catalog=[HNSW, thing("setting", "hnsw.ef_search", value="50")],
    )
    found = effect(predict(seen, "vector_search", ef_search=200), "statement_ms")
    assert (found.before, found.low) == (2, 2)
    assert found.high == pytest.approx(2 * 4 * math.log(201) / math.log(51))  # four times the candidates, in order
    fewer = effect(predict(seen, "vector_search", ef_search=25), "statement_ms")
    assert fewer.low == pytest.approx(math.log(26) / math.log(51))
    assert fewer.high == 2
    on = effect(predict(seen, "vector_search", ef_search=50, iterative_scan="relaxed_order"), "statement_ms")
    assert on.high == 2 * 20_000 / 50
    assert "try it" in predict(seen, "vector_search").not_modelled[0]


@pytest.mark.parametrize(
    ("text", "catalog"),
    [(BY_SESSION, [HNSW]), (SEARCH, [thing("index", "public.i", table="t", keys=["a"], method="ivfflat")])],
)
def test_a_search_needs_a_distance_and_an_hnsw_index(tmp_path: Path, text: str, catalog: list[Row]) -> None:
    with pytest.raises(NotMeasured):
        predict(made(tmp_path, statement(text, "3", calls=10, ms=2), catalog=catalog), "vector_search")


def test_connections_given_back_are_those_that_wait_for_the_model(tmp_path: Path) -> None:
    looks = [
        row
        for second in range(1, 11)
        for row in (
            session(second, 1, "active"),
            session(second, 2, "idle in transaction", since_s=0.8),
            session(second, 3, "idle in transaction", since_s=0.01),
            session(second, 4, "idle", since_s=9),
            session(second, 5, "active", backend="autovacuum worker"),
        )
    ]
    calls = [call(at * 1000 - 500, 900) for at in range(1, 11)]
    prediction = predict(recording(tmp_path, activity=looks, calls=calls), "release_connection")
    found = effect(prediction, "connections_in_use")
    assert (found.before, found.low, found.high) == (3, 1, 2)
    assert "1.0 of them idle in a transaction beside a model call" in prediction.examined


@pytest.mark.parametrize("looks", [0, 3])
def test_few_looks_tell_nothing_of_connections(tmp_path: Path, looks: int) -> None:
    rows = [session(second, 1, "active") for second in range(looks)]
    with pytest.raises(NotMeasured) as missing:
        predict(recording(tmp_path, activity=rows, calls=[call()]), "release_connection")
    assert missing.value.hint


def test_sessions_that_all_stand_idle_are_none_in_use(tmp_path: Path) -> None:
    rows = [session(second, 1, "idle") for second in range(9)]
    with pytest.raises(NotMeasured, match="no session was in use"):
        predict(recording(tmp_path, activity=rows, calls=[call()]), "release_connection")
