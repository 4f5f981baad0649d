import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from perfnb.demo.keeper import Child, Keeper
from perfnb.errors import NotReachable

SLEEPER = "import time; print('awake', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True)); " + SLEEPER


def child(folder: Path, code: str, **options: object) -> Child:
    return Child("sleeper", [sys.executable, "-c", code], folder / "log", **options)


def until(condition: object, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_child_runs_inside_the_block_and_is_gone_after(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Keeper(child(tmp_path, SLEEPER, remove=(scratch,))) as keeper:
        assert until(lambda: "awake" in keeper.last_lines())
        assert psutil.pid_exists(keeper.pid)
        assert keeper.is_alive
        assert not keeper.wait(0.05)
    assert not psutil.pid_exists(keeper.pid)
    assert not keeper.is_alive
    assert not scratch.exists()


def test_a_child_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    with Keeper(child(tmp_path, "print('bye')")) as keeper:
        assert keeper.wait(10)
        assert keeper.last_lines() == "bye"


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotReachable, match="sleeper can't be started"):
        Keeper(Child("sleeper", ["/no/such/program"], tmp_path / "log")).__enter__()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the kernel to tell children")
def test_a_child_dies_with_its_keeper(tmp_path: Path) -> None:
    with Keeper(child(tmp_path, SLEEPER)) as keeper:
        os.kill(psutil.Process(keeper.pid).ppid(), signal.SIGKILL)
        assert until(lambda: not psutil.pid_exists(keeper.pid))


def test_a_child_dies_with_whoever_started_its_keeper(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from perfnb.demo.keeper import Child, Keeper\n"
        f"keeper = Keeper(Child('x', [sys.executable, '-c', {SLEEPER!r}], Path({str(tmp_path / 'log')!r}))).__enter__()\n"
        "print(keeper.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert until(lambda: not psutil.pid_exists(pid))


def test_the_stop_signal_comes_first(tmp_path: Path) -> None:
    with Keeper(child(tmp_path, STUBBORN, stop_signal=signal.SIGINT)) as keeper:
        assert until(lambda: "awake" in keeper.last_lines())
    assert "KeyboardInterrupt" in keeper.last_lines()
