"""What recipes run against: the simulated provider, a real Redis, a real Postgres, a real tokenizer."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import tiktoken
from recipe_book import Book
from watched_provider import WatchedProvider, watched_provider

from perfnb.demo.postgres import Postgres


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def provider() -> Iterator[WatchedProvider]:
    with watched_provider() as running:
        yield running


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A real Redis behind a socket."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    socket = tmp_path / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not socket.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield f"unix://{socket}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Postgres with pgvector."""
    with Postgres(tmp_path_factory.mktemp("postgres") / "log") as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        yield server.dsn


@pytest.fixture(scope="session")
def encoding() -> tiktoken.Encoding:
    """A tokenizer of 260 tokens: tiktoken's own would be downloaded."""
    merged = {b"th": 256, b"the": 257, b" t": 258, b" the": 259}
    ranks = {bytes([number]): number for number in range(256)} | merged
    return tiktoken.Encoding("tiny", pat_str=r" ?\w+|\s+|[^\w\s]+", mergeable_ranks=ranks, special_tokens={})
