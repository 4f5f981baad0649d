"""Recordings of older schemas are brought to today's, step by step."""

import json
import threading
from pathlib import Path

import duckdb
import pytest

from perfnb.errors import BadRecording
from perfnb.recording import SCHEMA_VERSION, Recording
from perfnb.recording.manifest import read_manifest
from perfnb.recording.upgrade import STEPS, Step, columns_added, renamed, upgrade


def version_0(path: Path) -> Path:
    """Make a recording as version 0 might have left it: a metric's value was called ``reading``, units came later."""
    folder = path / "samples"
    folder.mkdir(parents=True)
    (path / "recording.json").write_text(json.dumps({"schema": 0, "created": 5, "content": "full"}))
    (folder / "1-a.jsonl").write_text(
        '{"time": 1, "metric": "a", "reading": 1.5}\n{"time": 2, "metric": "b", "reading": 2.5}\n{"time": 3, "rea'
    )
    (folder / "2-b.jsonl").touch()
    duckdb.sql("SELECT 4::BIGINT AS time, 'c' AS metric, 3.5 AS reading").write_parquet(str(folder / "3-c.parquet"))
    return path


def test_a_version_0_recording_opens_and_its_missing_columns_are_null(tmp_path: Path) -> None:
    recording = Recording.open(version_0(tmp_path / "old.perfnb"))
    assert recording.manifest["schema"] == SCHEMA_VERSION
    assert recording.content == "full"
    frame = recording.query("SELECT metric, unit FROM samples ORDER BY time")
    assert frame["metric"].to_list() == ["a", "b", "c"]
    assert frame["unit"].isna().all()
    assert read_manifest(recording.path) == {"schema": SCHEMA_VERSION, "created": 5, "content": "full"}
    assert recording.seal() == 1


def test_there_is_a_step_from_every_older_version() -> None:
    assert sorted(STEPS) == list(range(SCHEMA_VERSION))
    assert all(step.what for step in STEPS.values())


def test_a_renamed_column_is_found_under_its_new_name(tmp_path: Path) -> None:
    path = version_0(tmp_path / "old.perfnb")
    upgrade(path, steps={0: Step("reading became value", renamed("samples", "reading", "value"))}, to=1)
    recording = Recording.open(path)
    for _ in ("live", "sealed"):
        frame = recording.query("SELECT metric, value FROM samples ORDER BY time")
        assert frame["value"].to_list() == [1.5, 2.5, 3.5]
        assert recording.torn_lines == 1
        recording.seal()


def test_steps_run_once_each_and_in_order(tmp_path: Path) -> None:
    path = version_0(tmp_path / "old.perfnb")
    ran: list[int] = []
    steps = {version: Step("", lambda _, version=version: ran.append(version)) for version in range(4)}
    assert upgrade(path, steps=steps, to=3)["schema"] == 3
    assert upgrade(path, steps=steps, to=3)["schema"] == 3
    assert ran == [0, 1, 2]


def test_an_upgrade_that_was_cut_short_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = version_0(tmp_path / "old.perfnb")
    rename = renamed("samples", "reading", "value")

    def cut_short(folder: Path) -> None:
        rename(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upgrade(path, steps={0: Step("", columns_added), 1: Step("", cut_short)}, to=2)
    assert read_manifest(path)["schema"] == 1
    assert upgrade(path, steps={1: Step("", rename)}, to=2)["schema"] == 2
    values = duckdb.sql(f"SELECT value FROM '{path}/samples/3-c.parquet'").fetchall()
    assert values == [(3.5,)]


def test_two_that_open_it_at_once_upgrade_it_once(tmp_path: Path) -> None:
    path = version_0(tmp_path / "old.perfnb")
    ran: list[int] = []
    steps = {0: Step("", lambda _: ran.append(0)), 1: Step("", lambda _: ran.append(1))}
    threads = [threading.Thread(target=upgrade, args=(path,), kwargs={"steps": steps, "to": 2}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ran == [0, 1]


def test_a_version_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = version_0(tmp_path / "old.perfnb")
    with pytest.raises(BadRecording, match="schema 0, which this perfnb can't upgrade"):
        upgrade(path, steps={}, to=1)
    assert read_manifest(path)["schema"] == 0


def test_what_is_still_being_written_is_not_upgraded(tmp_path: Path) -> None:
    path = version_0(tmp_path / "old.perfnb")
    writer = Recording(path, {}).writer()
    writer.write("samples", [{"time": 9}])
    with pytest.raises(BadRecording, match="still being written"):
        Recording.open(path)
    writer.close()
    assert Recording.open(path).query("SELECT count(*) AS n FROM samples")["n"][0] == 4
