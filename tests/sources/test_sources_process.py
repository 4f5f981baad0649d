"""The process source samples a real process and its child, and survives their end."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from perfnb.errors import NotReachable
from perfnb.recording import Recording
from perfnb.sources.cgroup import Limits, limits_of
from perfnb.sources.process import Process, entity, pid_listening_on

APP = Path(__file__).parents[1] / "planted" / "busy_family.py"
EVERY_LOOK = {
    "memory_rss_bytes", "threads", "context_switches_voluntary", "context_switches_involuntary", "descriptors",
    "read_bytes", "written_bytes",
}  # fmt: skip


@dataclass
class Family:
    """A running app, the port it listens on, and its busy child."""

    app: "subprocess.Popen[str]"
    port: int
    child: int


@pytest.fixture
def family() -> Iterator[Family]:
    with subprocess.Popen([sys.executable, APP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as app:
        assert app.stdout is not None
        port, child = map(int, app.stdout.readline().split())
        yield Family(app, port, child)
        assert app.stdin is not None
        app.stdin.close()


def looks(pid: int, number: int, **settings: Any) -> list[dict[str, Any]]:
    rows: list[Any] = []
    source = Process(lambda table, found: 0, pid, **settings)
    for _ in range(number):
        rows += source.look()
        time.sleep(0.05)
    return rows


def values(rows: list[dict[str, Any]], metric: str) -> dict[str, float]:
    """Return the last value of ``metric`` by entity."""
    return {row["entity"]: row["value"] for row in rows if row["metric"] == metric}


def test_parent_and_child_are_told_apart_and_together(family: Family) -> None:
    rows = looks(family.app.pid, 3)
    parent, child = entity(psutil.Process(family.app.pid)), entity(psutil.Process(family.child))
    assert parent == f"pid {family.app.pid} (busy_family.py)"
    assert {row["entity"] for row in rows} == {parent, child, f"{parent} and children"}
    assert {row["source"] for row in rows} == {"process"}
    for each in (parent, child):
        assert {row["metric"] for row in rows if row["entity"] == each} >= EVERY_LOOK | {"cpu_percent", "cpu_of_host"}
    cpu = values(rows, "cpu_percent")
    assert cpu[child] > cpu[parent], "the child burns, the parent waits"
    assert cpu[f"{parent} and children"] == pytest.approx(cpu[child] + cpu[parent])
    assert values(rows, "processes") == {f"{parent} and children": 2}
    rss = values(rows, "memory_rss_bytes")
    assert rss[f"{parent} and children"] == rss[parent] + rss[child] > 2 * 2**20
    attributes = {row["entity"]: row["attributes"] for row in rows}
    assert attributes[child] == {"pid": family.child, "parent": family.app.pid}


def test_no_command_line_is_written(family: Family) -> None:
    assert "hunter2" in " ".join(psutil.Process(family.child).cmdline())
    assert "hunter2" not in str(looks(family.app.pid, 2))


def test_unshared_memory_is_read_now_and_then_only(family: Family) -> None:
    taken = [row for row in looks(family.app.pid, 12) if row["metric"] == "memory_uss_bytes"]
    assert len(taken) == 4  # two looks of twelve, two processes each
    assert all(row["value"] > 0 and row["unit"] == "bytes" for row in taken)


def test_processor_time_is_set_against_cores_and_limit() -> None:
    ticks = iter(range(0, 10_000, 2))  # two seconds pass between any two readings
    rows = looks(os.getpid(), 2, clock=lambda: float(next(ticks)), limits=lambda pid: Limits(0.5, 2**30))
    mine = entity(psutil.Process())
    percent = values(rows, "cpu_percent")[mine]
    assert values(rows, "cpu_of_host")[mine] == pytest.approx(percent / 100 / (psutil.cpu_count() or 1))
    assert values(rows, "cpu_of_limit")[mine] == pytest.approx(percent / 100 / 0.5)
    assert values(rows, "memory_limit_bytes") == {f"{mine} and children": 2**30}


def test_it_records_until_the_process_ends(family: Family, tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    writer = recording.writer()
    with Process(writer.write, family.app.pid, interval_s=0.02) as source:
        while source.counters["looks"] < 3:
            time.sleep(0.01)
        assert source.is_alive
        assert family.app.stdin is not None
        family.app.stdin.close()
        family.app.wait(30)
        deadline = time.monotonic() + 30
        while source.is_alive and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not source.is_alive
    writer.close()
    frame = recording.query("SELECT count(*) AS n, count(DISTINCT time) AS times FROM samples WHERE source = 'process'")
    assert frame["n"][0] == source.counters["rows"] > 0
    assert frame["times"][0] >= 3


def test_a_child_that_ends_is_no_trouble(family: Family) -> None:
    source = Process(lambda table, found: 0, family.app.pid)
    source.look()
    psutil.Process(family.child).kill()
    rows = [row for _ in range(3) for row in source.look()]
    assert any(row["entity"] == f"pid {family.app.pid} (busy_family.py)" for row in rows)


def test_a_full_disk_does_not_end_it(family: Family) -> None:
    def full(table: str, rows: Any) -> int:
        raise OSError("disk full")

    with Process(full, family.app.pid, interval_s=0.01) as source:
        while source.counters["errors"] < 2:
            time.sleep(0.01)
        assert source.is_alive


def test_a_pid_there_isnt() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    source = Process(lambda table, rows: 0, ended.pid)
    assert not source.probe().works
    assert source.probe().needs
    with pytest.raises(NotReachable, match=f"no process {ended.pid}"):
        source.__enter__()


def test_a_zombie_counts_as_ended() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    with pytest.raises(psutil.NoSuchProcess):
        Process(lambda table, rows: 0, ended.pid).look()
    ended.wait()


def test_a_process_can_be_probed() -> None:
    readiness = Process(lambda table, rows: 0, os.getpid()).probe()
    assert readiness.works
    assert str(os.getpid()) in readiness.found


def test_who_listens_on_a_port(family: Family) -> None:
    assert pid_listening_on(family.port) == family.app.pid
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        assert pid_listening_on(port) == os.getpid()
    assert pid_listening_on(port) is None


def test_where_workers_share_a_port_the_parent_is_meant() -> None:
    with socket.create_server(("127.0.0.1", 0)) as shared:
        shared.set_inheritable(True)
        worker = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], close_fds=False, stdin=subprocess.PIPE
        )
        assert pid_listening_on(shared.getsockname()[1]) == os.getpid()
        worker.communicate()


@pytest.mark.parametrize(
    ("cgroup", "files", "limits"),
    [
        ("0::/a/b", {"a/b/cpu.max": "150000 100000", "a/b/memory.max": "1000"}, Limits(1.5, 1000)),
        ("0::/a/b", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, Limits(0.5, None)),
        ("0::/a", {"a/cpu.max": "200000 100000", "cpu.max": "100000 100000", "a/memory.max": "max"}, Limits(1.0, None)),
        ("0::/../x", {"x/memory.max": "77"}, Limits(None, 77)),
        ("1:cpu:/k", {"cpu/k/cpu.cfs_quota_us": "25000", "cpu/k/cpu.cfs_period_us": "100000"}, Limits(0.25, None)),
        ("1:cpu:/k", {"cpu/k/cpu.cfs_quota_us": "-1", "cpu/k/cpu.cfs_period_us": "100000"}, Limits()),
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712"}, Limits()),
        ("0::/", {}, Limits()),
    ],
)
def test_limits_are_the_tightest_of_all_groups(
    tmp_path: Path, cgroup: str, files: dict[str, str], limits: Limits
) -> None:
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "cgroup").write_text(cgroup + "\n")
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert limits_of(7, proc=tmp_path / "proc", root=tmp_path / "cgroup") == limits


def test_without_cgroups_there_are_no_limits(tmp_path: Path) -> None:
    assert limits_of(7, proc=tmp_path) == Limits()
