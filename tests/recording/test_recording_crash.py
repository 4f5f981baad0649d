"""What was acknowledged survives a writer that is killed; what was not is skipped and counted."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perfnb.recording import Recording

WRITER = Path(__file__).parents[1] / "planted" / "acknowledging_writer.py"
KILLS = 50


def numbers_in(recording: Recording) -> list[int]:
    return [int(n) for n in recording.query("SELECT value FROM samples ORDER BY value")["value"]]


def killed_at_random(path: Path, luck: random.Random) -> int:
    """Start a writer, kill it at some moment after it began to acknowledge, and return what it acknowledged last."""
    seal_at = luck.choice([2_000, 50_000, 10**9])  # sealing all the time, now and then, never
    arguments = [str(path), str(seal_at), str(luck.choice([1, 7, 300]))]
    with subprocess.Popen([sys.executable, WRITER, *arguments], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        if luck.random() < 0.8:
            time.sleep(luck.random() * 0.03)
        writer.send_signal(signal.SIGKILL)
        acknowledged = [first, *writer.stdout.read().splitlines(keepends=True)]
    return int(next(line for line in reversed(acknowledged) if line.endswith("\n")))


@pytest.mark.parametrize("kill", range(KILLS))
def test_no_acknowledged_row_is_lost_to_kill_9(tmp_path: Path, kill: int) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    last = killed_at_random(recording.path, random.Random(kill))
    found = numbers_in(recording)
    assert found == list(range(len(found))), "rows are missing or doubled before sealing"
    assert last < len(found)
    recording.seal()
    assert numbers_in(recording) == found
    assert not list(recording.path.glob("*/*.jsonl"))
    assert not list(recording.path.glob("*/*.partial"))


@pytest.mark.parametrize(
    "torn", ['{"time": 3, "metr', '{"time": 3, "metric": "x"', "{", '"', '{"time": 3, "unit": "\\ud8']
)
def test_a_torn_last_line_is_skipped_and_counted(tmp_path: Path, torn: str) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    folder = recording.path / "samples"
    folder.mkdir()
    (folder / "1-a.jsonl").write_text('{"time": 1, "metric": "a"}\n{"time": 2, "metric": "b"}\n' + torn)
    assert list(recording.query("SELECT metric FROM samples ORDER BY time")["metric"]) == ["a", "b"]
    assert recording.torn_lines == 1
    assert recording.seal() == 1
    assert list(recording.query("SELECT metric FROM samples ORDER BY time")["metric"]) == ["a", "b"]
    assert recording.torn_lines == 1


def test_a_torn_line_of_a_writer_at_work_is_not_counted(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    with recording.writer() as writer:
        writer.write("samples", [{"time": 1, "metric": "a"}])
        writer.journal("samples").append_lines(b'{"time": 2, "met')
        assert recording.torn_lines == 0
        assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 1
        writer.journal("samples").append_lines(b'ric": "b"}\n')
        assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 2
    assert recording.torn_lines == 0


def test_a_journal_with_nothing_whole_leaves_only_a_count(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    folder = recording.path / "samples"
    folder.mkdir()
    (folder / "1-empty.jsonl").touch()
    (folder / "1-torn.jsonl").write_text('{"tim')
    assert recording.seal() == 1
    assert [path.name for path in folder.iterdir()] == ["1-torn.torn"]
    assert not recording.has("samples")


def test_a_sealer_killed_before_it_removed_the_journal_doubles_nothing(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    with recording.writer() as writer:
        writer.write("samples", [{"time": n, "metric": "a"} for n in range(1, 11)])
        journal = next((recording.path / "samples").glob("*.jsonl"))
        lines = journal.read_bytes()
    journal.write_bytes(lines)
    assert journal.with_suffix(".parquet").exists()
    assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 10
    recording.seal()
    assert not journal.exists()
    assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 10


def test_what_a_killed_sealer_left_half_written_is_no_evidence(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    folder = recording.path / "samples"
    folder.mkdir()
    (folder / "1-a.jsonl").write_text('{"time": 1, "metric": "a"}\n')
    (folder / "1-a.partial").write_bytes(b"PAR1 half")
    assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 1
    recording.seal()
    assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 1
    assert not (folder / "1-a.partial").exists()
