import os
import subprocess
import tempfile
from pathlib import Path

import psutil
import psycopg
import pytest

from perfnb.demo.postgres import DATABASE, FOLDER, Postgres, cache_folder, sweep, unpack_server
from perfnb.errors import NotPermitted, NotReachable


def scratch_folders() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob(f"perfnb-postgres-{os.getpid()}-*")}


def test_a_server_with_the_extensions_for_as_long_as_the_block(tmp_path: Path) -> None:
    before = scratch_folders()
    with Postgres(tmp_path / "log") as server, psycopg.connect(server.dsn, autocommit=True) as connection:
        for extension in ("vector", "pg_stat_statements"):
            connection.execute(f"CREATE EXTENSION {extension}")
        version, name, encoding = connection.execute(
            "SELECT current_setting('server_version_num')::int, current_database(), current_setting('server_encoding')"
        ).fetchone()
        assert version >= 180000
        assert (name, encoding) == (DATABASE, "UTF8")
        assert connection.execute("SELECT '[1,0]'::vector <=> '[0,1]'::vector").fetchone() == (1.0,)
        assert connection.execute("SELECT count(*) > 0 FROM pg_stat_statements").fetchone() == (True,)
        if os.geteuid() == 0:
            assert psutil.Process(server.pid).username() == "nobody"
        family = [server.pid, *(child.pid for child in psutil.Process(server.pid).children())]
    assert len(family) > 3
    assert not any(psutil.pid_exists(pid) for pid in family)
    assert scratch_folders() <= before


def test_only_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left, running, ours = (
        tmp_path / f"{FOLDER}{name}" for name in (f"{gone.pid}-a", f"{gone.pid}-b", f"{os.getpid()}-c")
    )
    for folder in (left, running / "data", ours, tmp_path / f"{FOLDER}x"):
        folder.mkdir(parents=True)
    (running / "data/postmaster.pid").touch()
    assert sweep(tmp_path) == [left]
    assert not left.exists()
    assert running.exists()
    assert ours.exists()


def test_two_servers_do_not_meet(tmp_path: Path) -> None:
    with Postgres(tmp_path / "one") as one, Postgres(tmp_path / "two") as two:
        assert one.dsn.rpartition("@")[2] != two.dsn.rpartition("@")[2]
        with psycopg.connect(one.dsn) as connection:
            connection.execute("CREATE TABLE here ()")
        with psycopg.connect(two.dsn) as connection:
            assert connection.execute("SELECT to_regclass('here')").fetchone() == (None,)


def test_others_need_the_password(tmp_path: Path) -> None:
    with Postgres(tmp_path / "log") as server:
        without = server.dsn.replace(server.dsn.split(":")[2].split("@")[0], "guess")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(without)


def test_settings_reach_the_server_and_bad_ones_are_told_with_its_words(tmp_path: Path) -> None:
    with Postgres(tmp_path / "log", settings={"work_mem": "7MB"}) as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
    before = scratch_folders()
    with pytest.raises(NotReachable, match="no_such_setting") as caught:
        Postgres(tmp_path / "bad", settings={"no_such_setting": "1"}).__enter__()
    assert str(tmp_path / "bad") in caught.value.hint
    assert scratch_folders() <= before


def test_a_second_start_finds_the_server_unpacked(tmp_path: Path) -> None:
    unpack_server(tmp_path)

    def refuse(*_: object, **__: object) -> "subprocess.CompletedProcess[str]":
        raise AssertionError("unpacked again")

    server = unpack_server(tmp_path, run=refuse)
    assert (server / "bin/postgres").exists()
    assert [path.name for path in tmp_path.iterdir()] == [server.name]


def test_a_machine_that_does_not_let_us_change_users_is_told(tmp_path: Path) -> None:
    def forbid(*_: object, **__: object) -> "subprocess.CompletedProcess[str]":
        raise PermissionError("setuid")

    with pytest.raises(NotPermitted, match="setuid"):
        unpack_server(tmp_path, run=forbid)


def test_a_failing_command_is_told_with_its_last_words(tmp_path: Path) -> None:
    def fail(*args: object, **__: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(args, 1, "", "no space left on device")

    with pytest.raises(NotReachable, match="no space left"):
        unpack_server(tmp_path, run=fail)


@pytest.mark.parametrize(
    ("environment", "folder"),
    [({"XDG_CACHE_HOME": "/somewhere"}, Path("/somewhere/perfnb")), ({}, Path.home() / ".cache/perfnb")],
)
def test_the_cache_is_where_caches_belong(environment: dict[str, str], folder: Path) -> None:
    assert cache_folder(environment) == folder
