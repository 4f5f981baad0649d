"""Errors say what is wrong and what to do."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from perfnb.errors import BadRecording, NewerRecording, NotWritable, PerfnbError, WrongUse
from perfnb.recording import Recording

FULL_DISK = """
import resource, sys
from pathlib import Path
from perfnb.errors import NotWritable
from perfnb.recording import Writer
writer = Writer(Path(sys.argv[1]))
row = {"time": 1, "metric": "x" * 1000}
writer.write("samples", [row])
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    writer.write("samples", [row] * 100)
except NotWritable as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.write("samples", [{"time": 2, "metric": "after"}])
writer.close()
"""


@pytest.mark.parametrize(
    ("manifest", "error", "says"),
    [
        (None, BadRecording, "it has no recording.json"),
        ("", BadRecording, "is damaged"),
        ("{", BadRecording, "is damaged"),
        ("[1]", BadRecording, "is damaged"),
        ("\xff", BadRecording, "is damaged"),
        ("{}", BadRecording, "names no schema"),
        ('{"schema": "x"}', BadRecording, "is damaged"),
        ('{"schema": null}', BadRecording, "is damaged"),
        ('{"schema": -3}', BadRecording, "can't upgrade"),
        ('{"schema": 999}', NewerRecording, "has schema 999, this perfnb reads up to"),
    ],
)
def test_a_manifest_that_makes_no_sense(
    tmp_path: Path, manifest: str | None, error: type[PerfnbError], says: str
) -> None:
    if manifest is not None:
        (tmp_path / "recording.json").write_bytes(manifest.encode("latin-1"))
    with pytest.raises(error, match=says) as caught:
        Recording.open(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("path", ["missing.perfnb", "file", "file/below"])
def test_what_is_no_recording_is_told_so(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadRecording, match="is no recording"):
        Recording.open(tmp_path / path)


def test_a_manifest_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "recording.json").mkdir()
    with pytest.raises(BadRecording, match="can't be read"):
        Recording.open(tmp_path)


def test_nothing_is_recorded_over(tmp_path: Path) -> None:
    Recording.create(tmp_path / "x.perfnb")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for path in ("x.perfnb", "file"):
        with pytest.raises(WrongUse, match="exists already"):
            Recording.create(tmp_path / path)
    assert Recording.create(tmp_path / "empty").query("SELECT 1 AS one")["one"][0] == 1


@pytest.mark.parametrize("below", ["file/x.perfnb", "file/a/b/x.perfnb"])
def test_a_place_that_can_not_be_written(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable, match=r"can't be written: Not a directory .*--out DIR"):
        Recording.create(tmp_path / below)


def test_a_table_that_can_not_be_written(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    (recording.path / "samples").touch()  # where the table's folder should be
    with pytest.raises(NotWritable, match="samples can't be written") as caught:
        recording.writer().write("samples", [{"time": 1}])
    assert isinstance(caught.value, OSError)


def test_a_full_disk_loses_the_batch_only_and_says_what_to_do(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    ran = subprocess.run([sys.executable, "-c", FULL_DISK, recording.path], capture_output=True, text=True, check=True)
    assert "File too large (free some space, or record elsewhere: --out DIR)" in ran.stdout
    assert recording.query("SELECT time FROM samples ORDER BY time")["time"].to_list() == [1, 2]
    assert recording.torn_lines == 0


def test_sealing_on_a_full_disk_keeps_the_journal(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    folder = recording.path / "samples"
    folder.mkdir()
    journal = folder / "1-a.jsonl"
    journal.write_text("".join(json.dumps({"time": n, "metric": f"{n * 7919 % 65537}"}) + "\n" for n in range(1, 9999)))
    seal = "import sys; from perfnb.recording import Recording; Recording.open(sys.argv[1]).seal()"
    limited = subprocess.run(
        [sys.executable, "-c", seal, recording.path],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY)),
    )
    assert "NotWritable" in limited.stderr
    assert journal.exists()
    assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 9998
    recording.seal()
    assert [path.suffix for path in folder.iterdir()] == [".parquet"]
    assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 9998


def test_a_key_that_is_missing(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    assert len(recording.key) == 32
    assert (recording.path / "digest.key").stat().st_mode & 0o077 == 0
    (recording.path / "digest.key").unlink()
    with pytest.raises(BadRecording, match="missing or damaged"):
        _ = recording.key
