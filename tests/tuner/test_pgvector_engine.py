"""The tuner on a real pgvector: settings take, the truth is exact, nothing is written, odd tables are told."""

import threading
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
from servers import running
from vector_stores import ASKED, DIMENSIONS, ROWS, STORED, drawn, fill

from perfnb.errors import NotInstalled, NotPermitted, NotReachable, WrongUse
from perfnb.tuner import EXACT, Filter, PgvectorTable, Setting, tune
from perfnb.tuner.engines.base import NO_INDEX


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with running(18) as found:
        fill(found, index="hnsw (embedding vector_cosine_ops) WITH (m = 8, ef_construction = 40)")
        fill(found, table="bare")
        fill(found, table="lists", index="ivfflat (embedding vector_l2_ops) WITH (lists = 30)")
        fill(found, table="halves", type_="halfvec", index="hnsw (embedding halfvec_ip_ops)")
        fill(found, table="odd", rows=drawn(500), index="hnsw (embedding vector_cosine_ops) WHERE tenant = 1")
        with psycopg.connect(found) as connection:
            connection.execute("INSERT INTO odd (id, embedding) VALUES (-1, NULL), (-2, NULL)")
            connection.execute(
                f"INSERT INTO odd SELECT -3, 1, 'zero', array_fill(0::real, ARRAY[{DIMENSIONS}])::vector"
            )
            connection.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
            connection.execute("GRANT SELECT ON docs TO reader")
            connection.execute("REVOKE TEMPORARY ON DATABASE supportdesk FROM PUBLIC")
        yield found


@pytest.fixture
def table(dsn: str) -> Iterator[PgvectorTable]:
    with PgvectorTable(dsn, "docs") as found:
        yield found


def true_ids(query: "np.typing.NDArray[np.float32]", k: int) -> set[int]:
    unit = STORED / np.linalg.norm(STORED, axis=1, keepdims=True)
    return set(np.argsort(-unit @ query)[:k].tolist())


def ids(dsn: str, rows: "tuple[object, ...]", table: str = "docs") -> set[int]:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            f"SELECT id FROM {table} WHERE tableoid::bigint || ':' || ctid::text = ANY(%s)", (list(rows),)
        )
        return {row[0] for row in found}


def test_the_pick_meets_the_target_and_shows_what_it_rests_on(table: PgvectorTable) -> None:
    tuning = tune(table, ASKED, target=0.9)
    assert tuning.pick is not None
    assert tuning.pick.is_met
    assert tuning.ended == "done"
    assert tuning.share_of_grid <= 1 / 3
    held_back = tuning.frame.query("part == 'held back'")
    assert set(held_back["queries"]) == {200}
    assert tuning.described["build"] == {"m": 8, "ef_construction": 40}
    by_ef = tuning.frame.query("part == 'choosing' and family == 'hnsw'").sort_values("value")
    assert by_ef["recall"].iloc[-1] > by_ef["recall"].iloc[0]
    assert (by_ef["used"] == "docs_embedding_idx").all()


def test_the_truth_is_what_numpy_finds(dsn: str, table: PgvectorTable) -> None:
    for query in ASKED[:5]:
        assert ids(dsn, tuple(table.exact(query, 10, None).ids)) == true_ids(query, 10)


def test_a_setting_is_in_effect_only_within_its_search(table: PgvectorTable) -> None:
    few = table.search(ASKED[0], 100, Setting("hnsw", "hnsw.ef_search", 20), None)
    many = table.search(ASKED[0], 100, Setting("hnsw", "hnsw.ef_search", 200), None)
    assert (len(few.ids), len(many.ids)) == (20, 100)
    assert table.current(10) == Setting("hnsw", "hnsw.ef_search", 40)
    assert table.uses(ASKED[0], 10, Setting("hnsw", "hnsw.ef_search", 40), None) == "docs_embedding_idx"
    assert table.uses(ASKED[0], 10, EXACT, None) == NO_INDEX


def test_a_setting_out_of_range_is_refused_in_words(table: PgvectorTable) -> None:
    with pytest.raises(WrongUse, match="ef_search"):
        table.search(ASKED[0], 10, Setting("hnsw", "hnsw.ef_search", 5000), None)
    assert len(table.search(ASKED[0], 10, Setting("hnsw", "hnsw.ef_search", 40), None).ids) == 10


def test_filters_lose_rows_that_iterating_finds(table: PgvectorTable) -> None:
    """On a tenth of the rows, the index gives what of its candidates passes; the scan that goes on gives all."""
    tenth = table.filtered("tenant < 10")
    assert tenth.selectivity == pytest.approx(0.1)
    off = Setting("hnsw", "hnsw.ef_search", 40, (("hnsw.iterative_scan", "off"), ("enable_seqscan", "off")))
    on = Setting("hnsw", "hnsw.ef_search", 40, (("hnsw.iterative_scan", "relaxed_order"), ("enable_seqscan", "off")))
    assert table.uses(ASKED[0], 10, off, tenth) == "docs_embedding_idx"
    assert len(table.search(ASKED[0], 10, off, tenth).ids) < 10
    assert len(table.search(ASKED[0], 10, on, tenth).ids) == 10


def test_filters_are_made_from_a_column(table: PgvectorTable) -> None:
    found = {each.title: each for each in table.filters("tenant", (0.1, 0.01, 0.0001))}
    assert list(found) == ["tenant on 10 %", "tenant on 1 %"]
    assert found["tenant on 1 %"].rows == ROWS // 100
    assert 200 <= found["tenant on 10 %"].rows <= 450
    for each in found.values():
        assert table.filtered(each.condition).rows == each.rows


def test_a_title_holds_no_value_and_a_condition_may_hold_a_percent_sign(table: PgvectorTable) -> None:
    found = table.filtered("label = '100% of 1'")
    assert found.rows == ROWS // 3
    assert "100%" not in found.title
    assert len(table.exact(ASKED[0], 10, found).ids) == 10


def test_each_filter_has_its_own_pick_and_the_event_no_value(table: PgvectorTable) -> None:
    tuning = tune(
        table,
        ASKED,
        choosing=60,
        held_back=60,
        target=0.9,
        filters=["label = '100% of 1'"],
        filter_column="tenant",
        selectivities=(0.1, 0.001),
    )
    assert [each.filter for each in tuning.picks] == ["all rows", "a filter on 33 %", "tenant on 10 %"]
    assert any("0.1 %" in each for each in tuning.not_measured)
    assert "100% of 1" not in str(tuning.as_dict())


@pytest.mark.parametrize("condition", ["no_such_column = 1", "tenant = ", "true; DROP TABLE docs"])
def test_a_condition_that_is_none_is_refused(table: PgvectorTable, condition: str) -> None:
    with pytest.raises(WrongUse):
        table.filtered(condition)
    assert table.describe().rows == ROWS


def test_a_condition_can_write_nothing(table: PgvectorTable) -> None:
    with pytest.raises((WrongUse, NotPermitted, psycopg.errors.ReadOnlySqlTransaction)):
        table.filtered("(SELECT setval('pg_class_oid_index'::regclass, 1)) > 0")


def test_sampled_rows_are_searched_without_themselves(table: PgvectorTable) -> None:
    drawn_rows = table.sample(50, 3)
    assert len({question.own for question in drawn_rows}) == 50
    assert [each.own for each in drawn_rows] == [each.own for each in table.sample(50, 3)]
    tuning = tune(table, choosing=30, held_back=30, target=0.8)
    assert "without itself" in tuning.queries
    assert (tuning.frame["rows"] == 10).all()


def test_rows_that_no_index_holds_are_counted(dsn: str) -> None:
    with PgvectorTable(dsn, "odd") as table:
        described = table.describe()
        assert described.unindexed == {"null": 2, "zero, which has no cosine": 1}
        assert described.index is None
        assert any("partial" in note for note in described.notes)
        tuning = tune(table, ASKED[:20])
    assert tuning.pick is not None
    assert not tuning.pick.settings
    assert "no vector index" in tuning.pick.why


def test_a_table_without_an_index_has_nothing_to_tune(dsn: str) -> None:
    with PgvectorTable(dsn, "bare") as table:
        assert table.families(10, None) == ()
        tuning = tune(table, ASKED[:20], statement="SELECT id FROM bare ORDER BY embedding <=> $1")
    assert set(tuning.frame["setting"]) == {"no vector index (exact)"}
    assert any("no LIMIT" in each for each in tuning.advice)


def test_lists_are_tuned_by_probes(dsn: str) -> None:
    with PgvectorTable(dsn, "lists") as table:
        assert table.families(10, None)[0].parameter == "ivfflat.probes"
        assert table.families(10, None)[0].values[-1] == 30
        modes = [
            dict(each.fixed)["ivfflat.iterative_scan"] for each in table.families(10, table.filtered("tenant < 50"))
        ]
        assert modes == ["off", "relaxed_order"]
        tuning = tune(table, ASKED, target=0.9, choosing=100, held_back=60)
    assert tuning.described["distance"] == "l2"
    assert tuning.pick is not None
    assert tuning.pick.is_met
    assert any("lists" in each for each in tuning.advice)  # 30 for 3,000 rows


def test_an_index_built_before_the_data_is_told(dsn: str) -> None:
    """Statistics are as they were when the lists were made; a vacuum would count anew and hide it."""
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE early (LIKE bare) WITH (autovacuum_enabled = off)")
        connection.execute("INSERT INTO early SELECT * FROM bare LIMIT 20")
        connection.execute("CREATE INDEX ON early USING ivfflat (embedding vector_cosine_ops) WITH (lists = 3)")
        connection.execute("INSERT INTO early SELECT * FROM bare")
    with PgvectorTable(dsn, "early") as table:
        tuning = tune(table, ASKED[:60], target=0.8)
    assert any("built before the data" in each for each in tuning.advice)


def test_half_precision_and_inner_product(dsn: str) -> None:
    with PgvectorTable(dsn, "halves") as table:
        assert (table.describe().distance, table.column.type) == ("inner product", "halfvec")
        found = table.search(ASKED[0], 10, Setting("hnsw", "hnsw.ef_search", 400), None)
        assert set(found.ids) == set(table.exact(ASKED[0], 10, None).ids)


def test_another_distance_than_the_index_has_finds_no_index(dsn: str) -> None:
    with PgvectorTable(dsn, "docs", distance="l2") as table:
        assert table.families(10, None) == ()
        assert any("can't use it" in note for note in table.describe().notes)


def test_what_was_measured_is_kept_when_it_is_stopped(table: PgvectorTable) -> None:
    stop = threading.Event()
    asked = []

    def search(*args: object) -> object:
        asked.append(1)
        if len(asked) == 40:
            stop.set()
        return PgvectorTable.search(table, *args)

    table.search = search
    tuning = tune(table, ASKED, stop=stop)
    assert tuning.ended == "stopped on request"
    assert tuning.pick is None
    assert len(tuning.frame) > 0
    assert tune(table, ASKED, limit_s=1e-9).ended == "the time given was over"


def test_a_backend_that_is_killed_ends_it_with_what_there_is(dsn: str) -> None:
    with PgvectorTable(dsn, "docs") as table:
        pid = table._connection.info.backend_pid
        asked = []

        def search(*args: object) -> object:
            asked.append(1)
            if len(asked) == 60:
                with psycopg.connect(dsn) as other:
                    other.execute("SELECT pg_terminate_backend(%s)", (pid,))
            return PgvectorTable.search(table, *args)

        table.describe()
        table.search = search
        tuning = tune(table, ASKED)
    assert "went away" in tuning.ended
    assert tuning.searches >= 59


def test_a_role_that_may_only_read_can_tune_but_not_copy(dsn: str) -> None:
    reader = dsn.replace(dsn.partition("//")[2].partition("@")[0], "reader:reader")
    with PgvectorTable(reader, "docs") as table:
        tuning = tune(table, ASKED[:60], target=0.8, candidates=["halfvec"])
        assert tuning.pick is not None
        assert "TEMPORARY" in tuning.ended
    with pytest.raises(NotPermitted, match="permission denied"), PgvectorTable(reader, "bare") as table:
        table.describe()


@pytest.mark.parametrize(
    ("table", "column", "error"),
    [
        ("nowhere", "embedding", WrongUse),
        ("docs", "nothing", WrongUse),
        ("docs", "label", WrongUse),
        ("pg_views", "definition", WrongUse),
    ],
)
def test_what_holds_no_vectors_is_refused(dsn: str, table: str, column: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        PgvectorTable(dsn, table, column)


def test_a_server_that_is_not_there_or_has_no_pgvector() -> None:
    with pytest.raises(NotReachable):
        PgvectorTable("postgresql://nobody@127.0.0.1:1/nothing", "docs")
    with running(18) as dsn, pytest.raises(NotInstalled, match="vector"):
        PgvectorTable(dsn, "docs")


def test_indexes_are_tried_on_a_copy_that_leaves_nothing(dsn: str, table: PgvectorTable) -> None:
    names = ("rebuilt", "halfvec", "binary", "partial", "filter index")
    before = objects(dsn)
    tuning = tune(
        table,
        ASKED,
        choosing=40,
        held_back=40,
        target=0.9,
        filter_column="tenant",
        selectivities=(0.1,),
        candidates=names,
    )
    assert tuning.ended == "done"
    assert [each.name for each in tuning.candidates] == [
        "rebuilt", "halfvec", "binary", "partial (tenant on 10 %)", "filter index (tenant on 10 %)",
    ]  # fmt: skip
    sizes = {each.name: each.bytes for each in tuning.candidates}
    assert sizes["binary"] < min(
        sizes["halfvec"], sizes["rebuilt"]
    )  # a graph is drawn at random: halves may save less than it varies
    assert "halfvec" in next(each.ddl for each in tuning.candidates if each.name == "halfvec")
    used = tuning.frame.query("candidate == 'partial (tenant on 10 %)' and family != 'exact scan'")["used"]
    assert set(used) == {"perfnb_candidate"}
    assert objects(dsn) == before


def objects(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {row[0] for row in connection.execute("SELECT relname FROM pg_class")}


def test_an_unknown_filter_is_no_condition_of_another_engine(table: PgvectorTable) -> None:
    given = Filter("by hand", "tenant = 3", 30, ROWS)
    found = table.search(ASKED[0], 10, Setting("hnsw", "hnsw.ef_search", 1000), given)
    assert len(found.ids) <= 30
