"""Many writers, readers and sealers at once; and writers in forked children."""

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

from perfnb.recording import Recording, Writer

WRITER = Path(__file__).parents[1] / "planted" / "numbered_writer.py"
WRITERS, ROWS, BATCH, SEAL_AT = 4, 100_000, 20, 400_000


def test_four_writers_of_100_000_rows_and_a_reader(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    assert not recording.has("samples")
    command = [sys.executable, WRITER, recording.path]
    writers = [subprocess.Popen([*command, f"writer {n}", str(ROWS), str(BATCH), str(SEAL_AT)]) for n in range(WRITERS)]
    counts: list[int] = []
    while any(writer.poll() is None for writer in writers):
        frame = recording.query("SELECT count(*) AS n, count(DISTINCT (entity, value)) AS d FROM samples")
        assert frame["n"][0] == frame["d"][0], "a row was seen twice"
        counts.append(int(frame["n"][0]))
    assert [writer.returncode for writer in writers] == [0] * WRITERS
    assert counts == sorted(counts), "rows that were seen have gone"
    assert len(set(counts)) > 2, "the reader saw no progress"
    assert len(list(recording.path.glob("samples/*.parquet"))) > WRITERS, "nothing was sealed under the reader"
    whole = recording.query("SELECT entity, count(*) AS n, count(DISTINCT value) AS d FROM samples GROUP BY entity")
    assert whole["n"].to_list() == whole["d"].to_list() == [ROWS] * WRITERS
    assert not list(recording.path.glob("samples/*.jsonl"))


def test_sealers_racing_for_the_same_journals_lose_and_double_nothing(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    folder = recording.path / "samples"
    folder.mkdir()
    for file in range(12):
        lines = [f'{{"time": {n}, "entity": "{file}", "value": {n}}}\n' for n in range(1, 51)]
        (folder / f"1-{file}.jsonl").write_text("".join(lines) + '{"torn')
    torn: list[int] = []
    sealers = [threading.Thread(target=lambda: torn.append(Recording.open(recording.path).seal())) for _ in range(6)]
    for sealer in sealers:
        sealer.start()
    while any(sealer.is_alive() for sealer in sealers):
        assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 600
    assert sum(torn) == recording.torn_lines == 12
    assert recording.query("SELECT count(DISTINCT (entity, value)) AS n FROM samples")["n"][0] == 600
    assert sorted(path.suffix for path in folder.iterdir()) == [".parquet"] * 12 + [".torn"] * 12


def test_sealing_all_the_time_takes_nothing_from_a_writer_that_just_began(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    stop = threading.Event()

    def seal() -> None:
        while not stop.is_set():
            Recording.open(recording.path).seal()

    sealer = threading.Thread(target=seal)
    sealer.start()
    for n in range(200):  # each has a journal of its own, whose first moment has no lock
        Writer(recording.path).write("samples", [{"time": n + 1, "value": n}])
    stop.set()
    sealer.join()
    assert recording.query("SELECT value FROM samples ORDER BY value")["value"].to_list() == list(range(200))


def test_a_journal_at_work_is_not_sealed_by_others(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    writer = recording.writer()
    writer.write("samples", [{"time": 1}])
    Recording.open(recording.path).seal()
    assert len(list(recording.path.glob("samples/*.jsonl"))) == 1
    writer.close()
    assert [path.suffix for path in (recording.path / "samples").iterdir()] == [".parquet"]


def test_a_writer_goes_on_after_close(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    writer = recording.writer()
    for n in range(3):
        writer.write("samples", [{"time": n + 1}])
        writer.close()
        writer.close()
    assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 3


def write_in_child(writer: Writer, recording: Recording) -> None:
    writer.write("samples", [{"time": 2, "metric": "child"}])
    recording.add_event("note", "child")
    assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 2
    os._exit(0)  # without closing: the rows must stand all the same


def test_a_forked_child_writes_its_own_journal_and_leaves_the_parent_its_lock(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    writer = recording.writer()
    writer.write("samples", [{"time": 1, "metric": "parent"}])
    recording.add_event("note", "parent")
    assert recording.has("samples")  # the child inherits an open reader
    child = multiprocessing.get_context("fork").Process(target=write_in_child, args=(writer, recording))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    names = {path.name.partition("-")[0] for path in recording.path.glob("samples/*.jsonl")}
    assert names == {str(os.getpid()), str(child.pid)}
    Recording.open(recording.path).seal()  # takes the child's journal, not the parent's
    writer.write("samples", [{"time": 3, "metric": "parent"}])
    writer.close()
    rows = recording.query("SELECT metric FROM samples ORDER BY time")["metric"]
    assert rows.to_list() == ["parent", "child", "parent"]
    assert sorted(recording.query("SELECT title FROM events")["title"]) == ["child", "parent"]


def test_a_child_that_outlives_its_parent_holds_no_lock_on_the_parents_journal(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from perfnb.recording import Writer\n"
        "writer = Writer(Path(sys.argv[1]))\n"
        "writer.write('samples', [{'time': 1}])\n"
        "if os.fork() == 0:\n"
        "    os.close(1)\n"
        "    sys.stdin.read()\n"
        "os._exit(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, recording.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.read()
        parent.wait(30)
        recording.seal()  # the grandchild still waits for its input to end
        assert [path.suffix for path in (recording.path / "samples").iterdir()] == [".parquet"]


def test_threads_share_a_writer(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    with Writer(recording.path, seal_at_bytes=5_000) as writer:

        def write(first: int) -> None:
            for n in range(first, first + 200):
                writer.write("samples", [{"time": n + 1, "value": n}])

        threads = [threading.Thread(target=write, args=(first,)) for first in range(0, 1000, 200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert recording.query("SELECT value FROM samples ORDER BY value")["value"].to_list() == list(range(1000))


def test_events_stand_at_once_and_share_one_file(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    for n in range(5):
        recording.add_event("note", f"note {n}", {"n": n})
        assert recording.query("SELECT count(*) AS n FROM events")["n"][0] == n + 1
        assert Recording.open(recording.path).query("SELECT count(*) AS n FROM events")["n"][0] == n + 1
    recording.close()
    assert len(list((recording.path / "events").iterdir())) == 1
    assert recording.query("SELECT count(*) AS n FROM events")["n"][0] == 5
