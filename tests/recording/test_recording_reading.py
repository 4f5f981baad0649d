"""What a reader meets: nothing recorded, columns that are missing, damaged files, odd folders, sealing under it."""

from pathlib import Path

import duckdb
import pandas as pd
import pytest

from perfnb.errors import BadRecording, NotMeasured, WrongUse
from perfnb.recording import SCHEMA_VERSION, TABLES, Recording, Window


def filled(path: Path, rows: int = 3) -> Recording:
    recording = Recording.create(path)
    with recording.writer() as writer:
        writer.write("samples", [{"time": n, "metric": "m", "value": n} for n in range(1, rows + 1)])
    return recording


def test_a_recording_with_no_rows_answers_every_table(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    for name, table in TABLES.items():
        frame = recording.query(f"SELECT * FROM {name}")
        assert frame.empty
        assert list(frame.columns) == list(table.types)
        assert not recording.has(name)
        with pytest.raises(NotMeasured, match=name):
            recording.require(name)
    created = recording.manifest["created"]
    assert recording.window == Window(created, created)
    assert recording.seal() == recording.torn_lines == 0


def test_types_are_the_declared_ones_live_and_sealed(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    writer = recording.writer()
    described = []
    for table in TABLES.values():
        writer.write(table.name, [{table.time: 1}])
    for _ in ("live", "sealed"):
        for table in TABLES.values():
            columns = recording.query(f"DESCRIBE {table.name}")
            described.append(dict(zip(columns["column_name"], columns["column_type"], strict=True)) == table.types)
        writer.close()
    assert described == [True] * 2 * len(TABLES)


@pytest.mark.parametrize("files", [1, 2])
def test_a_parquet_file_that_lacks_columns_reads_them_as_null(tmp_path: Path, files: int) -> None:
    recording = filled(tmp_path / "x.perfnb") if files == 2 else Recording.create(tmp_path / "x.perfnb")
    (recording.path / "samples").mkdir(exist_ok=True)
    old = recording.path / "samples" / "0-old.parquet"
    duckdb.sql("SELECT 100::BIGINT AS time, 'old' AS metric, 7 AS gone").write_parquet(str(old))
    frame = recording.query("SELECT * FROM samples ORDER BY time")
    assert list(frame.columns) == list(TABLES["samples"].types)
    assert frame.iloc[-1]["metric"] == "old"
    assert pd.isna(frame.iloc[-1]["value"])
    assert len(frame) == (1 if files == 1 else 4)


def test_a_journal_that_lacks_columns_reads_them_as_null(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    (recording.path / "spans").mkdir()
    (recording.path / "spans" / "1-old.jsonl").write_text('{"start_time": 5, "name": "a", "gone": {"x": 1}}\n')
    for _ in ("live", "sealed"):
        frame = recording.query("SELECT * FROM spans")
        assert frame["name"].to_list() == ["a"]
        assert frame["documents"].isna().all()
        recording.seal()


def test_a_column_of_another_type_is_read_as_the_declared_one(tmp_path: Path) -> None:
    recording = filled(tmp_path / "x.perfnb")
    old = recording.path / "samples" / "0-old.parquet"
    duckdb.sql("SELECT 100::BIGINT AS time, 12::INTEGER AS value").write_parquet(str(old))
    assert recording.query("SELECT value FROM samples WHERE time = 100")["value"].to_list() == [12.0]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 and nothing that makes sense PAR1"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    recording = filled(tmp_path / "x.perfnb")
    damaged = recording.path / "samples" / "0-damaged.parquet"
    damaged.write_bytes(content)
    with pytest.raises(BadRecording, match=r"0-damaged\.parquet is damaged.*move it away"):
        recording.query("SELECT * FROM samples")
    damaged.unlink()
    assert len(recording.query("SELECT * FROM samples")) == 3


def test_a_file_that_is_damaged_inside_is_named(tmp_path: Path) -> None:
    recording = filled(tmp_path / "x.perfnb", rows=2_000)
    (parquet,) = recording.path.glob("samples/*.parquet")
    whole = parquet.read_bytes()
    parquet.write_bytes(whole[:4] + bytes(200) + whole[204:])
    with pytest.raises(BadRecording, match="is damaged"):
        recording.query("SELECT * FROM samples")


def test_wrong_sql_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(duckdb.BinderException):
        filled(tmp_path / "x.perfnb").query("SELECT nonsense FROM samples")


@pytest.mark.parametrize("name", ["a [1].perfnb", "it's*.perfnb", "what?.perfnb", "päth 💡.perfnb"])
def test_a_folder_with_an_odd_name_works(tmp_path: Path, name: str) -> None:
    recording = filled(tmp_path / name)
    recording.writer().write("samples", [{"time": 4}])
    assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 4


def test_a_file_that_goes_away_between_listing_and_reading_is_read_around(tmp_path: Path) -> None:
    recording = filled(tmp_path / "x.perfnb")
    connection = recording.refresh()
    (parquet,) = recording.path.glob("samples/*.parquet")
    parquet.rename(parquet.with_name("renamed.parquet"))
    with pytest.raises(duckdb.IOException):
        connection.execute("SELECT * FROM samples")
    assert len(recording.query("SELECT * FROM samples")) == 3


def test_a_journal_that_is_sealed_while_its_view_stands_is_still_read(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    writer = recording.writer()
    writer.write("samples", [{"time": 1}])
    connection = recording.refresh()
    writer.close()
    assert not list(recording.path.glob("samples/*.jsonl"))
    assert connection.execute("SELECT count(*) FROM samples").fetchone() == (1,)
    assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 1


def test_reading_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    recording.query("SELECT 1")
    before = len(list(Path("/dev/fd").iterdir()))
    for n in range(20):
        with recording.writer() as writer:
            writer.write("samples", [{"time": n + 1}])
            recording.query("SELECT count(*) FROM samples")
    recording.query("SELECT count(*) FROM samples")
    assert len(list(Path("/dev/fd").iterdir())) <= before
    recording.close()


def test_views_stay_when_nothing_is_new_and_derived_follows_new_rows(tmp_path: Path) -> None:
    recording = filled(tmp_path / "x.perfnb")
    builds: list[int] = []

    def count() -> int:
        builds.append(1)
        return int(recording.query("SELECT count(*) AS n FROM samples")["n"][0])

    assert [recording.derived("n", count) for _ in range(3)] == [3, 3, 3]
    assert len(builds) == 1
    writer = recording.writer()
    for expected in (4, 5):
        writer.write("samples", [{"time": expected}])
        assert [recording.derived("n", count) for _ in range(2)] == [expected] * 2
    assert len(builds) == 3


def test_parameters_are_values_not_sql(tmp_path: Path) -> None:
    recording = filled(tmp_path / "x.perfnb")
    sql = "SELECT count(*) AS n FROM samples WHERE metric = $metric"
    assert recording.query(sql, {"metric": "m"})["n"][0] == 3
    assert recording.query(sql, {"metric": "m' OR '1'='1"})["n"][0] == 0


def test_a_table_nobody_declared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="no table named 'nonsense'"):
        Recording.create(tmp_path / "x.perfnb").writer().write("nonsense", [{"time": 1}])


def test_the_window_spans_what_was_observed(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    start = 1_700_000_000_000_000_123
    with recording.writer() as writer:
        writer.write("spans", [{"start_time": start, "duration_ms": 2_000.0}])
        writer.write("samples", [{"time": start + 5}])
        writer.write("events", [{"time": start + 10**12, "kind": "note"}])  # a note is no observation
    assert recording.window == Window(start, start + 2 * 10**9)
    assert recording.window.seconds == 2
    assert Recording.open(recording.path).manifest["schema"] == SCHEMA_VERSION
