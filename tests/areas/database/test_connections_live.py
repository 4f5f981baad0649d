"""Troubles of connections and locks staged on a real server, and their healthy twins."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
from builders import call, request
from psycopg_pool import ConnectionPool, PoolTimeout
from servers import postgres_18
from session_rows import sample

from perfnb.areas.database.connections import no_connection_pool, pool_too_large
from perfnb.areas.database.exhaustion import pool_exhausted
from perfnb.areas.database.held import connection_held_during_model_call, match
from perfnb.areas.database.locks import deadlocks, lock_tree, lock_waits_check
from perfnb.areas.database.pools import pool_demand
from perfnb.areas.database.refusals import CLOSED, DEADLOCK, POOL_TIMEOUT, TOO_MANY, kind_of
from perfnb.areas.database.stale import stale_connections
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.sources.postgres.source import Intervals, Postgres

OBJECTIVES = Objectives.load(Path(__file__).parent)
EVERY = Intervals(activity_s=0.2, samples_s=0.4, statements_s=1.0, catalog_s=60.0)
SECONDS = 3.0

Work = Callable[["Staged"], None]


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with postgres_18({"max_connections": "40"}) as made:
        with psycopg.connect(made, autocommit=True) as connection:
            connection.execute("CREATE TABLE desk (id int PRIMARY KEY, seen int NOT NULL)")
            connection.execute("INSERT INTO desk SELECT number, 0 FROM generate_series(1, 50) AS number")
        yield made


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """A model that takes half a second."""

    class Model(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(0.5)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class Staged:
    """Notes requests and model calls as a front and a proxy would."""

    def __init__(self, model: str = "") -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {"http_requests": [], "llm_calls": []}
        self._model = model

    @contextmanager
    def asked(self) -> Iterator[None]:
        began, clock = time.time_ns(), time.perf_counter()
        status = 200
        try:
            yield
        except Exception:
            status = 500
            raise
        finally:
            ms = (time.perf_counter() - clock) * 1000
            self.rows["http_requests"].append(request(0, ms, start_time=began, status_code=status, stream=False))

    def ask_model(self) -> None:
        began, clock = time.time_ns(), time.perf_counter()
        urlopen(self._model).close()
        self.rows["llm_calls"].append(call(0, (time.perf_counter() - clock) * 1000, start_time=began))


@contextmanager
def recorded(folder: Path, dsn: str, staged: Staged) -> Iterator[Recording]:
    """Record the server for as long as the block lasts; what was staged is in the recording afterwards."""
    made = Recording.create(folder / "live.perfnb")
    with made.writer() as writer, Postgres(writer.write, dsn, intervals=EVERY):
        yield made
    with made.writer() as writer:
        for table, rows in staged.rows.items():
            writer.write(table, rows)


def users(count: int, staged: Staged, work: Work, seconds: float = SECONDS) -> None:
    """Let ``count`` users ask one thing after another."""
    until = time.monotonic() + seconds

    def user() -> None:
        while time.monotonic() < until:
            try:
                with staged.asked():
                    work(staged)
            except (psycopg.Error, PoolTimeout):
                time.sleep(0.05)

    with ThreadPoolExecutor(count) as pool:
        for each in [pool.submit(user) for _ in range(count)]:
            each.result()


@pytest.mark.parametrize("released", [False, True])
def test_a_transaction_open_while_the_model_answers(tmp_path: Path, dsn: str, model: str, released: bool) -> None:
    staged = Staged(model)
    with ConnectionPool[Any](dsn, min_size=6, max_size=6, open=True) as pool:

        def work(staged: Staged) -> None:
            with pool.connection() as connection:
                connection.execute("SELECT seen FROM desk WHERE id = 1").fetchone()
                if not released:
                    staged.ask_model()
            if released:
                staged.ask_model()

        with recorded(tmp_path, dsn, staged) as made:
            users(4, staged, work)
    answer = connection_held_during_model_call(made, OBJECTIVES)
    if released:
        assert isinstance(answer, Clear)
        assert match(made).held == 0
        return
    assert isinstance(answer, Finding)
    assert answer.share > 0.5
    demand = pool_demand(made)
    assert demand.hold_ms > 250
    assert demand.sql_ms < demand.hold_ms / 3
    assert isinstance(no_connection_pool(made, OBJECTIVES), Clear)


@pytest.mark.parametrize("released", [False, True])
def test_a_connection_kept_without_a_transaction(tmp_path: Path, dsn: str, model: str, released: bool) -> None:
    staged = Staged(model)
    staged.rows["samples"] = []
    with ConnectionPool[Any](dsn, min_size=6, max_size=6, kwargs={"autocommit": True}, open=True) as pool:

        def work(staged: Staged) -> None:
            with pool.connection() as connection:
                connection.execute("SELECT seen FROM desk WHERE id = 1").fetchone()
                if not released:
                    staged.ask_model()
            if released:
                staged.ask_model()
            time.sleep(random.uniform(0, 1.5))

        def read_the_pool(stopped: threading.Event) -> None:
            while not stopped.wait(0.1):
                told = pool.get_stats()
                used = told["pool_size"] - told["pool_available"]
                state = {"db.client.connection.state": "used"}
                staged.rows["samples"].append(
                    sample(0, "db.client.connection.count", used, source="otlp", entity="app", attributes=state)
                    | {"time": time.time_ns()}
                )

        stopped = threading.Event()
        reader = threading.Thread(target=read_the_pool, args=(stopped,))
        with recorded(tmp_path, dsn, staged) as made:
            reader.start()
            users(4, staged, work, seconds=6)
            stopped.set()
            reader.join()
    answer = connection_held_during_model_call(made, OBJECTIVES)
    assert isinstance(answer, Clear if released else Finding), answer
    if isinstance(answer, Finding):
        assert "kept out of the pool" in answer.title


@pytest.mark.parametrize("pooled", [False, True])
def test_a_connection_for_each_request(tmp_path: Path, dsn: str, pooled: bool) -> None:
    staged = Staged()

    def work(staged: Staged) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT seen FROM desk WHERE id = 1")
        time.sleep(0.1)

    with recorded(tmp_path, dsn, staged) as made, ConnectionPool[Any](dsn, min_size=1, max_size=4, open=True) as pool:

        def work_pooled(staged: Staged) -> None:
            with pool.connection() as connection:
                connection.execute("SELECT seen FROM desk WHERE id = 1")
            time.sleep(0.1)

        users(3, staged, work_pooled if pooled else work)
    answer = no_connection_pool(made, OBJECTIVES)
    assert isinstance(answer, Clear if pooled else Finding), answer
    if isinstance(answer, Finding):
        assert "seen by counters" in answer.evidence[0]
        assert answer.share > 0.7


@pytest.mark.parametrize("size", [2, 10])
def test_a_pool_that_is_too_small(tmp_path: Path, dsn: str, size: int) -> None:
    staged = Staged()
    with ConnectionPool[Any](dsn, min_size=size, max_size=size, open=True) as pool:

        def work(staged: Staged) -> None:
            with pool.connection() as connection:
                connection.execute("SELECT pg_sleep(0.15)")

        with recorded(tmp_path, dsn, staged) as made:
            users(8, staged, work)
    answer = pool_exhausted(made, OBJECTIVES)
    if size == 10:
        assert isinstance(answer, Clear), answer
        return
    assert isinstance(answer, Finding)
    assert "all 2 sessions the app ever had were in use" in answer.evidence[0]
    assert answer.share > 0.5
    assert any("connections in use" in said for said in answer.evidence)


def test_what_an_exhausted_pool_says_is_known(dsn: str) -> None:
    with (
        ConnectionPool[Any](dsn, min_size=1, max_size=1, timeout=0.1, open=True) as pool,
        pool.connection(),
        pytest.raises(PoolTimeout) as caught,
        pool.connection(),
    ):
        pass
    assert kind_of(f"{type(caught.value).__name__}: {caught.value}") == POOL_TIMEOUT
    assert kind_of(str(caught.value)) == POOL_TIMEOUT


def test_a_queue_for_a_lock(tmp_path: Path, dsn: str) -> None:
    staged = Staged()
    with psycopg.connect(dsn, application_name="nightly") as head, recorded(tmp_path, dsn, staged) as made:
        head.execute("UPDATE desk SET seen = 1 WHERE id = 7")
        release = threading.Timer(2.5, head.rollback)
        release.start()

        def work(staged: Staged) -> None:
            with psycopg.connect(dsn) as connection:
                connection.execute("UPDATE desk SET seen = seen + 1 WHERE id = 7")

        users(3, staged, work, seconds=1.0)
        release.join()
    answer = lock_waits_check(made, OBJECTIVES)
    assert isinstance(answer, Finding)
    assert "idle in transaction" in answer.title
    said = " ".join(answer.evidence)
    assert "(nightly)" in said
    assert "UPDATE desk SET seen = ? WHERE id = ?" in said
    tree = lock_tree(made)
    assert tree["depth"].iloc[0] == 0
    assert tree["application"].iloc[0] == "nightly"
    assert len(tree) == 4


def test_rows_changed_by_many_without_trouble(tmp_path: Path, dsn: str) -> None:
    staged = Staged()
    with ConnectionPool[Any](dsn, min_size=4, max_size=4, open=True) as pool:

        def work(staged: Staged) -> None:
            with pool.connection() as connection:
                connection.execute("UPDATE desk SET seen = seen + 1 WHERE id = %s", (random.randint(10, 50),))
            time.sleep(0.02)

        with recorded(tmp_path, dsn, staged) as made:
            users(4, staged, work, seconds=2)
    assert isinstance(lock_waits_check(made, OBJECTIVES), Clear)
    for check in (pool_exhausted, no_connection_pool, pool_too_large, stale_connections):
        assert isinstance(check(made, OBJECTIVES), Clear), check


def test_a_deadlock_is_counted_and_known_by_its_wording(tmp_path: Path, dsn: str) -> None:
    said: list[str] = []

    def change(first: int, second: int, both: threading.Barrier) -> None:
        try:
            with psycopg.connect(dsn) as connection:
                connection.execute("SET LOCAL deadlock_timeout = '100ms'")
                connection.execute("UPDATE desk SET seen = 1 WHERE id = %s", (first,))
                both.wait(10)
                connection.execute("UPDATE desk SET seen = 1 WHERE id = %s", (second,))
        except psycopg.Error as error:
            said.append(str(error))

    with recorded(tmp_path, dsn, Staged()) as made:
        time.sleep(0.3)
        both = threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            for each in [pool.submit(change, 20, 21, both), pool.submit(change, 21, 20, both)]:
                each.result()
        time.sleep(1.2)
    assert [kind_of(text) for text in said] == [DEADLOCK]
    assert deadlocks(made) == 1


def test_a_server_that_is_full(tmp_path: Path, dsn: str) -> None:
    staged = Staged()
    with ExitStack() as held, recorded(tmp_path, dsn, staged) as made:
        said = ""
        for number in range(45):
            try:
                held.enter_context(closing(psycopg.connect(dsn)))
            except psycopg.OperationalError as error:
                said = str(error)
                break
            if number == 33:
                time.sleep(1.0)
    assert kind_of(said) == TOO_MANY
    answer = pool_too_large(made, OBJECTIVES)
    assert isinstance(answer, Finding)
    assert "of 37 connections of the server are taken" in answer.title


def test_a_connection_that_was_closed_while_it_was_idle(tmp_path: Path, dsn: str) -> None:
    staged = Staged()
    opened = ConnectionPool[Any](dsn, min_size=3, max_size=3, open=True)
    with opened as pool, recorded(tmp_path, dsn, staged) as made:
        time.sleep(0.6)
        with psycopg.connect(dsn, autocommit=True) as administrator:
            administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle' "
                "AND application_name <> 'perfnb' AND pid <> pg_backend_pid()"
            )
        said: list[str] = []

        def work(staged: Staged) -> None:
            try:
                with pool.connection() as connection:
                    connection.execute("SELECT 1")
            except psycopg.Error as error:
                said.append(str(error))
                raise

        users(1, staged, work, seconds=1.5)
        time.sleep(0.6)
    assert len(said) >= 2
    assert {kind_of(text) for text in said} == {CLOSED}
    answer = stale_connections(made, OBJECTIVES)
    assert isinstance(answer, Finding)
    assert "3 killed" in " ".join(answer.evidence)
