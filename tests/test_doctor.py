"""The doctor tells for every source and for the environment what works, and what each missing thing needs."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfnb import doctor
from perfnb.recording import TABLES
from perfnb.sources import Kind, Readiness, kinds, readiness
from perfnb.target import Request, Target


@pytest.fixture
def listening() -> Iterator[int]:
    """Listen on a port of this process, and return it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def silent() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_every_source_and_the_environment_is_examined_once() -> None:
    found = doctor.examine(Target())
    names = [each.source for each in found]
    assert names == [
        "proxy", "otlp", "front", "probe", "logs", "postgres", "pgbouncer", "metrics", "process", "stacks", "qdrant", "milvus", "redis",
        "python", "machine", "disk", "duckdb", "py-spy", "tiktoken", "demo",
    ]  # fmt: skip
    assert all(each.found for each in found)
    assert all(each.works or each.needs for each in found), "what does not work says what it needs"


def test_kinds_name_tables_there_are_and_how_to_turn_them_on() -> None:
    for kind in kinds():
        assert set(kind.writes) <= set(TABLES)
        assert kind.switch


def test_a_target_that_answers_works(listening: int, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.touch()
    url = f"http://127.0.0.1:{listening}/v1"
    target = Target(upstream=url, app=url, listen=0, requests=(Request(url),), logs=(log,))
    for look in (readiness.proxy, readiness.front, readiness.probe, readiness.logs, readiness.process):
        assert look(target).works, look(target)
    assert readiness.pid_of(target) == os.getpid()
    assert readiness.pid_of(Target(app=url, pid=7)) == 7


def test_a_target_that_does_not_answer_is_told_by_its_address(silent: int, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{silent}"
    target = Target(upstream=url, app=url, listen=0, requests=(Request(url),), logs=(tmp_path / "missing.log",))
    for look in (readiness.proxy, readiness.front, readiness.probe):
        assert f"127.0.0.1:{silent} does not answer: Connection refused" in look(target).found
        assert not look(target).works
    assert "missing.log" in readiness.logs(target).needs
    assert readiness.pid_of(target) is None


def test_a_port_that_is_taken_is_told(listening: int) -> None:
    found = readiness.front(Target(app=f"http://127.0.0.1:{listening}", listen=listening))
    assert (found.works, found.found) == (False, f"port {listening} is taken")


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://[", "http://host:notaport", "ftp://host"])
def test_an_address_that_is_none(url: str) -> None:
    assert readiness.proxy(Target(upstream=url)).found == "not an address"


def test_no_password_in_anything_it_says(silent: int, tmp_path: Path) -> None:
    url = f"http://user:hunter2@127.0.0.1:{silent}/?key=hunter2"
    target = Target(upstream=url, app=url, listen=0, requests=(Request(url),), dsn=url)
    assert "hunter2" not in str(doctor.examine(target))


def test_a_process_that_is_gone() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for look in (readiness.process, readiness.stacks):
        assert not look(Target(pid=ended.pid)).works
        assert look(Target(pid=ended.pid)).needs


def test_one_broken_source_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(target: Target) -> Readiness:
        raise RuntimeError("secret of the source")

    monkeypatch.setattr(doctor, "kinds", lambda: (Kind("broken", (), "--broken", broken), *kinds()))
    found = doctor.examine(Target())
    assert found[0] == Readiness("broken", False, "could not be looked at: RuntimeError", "--broken")
    assert len(found) > 10


def test_rank_files_are_found_where_tiktoken_looks(tmp_path: Path) -> None:
    environment = {"TIKTOKEN_CACHE_DIR": str(tmp_path)}
    assert not doctor.token_counts(environment).works
    assert str(tmp_path) in doctor.token_counts(environment).needs
    (tmp_path / ("0123456789" * 4)).touch()
    assert doctor.token_counts(environment).works
    assert doctor.rank_folders({"DATA_GYM_CACHE_DIR": "x"})[0] == Path("x")


def test_what_it_says_can_be_printed_as_json() -> None:
    json.dumps([dataclasses.asdict(each) for each in doctor.examine(Target())])
    json.dumps([vars(each) for each in doctor.examine(Target())])
