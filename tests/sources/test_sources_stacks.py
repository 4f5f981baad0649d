"""py-spy really samples planted apps: what rows hold, how trouble is told, and the sums that share out a window."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfnb.errors import NotInstalled, NotPermitted, NotReachable
from perfnb.recording import Recording
from perfnb.sources.pyspy import PySpy, Samples, counted, failure, how_to_be_permitted, looks_in
from perfnb.sources.stacks import Rhythm, Stacks, look_rows, profile_rows, python_processes, shared

APP = Path(__file__).parents[1] / "planted" / "loop_app.py"
QUICK = Rhythm(looks=6, look_hz=8, window_s=1, waiting_s=1, rate_hz=50)
BLOCKED = "fetch_the_slow_way (planted/loop_app.py:15)"
NOTHING: Any = lambda table, rows: 0  # noqa: E731 - an Emit that drops


@contextmanager
def app(*arguments: str, program: str = sys.executable) -> Iterator["subprocess.Popen[str]"]:
    """Run the planted app, or another that prints a line when it is up and ends with its input."""
    with subprocess.Popen(
        [program, *(arguments[1:] if arguments[0] == "-" else (APP, *arguments))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def recorded(folder: Path, fault: str, *, windows: int = 1) -> pd.DataFrame:
    """Return the rows that sampling the planted app wrote."""
    recording = Recording.create(folder / "x.perfnb")
    with app(fault) as process, recording.writer() as writer:
        with Stacks(writer.write, process.pid, rhythm=QUICK) as source:
            until = time.monotonic() + 60
            while source.counters["windows"] < windows and time.monotonic() < until:
                time.sleep(0.05)
        assert source.counters["rows"] > 0
    frame = recording.query("SELECT * FROM stacks ORDER BY time, thread")
    assert len(frame) == source.counters["rows"]
    return frame.assign(pid_is_right=frame["pid"] == process.pid)


def test_a_blocked_loop_is_seen_in_looks_and_samples(tmp_path: Path) -> None:
    rows = recorded(tmp_path, "blocked")
    assert rows["pid_is_right"].all()
    looks = rows[(rows["mode"] == "dump") & (rows["thread"] == "MainThread")]
    assert len(looks) >= QUICK.looks
    assert (looks["samples"] == 1).all()
    assert (looks["period_ms"] == 125).all()
    assert looks["stack"].str.endswith(BLOCKED).mean() > 0.5, "the loop is held 95 % of the time"
    assert looks["stack"].str.contains(r"_run_once \(python3\.\d+/asyncio/base_events\.py:\d+\);", regex=True).all()
    profile = rows[(rows["mode"] == "profile") & (rows["thread"] == "MainThread")]
    held = profile[profile["stack"].str.endswith(BLOCKED)]
    assert held["samples"].sum() / profile["samples"].sum() > 0.5
    assert held.loc[~held["on_cpu"], "samples"].sum() > held.loc[held["on_cpu"], "samples"].sum(), "it sleeps"


def test_a_hot_thread_is_on_the_processor_and_holds_the_lock(tmp_path: Path) -> None:
    rows = recorded(tmp_path, "hot")
    hot = rows[rows["thread"] == "hot;worker"]
    assert hot["stack"].str.contains("count_tokens_again_and_again (planted/loop_app.py:", regex=False).all()
    looks = hot[hot["mode"] == "dump"]
    assert looks["on_cpu"].mean() > 0.5
    assert looks["holds_gil"].mean() > 0.5
    profile = rows[rows["mode"] == "profile"]
    on_cpu = profile[profile["on_cpu"]].groupby("thread")["samples"].sum()
    assert on_cpu.idxmax() == "hot;worker"
    assert profile["holds_gil"].isna().all()


def test_every_thread_of_a_window_adds_up_to_the_window(tmp_path: Path) -> None:
    rows = recorded(tmp_path, "both", windows=2)
    profile = rows[rows["mode"] == "profile"]
    sums = profile.groupby(["time", "thread"])["samples"].sum().unstack()
    assert (sums.nunique(axis="columns") == 1).all()
    assert {"MainThread", "hot;worker", "input"} <= set(sums.columns)
    lengths = (profile["samples"] * profile["period_ms"]).groupby([profile["time"], profile["thread"]]).sum()
    assert lengths.max() <= 1_100


def test_neither_locals_nor_folders_of_the_user_are_written(tmp_path: Path) -> None:
    rows = recorded(tmp_path, "both")
    text = " ".join(rows["stack"])
    assert str(Path.home()) not in text
    assert all(not path.startswith("/") for path in rows["stack"].str.extractall(r"\(([^()]*):\d+\)")[0])


def test_sampling_ends_with_the_process_and_leaves_nothing_running() -> None:
    with app("quiet") as process, Stacks(NOTHING, process.pid, rhythm=QUICK) as source:
        while not source.counters["looks"]:
            time.sleep(0.01)
        process.kill()  # and not waited for: a zombie has ended, too
        until = time.monotonic() + 30
        while source.is_alive and time.monotonic() < until:
            time.sleep(0.05)
        assert not source.is_alive
    assert [child.name() for child in psutil.Process().children() if child.name() == "py-spy"] == []


def test_stopping_in_the_middle_of_a_window_keeps_what_was_sampled(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    rhythm = Rhythm(looks=1, window_s=30, waiting_s=30)
    with app("hot") as process, recording.writer() as writer:
        with Stacks(writer.write, process.pid, rhythm=rhythm) as source:
            while not any(child.name() == "py-spy" and "record" in child.cmdline() for child in _children()):
                time.sleep(0.01)
            time.sleep(1)
        assert not source.is_alive
        assert source.counters["windows"] == 1
    seconds = recording.query(
        "SELECT sum(samples * period_ms) / 1000 AS s FROM stacks WHERE thread = 'hot;worker' AND mode = 'profile'"
    )["s"][0]
    assert 0.3 < seconds < 20


def _children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def test_children_that_run_python_are_sampled_and_others_not(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        f"worker = subprocess.Popen([sys.executable, {str(APP)!r}, 'blocked'], stdin=subprocess.PIPE)\n"
        "other = subprocess.Popen(['sleep', '60'])\n"
        "print(worker.pid, other.pid, flush=True)\n"
        "sys.stdin.read()\n"
        "other.kill(), other.wait(), worker.communicate()\n"
    )
    recording = Recording.create(tmp_path / "x.perfnb")
    with app("-", "-c", script) as parent, recording.writer() as writer:
        until = time.monotonic() + 60
        with Stacks(writer.write, parent.pid, rhythm=QUICK) as source:
            while source.counters["windows"] < 2 and time.monotonic() < until:
                time.sleep(0.05)
        (worker,) = set(python_processes(parent.pid)) - {parent.pid}
    rows = recording.query("SELECT DISTINCT pid, mode FROM stacks ORDER BY pid, mode")
    assert set(rows["pid"]) == {parent.pid, worker}
    assert len(rows) == 4, "both modes for both"


def test_a_command_that_runs_no_python_is_waited_for() -> None:
    with app("-", "-c", "echo up; read line", program="/bin/sh") as shell:
        readiness = Stacks(NOTHING, shell.pid).probe()
        assert readiness.works
        assert "no Python yet" in readiness.found
        with Stacks(NOTHING, shell.pid, rhythm=QUICK) as source:
            while not source.counters["errors"]:
                time.sleep(0.01)
            assert source.is_alive


def test_probing_tells_what_it_sees() -> None:
    with app("quiet") as process:
        readiness = Stacks(NOTHING, process.pid).probe()
    assert readiness.works
    assert readiness.found == f"pid {process.pid}, 2 Python threads"


def test_a_pid_there_isnt() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not Stacks(NOTHING, ended.pid).probe().works
    with pytest.raises(NotReachable, match=f"no process {ended.pid}"):
        Stacks(NOTHING, ended.pid).__enter__()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to give its rights away")
def test_what_may_not_be_looked_at_is_told_with_the_one_thing_to_do() -> None:
    found = PySpy.find()
    nobody = PySpy(found._program, prefix=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
    with app("quiet") as process:
        with pytest.raises(NotPermitted, match="may not look into") as caught:
            nobody.look(process.pid)
        assert caught.value.hint
        with pytest.raises(NotPermitted):
            nobody.sample(process.pid, 1, 10, idle=False, stop=threading.Event())
        readiness = Stacks(NOTHING, process.pid, py_spy=nobody).probe()
        assert not readiness.works
        assert readiness.needs == caught.value.hint
        with pytest.raises(NotPermitted):
            Stacks(NOTHING, process.pid, py_spy=nobody).__enter__()


def test_without_py_spy_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match="pip install py-spy"):
        PySpy.find(str(tmp_path / "python"))


def test_a_process_that_does_not_answer_is_given_up_in_time() -> None:
    stuck = PySpy(Path("/bin/sleep"), prefix=["/bin/sh", "-c", "exec sleep 60"], grace_s=0.2)
    with pytest.raises(NotReachable, match="no answer"):
        stuck.look(1)


def test_the_rate_and_the_length_are_bounded(tmp_path: Path) -> None:
    said = tmp_path / "said"
    echo = PySpy(Path("record"), prefix=["/bin/sh", "-c", f'echo "$@" > {said}; false', "sh"])
    with pytest.raises(NotReachable, match="ended without a word"):
        echo.sample(1, 3_600, 5_000, idle=True, stop=threading.Event())
    words = said.read_text().split()
    assert words[words.index("--rate") + 1] == "100"
    assert words[words.index("--duration") + 1] == "30"
    assert {"--nonblocking", "--idle"} <= set(words)
    assert "--locals" not in words


def test_a_sampler_that_hangs_is_killed() -> None:
    script = "trap '' INT; echo $$ >&2; while :; do sleep 0.1; done"
    deaf = PySpy(Path("record"), prefix=["/bin/sh", "-c", script, "sh"], grace_s=0.2)
    stop = threading.Event()
    stop.set()
    with pytest.raises(NotReachable) as caught:
        deaf.sample(1, 30, 10, idle=True, stop=stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int(caught.value.message.rsplit(" ", 1)[1]), signal.SIGCONT)


@pytest.mark.parametrize(
    ("stderr", "error", "says"),
    [
        (
            "Permission Denied: Try running again with elevated permissions by going 'sudo'",
            NotPermitted,
            "may not look",
        ),
        (
            "Error: Failed to open process\n\nCaused by: Operation not permitted (os error 1)",
            NotPermitted,
            "may not look",
        ),
        (
            "Error: Failed to get process executable name. Check that the process is running.\n\nCaused by:\n"
            "    0: Permission denied (os error 13)\n\nStack backtrace:\n   0: x",
            NotPermitted,
            "may not look",
        ),
        (
            "Error: Failed to get process executable name. Check that the process is running.\n\nCaused by:\n"
            "    0: No such file or directory (os error 2)\n\nStack backtrace:\n   0: x",
            NotReachable,
            "no process 7",
        ),
        ("Error: Failed to find python version from target process\n", NotReachable, "runs no Python"),
        ("Error: something new\nmore", NotReachable, "py-spy failed on pid 7: something new"),
        ("", NotReachable, "ended without a word"),
    ],
)
def test_what_py_spy_complains_of_becomes_one_error(stderr: str, error: type[Exception], says: str) -> None:
    made = failure(7, stderr)
    assert type(made) is error
    assert says in made.message
    assert made.hint


@pytest.mark.parametrize(
    ("files", "uid", "hint"),
    [
        ({".dockerenv": ""}, 1000, "cap_add: [SYS_PTRACE]"),
        ({}, 0, "cap_add: [SYS_PTRACE]"),
        ({"proc/sys/kernel/yama/ptrace_scope": "1\n"}, os.getuid() + 1, "sudo sysctl kernel.yama.ptrace_scope=0"),
        ({"proc/sys/kernel/yama/ptrace_scope": "0\n"}, os.getuid() + 1, "run perfnb as root"),
        ({"proc/7": None}, os.getuid() + 1, "run perfnb as the user of pid 7"),
    ],
)
def test_the_hint_fits_the_place(tmp_path: Path, files: dict[str, str | None], uid: int, hint: str) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if text is None else path.write_text(text)
    assert hint in how_to_be_permitted(7, root=tmp_path, uid=lambda: uid)


def frame(name: str, line: int = 1, file: str = "/srv/shop/a.py") -> dict[str, Any]:
    return {"name": name, "filename": file, "line": line, "locals": [{"name": "key", "repr": "hunter2"}]}


def thread(name: str | None, number: int, *frames: dict[str, Any], active: bool = True) -> dict[str, Any]:
    return {
        "thread_name": name, "os_thread_id": number, "thread_id": 9, "active": active, "owns_gil": False,
        "frames": list(frames),
    }  # fmt: skip


def test_looks_are_root_first_named_and_without_locals() -> None:
    looks = looks_in(
        [
            thread("MainThread", 1, frame("leaf", 5), frame("Root.run", 0)),
            thread("Thread-1", 2, frame("a;b")),
            thread("Thread-1", 3, frame("a")),
            thread(None, 4, frame("a"), active=False),
            thread("native", 5),
        ]
    )
    rows = look_rows(7, 99, looks, 125.0)
    assert [(row["thread"], row["stack"], row["on_cpu"]) for row in rows] == [
        ("MainThread", "Root.run (shop/a.py);leaf (shop/a.py:5)", True),
        ("Thread-1 2", "a,b (shop/a.py:1)", True),
        ("Thread-1 3", "a (shop/a.py:1)", True),
        ("4", "a (shop/a.py:1)", False),
    ]
    assert "hunter2" not in str(rows)


def test_raw_samples_are_given_to_their_threads() -> None:
    raw = (
        "thread (11): MainThread;<module> (/home/al/app.py:3);run (/srv/a (b)/x.py:4) 5\n"
        "thread (12): odd; name;work (/usr/lib/python3.12/threading.py:9) 2\n"
        "thread (13);work (/srv/shop/w.py:1) 1\n"
        "thread (14): bare 4\n"
        " 8\n"
    )
    assert counted(raw) == {
        ("MainThread", ("<module> (app.py:3)", "run (a (b)/x.py:4)")): 5,
        ("odd;name", ("work (python3.12/threading.py:9)",)): 2,
        ("13", ("work (shop/w.py:1)",)): 1,
    }


BUSY, WAIT = ("main", "busy"), ("main", "wait")


def summed(rows: list[Any]) -> dict[tuple[str, str, bool], int]:
    return {(row["thread"], row["stack"], row["on_cpu"]): row["samples"] for row in rows}


def test_a_window_is_shared_out_between_running_and_waiting() -> None:
    busy = Samples(2.0, 50, {("T", BUSY): 30})
    both = Samples(1.0, 50, {("T", BUSY): 15, ("T", WAIT): 35, ("U", WAIT): 50})
    assert summed(profile_rows(7, 1, busy, both)) == {
        ("T", "main;busy", True): 30,
        ("T", "main;wait", False): 70,
        ("U", "main;wait", False): 100,
    }


def test_a_sampler_short_of_time_stretches_its_period() -> None:
    busy = Samples(2.0, 50, {("T", BUSY): 20})
    both = Samples(2.0, 50, {("T", BUSY): 20, ("T", WAIT): 30})  # 50 of 100 looks were taken
    rows = profile_rows(7, 1, busy, both)
    assert summed(rows) == {("T", "main;busy", True): 20, ("T", "main;wait", False): 30}
    assert {row["period_ms"] for row in rows} == {40.0}


def test_what_nobody_saw_waiting_is_called_waiting() -> None:
    rows = profile_rows(7, 1, Samples(1.0, 10, {("T", BUSY): 4}), Samples(0.0, 10, {}))
    assert summed(rows) == {("T", "main;busy", True): 4, ("T", "(waiting)", False): 6}


@settings(deadline=None)
@given(st.integers(0, 10**6), st.dictionaries(st.text(min_size=1).map(lambda t: (t,)), st.floats(0.001, 1e6)))
def test_sharing_out_neither_loses_nor_makes_samples(samples: int, weights: dict[tuple[str, ...], float]) -> None:
    given_out = shared(samples, weights)
    assert sum(given_out.values()) == samples
    assert all(count > 0 for count in given_out.values())
    whole = sum(weights.values())
    for stack, weight in weights.items():
        assert abs(given_out.get(stack, 0) - samples * weight / whole) <= 1
