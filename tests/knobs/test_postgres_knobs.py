"""Settings of new sessions and indexes built concurrently, on a real server: set, undone, killed in the middle, refused."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed import turn_and_die
from psycopg.conninfo import make_conninfo
from servers import postgres_18, standby_of, through_pgbouncer

from perfnb.errors import NotInstalled, NotPermitted, NotReachable, PerfnbError, WrongUse
from perfnb.knobs import all_knobs, change, changing, revert
from perfnb.knobs.postgres import ALLOWED, ConcurrentIndex, RoleSetting, Scope, checked, connect, place_of, server
from perfnb.knobs.postgres.build import require_ready
from perfnb.knobs.postgres.server import LockNotGiven
from perfnb.knobs.undo import open_changes
from perfnb.recording import Recording
from perfnb.target import Target

STAY = [name for name, allowed in ALLOWED.items() if allowed.may_stay]
INDEX = "CREATE INDEX ON orders (customer) WHERE state <> 'planted-secret'"


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with postgres_18() as made:
        with psycopg.connect(made, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE ROLE app LOGIN PASSWORD 'planted-password'")
            connection.execute("CREATE ROLE other LOGIN PASSWORD 'x'")
            connection.execute(
                "CREATE TABLE orders AS SELECT i AS id, i % 500 AS customer, 'open' AS state FROM generate_series(1, 20000) i"
            )
            connection.execute("ANALYZE orders")
        yield made


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_dsns", {})


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    with Recording.create(tmp_path / "r.perfnb") as made:
        yield made


def as_role(dsn: str, role: str, password: str = "planted-password") -> str:
    return make_conninfo(dsn, user=role, password=password)


def ask(dsn: str, query: str, *parameters: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query, parameters or None)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def state(dsn: str) -> list[Any]:
    """Everything these knobs may change: settings by role and database, and the indexes there are."""
    return [
        ask(dsn, "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2"),
        ask(dsn, "SELECT indexrelid, indrelid, indisvalid, pg_get_indexdef(indexrelid) FROM pg_index ORDER BY 1"),
    ]


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("work_mem", "64MB", "64MB"),
        ("work_mem", 64, "64"),
        ("work_mem", 63, None),
        ("work_mem", "3 parsecs", None),
        ("work_mem", "many", None),
        ("random_page_cost", 1.1, "1.1"),
        ("random_page_cost", -1, None),
        ("jit", False, "off"),
        ("jit", "perhaps", None),
        ("plan_cache_mode", "force_generic_plan", "force_generic_plan"),
        ("plan_cache_mode", "force", None),
        ("hnsw.ef_search", 1000, "1000"),
        ("hnsw.ef_search", 1001, None),
        ("hnsw.iterative_scan", "relaxed_order", "relaxed_order"),
        ("hnsw.iterative_scan", "on", None),
        ("ivfflat.probes", 0, None),
        ("statement_timeout", "5min", "5min"),
        ("shared_buffers", "1GB", None),
        ("work_mem = '1MB'; DROP TABLE orders; --", "1", None),
    ],
)
def test_a_value_is_what_the_server_takes_or_is_refused_with_what_it_can_be(
    dsn: str, name: str, given: Any, taken: str | None
) -> None:
    with connect(dsn) as connection:
        if taken is not None:
            assert checked(connection, name, given) == taken
            return
        with pytest.raises(WrongUse) as refused:
            checked(connection, name, given)
        assert refused.value.hint


def test_a_setting_of_an_extension_that_is_not_there(dsn: str) -> None:
    ask(dsn, "CREATE DATABASE bare")
    with connect(make_conninfo(dsn, dbname="bare")) as connection, pytest.raises(NotInstalled, match="pgvector"):
        checked(connection, "hnsw.ef_search", 100)


def test_new_sessions_get_a_setting_and_it_is_read_back(dsn: str, recording: Recording) -> None:
    for name, value, shown in (("work_mem", "96MB", "96MB"), ("hnsw.ef_search", 123, "123"), ("jit", False, "off")):
        before = state(dsn)
        knob = RoleSetting(dsn, name)
        with changing(recording, knob, value):
            assert knob.read_back().value == shown
            assert knob.read_back().is_seen
            assert "read back in a new session" in knob.aftermath()
        assert state(dsn) == before
    knob = RoleSetting(dsn, "work_mem", Scope("app", None))
    with changing(recording, knob, "7MB"):
        assert (knob.read_back().value, knob.read_back().is_seen) == ("7MB", False)
        assert "as the catalog says" in knob.aftermath()
        assert ask(as_role(dsn, "app"), "SHOW work_mem") == [("7MB",)]


def test_what_the_dsn_itself_sets_is_told(dsn: str, recording: Recording) -> None:
    knob = RoleSetting(make_conninfo(dsn, options="-c work_mem=9MB"), "work_mem")
    before = state(dsn)
    with pytest.raises(NotPermitted, match="a new session has work_mem 9MB, not 10MB"):
        change(recording, knob, "10MB")
    assert (state(dsn), open_changes(recording)) == (before, [])


def values_of(name: str) -> st.SearchStrategy[Any]:
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "jit": st.booleans(),
        "plan_cache_mode": st.sampled_from(["auto", "force_custom_plan"]),
        "hnsw.iterative_scan": st.sampled_from(["off", "strict_order", "relaxed_order"]),
        "ivfflat.iterative_scan": st.sampled_from(["off", "relaxed_order"]),
    }
    return kinds.get(name, st.integers(1, 1000).map(lambda number: number if "mem" not in name else 64 + number))


turns = st.sampled_from(STAY).flatmap(
    lambda name: st.tuples(st.just(name), values_of(name), st.none() | values_of(name))
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns, st.sampled_from([(None, True), (True, None), (True, True)]), st.booleans())
def test_a_setting_that_is_undone_leaves_the_catalog_as_it_was(
    dsn: str, recording: Recording, turn: tuple[str, Any, Any], whose: tuple[Any, Any], is_kept: bool
) -> None:
    name, value, held_before = turn
    database = ask(dsn, "SELECT current_database()")[0][0]
    scope = Scope("app" if whose[0] else None, database if whose[1] else None)
    if held_before is not None and name != "hash_mem_multiplier":
        RoleSetting(dsn, name, scope).set(held_before)
    before = state(dsn)
    made = change(recording, RoleSetting(dsn, name, scope), value)
    if is_kept:
        made.keep()
    assert len(revert(recording, kept=True)) == 1
    assert state(dsn) == before
    assert revert(recording, kept=True) == []
    RoleSetting(dsn, name, scope).set(None)


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_setting_of_a_process_that_was_killed(
    dsn: str, recording: Recording, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = as_role(dsn, "app")
    (tmp_path / "perfnb.toml").write_text(f'[target]\ndsn = "{given}"\n')
    before = state(dsn)
    turn_and_die(recording.path, tmp_path, "postgres.hnsw.ef_search", 77, moment)
    assert (state(dsn) == before) is (moment == "before")
    monkeypatch.chdir(tmp_path.parent)
    assert "NOT undone: no DSN for database" in revert(recording)[0]
    monkeypatch.setenv("PERFNB_DSN", make_conninfo(dsn, dbname="postgres"))
    assert "NOT undone: the DSN leads to postgres" in revert(recording)[0]
    monkeypatch.setenv("PERFNB_DSN", given)
    assert revert(recording) == ["postgres.hnsw.ef_search: new sessions have hnsw.ef_search as it was: not set"]
    assert (state(dsn), revert(recording)) == (before, [])
    text = "".join(path.read_text(errors="replace") for path in recording.path.rglob("*.jsonl"))
    assert "way_back" in text
    assert "planted-password" not in text


def test_a_role_that_is_gone_took_its_settings_along(dsn: str, recording: Recording) -> None:
    ask(dsn, "CREATE ROLE passing")
    change(recording, RoleSetting(dsn, "work_mem", Scope("passing", None)), "8MB")
    ask(dsn, "DROP ROLE passing")
    assert revert(recording) == ["postgres.work_mem: role passing is gone, and its settings with it"]


def test_names_are_quoted(dsn: str, recording: Recording) -> None:
    role = 'odd "name"; DROP TABLE orders; --'
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("CREATE ROLE {}").format(psycopg.sql.Identifier(role)))
    with changing(recording, RoleSetting(dsn, "work_mem", Scope(role, None)), "8MB") as made:
        assert made.is_open
    assert ask(dsn, "SELECT count(*) FROM orders") == [(20000,)]


def test_a_role_may_set_its_own_and_is_told_where_it_may_not(dsn: str, recording: Recording) -> None:
    mine, before = as_role(dsn, "app"), state(dsn)
    with changing(recording, RoleSetting(mine, "work_mem"), "6MB"):
        assert ask(mine, "SHOW work_mem") == [("6MB",)]
    for scope in (Scope("other", None), Scope(None, ask(dsn, "SELECT current_database()")[0][0])):
        with pytest.raises(NotPermitted) as refused:
            change(recording, RoleSetting(mine, "work_mem", scope), "6MB")
        assert "connect as a role that may" in refused.value.hint
    with pytest.raises(NotPermitted, match="only postgres may index"):
        change(recording, ConcurrentIndex(mine, INDEX), True)
    assert (state(dsn), open_changes(recording)) == (before, [])


def test_only_looking_settings_are_not_kept(dsn: str, recording: Recording) -> None:
    with pytest.raises(WrongUse, match="can be tried, not kept"):
        RoleSetting(dsn, "enable_seqscan")
    assert set(all_knobs(recording, Target(dsn=dsn))) == {f"postgres.{name}" for name in STAY}
    assert all_knobs(recording, Target()) == {}


def test_idle_sessions_are_ended_only_when_asked(dsn: str, recording: Recording) -> None:
    mine = as_role(dsn, "app")
    knob = RoleSetting(mine, "work_mem")
    with psycopg.connect(mine, autocommit=True) as idle, psycopg.connect(mine) as busy:
        idle.execute("SELECT 1")
        busy.execute("SELECT 1")
        with changing(recording, knob, "5MB"):
            assert idle.execute("SHOW work_mem").fetchone() != ("5MB",)
            assert "1 stand idle now" in knob.aftermath()
            assert (knob.idle_sessions(), knob.end_idle_sessions()) == (1, 1)
        busy.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            idle.execute("SELECT 1")


def test_an_index_is_built_beside_the_traffic_and_dropped_again(dsn: str, recording: Recording) -> None:
    before = state(dsn)
    knob = ConcurrentIndex(dsn, INDEX)
    assert "an index" in knob.cost.told(is_concurrent=True).lower()
    with changing(recording, knob, True):
        assert knob.current()
        (definition,) = ask(dsn, "SELECT indexdef FROM pg_indexes WHERE indexname = %s", knob.definition.name)[0]
        assert "planted-secret" in definition
    assert state(dsn) == before
    text = "".join(path.read_text(errors="replace") for path in recording.path.rglob("*.jsonl"))
    assert knob.definition.name in text
    assert "planted" not in text


def test_a_vector_index_is_built_and_dropped(dsn: str, recording: Recording) -> None:
    ask(
        dsn,
        "CREATE TABLE documents AS SELECT i AS id, ARRAY[i, i % 7, i % 11]::vector(3) AS embedding FROM generate_series(1, 3000) i",
    )
    before, told = state(dsn), []
    knob = ConcurrentIndex(
        dsn, "CREATE INDEX ON documents USING hnsw (embedding vector_l2_ops) WITH (m = 8)", tell=told.append
    )
    with changing(recording, knob, True):
        assert ask(dsn, "SELECT reloptions FROM pg_class WHERE relname = %s", knob.definition.name) == [(["m=8"],)]
    assert state(dsn) == before


@contextlib.contextmanager
def old_snapshot(dsn: str) -> Iterator[None]:
    """A transaction that a concurrent build must wait for at its end, while it leaves its index invalid."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1")
        yield


def invalid(dsn: str) -> int:
    return int(ask(dsn, "SELECT count(*) FROM pg_index WHERE NOT indisvalid")[0][0])


def test_a_build_that_waits_too_long_leaves_nothing(dsn: str, recording: Recording) -> None:
    before = state(dsn)
    with old_snapshot(dsn), pytest.raises(LockNotGiven):
        change(recording, ConcurrentIndex(dsn, INDEX, lock_timeout_s=0.5), True)
    assert (state(dsn), open_changes(recording)) == (before, [])


def test_a_build_is_stopped_on_request(dsn: str, recording: Recording) -> None:
    before, stop = state(dsn), threading.Event()
    waits: list[int] = []

    def tell(progress: Any) -> None:
        if progress.waits_for:
            waits.append(progress.waits_for)
            stop.set()

    with old_snapshot(dsn), pytest.raises(NotReachable, match="stopped on request"):
        change(recording, ConcurrentIndex(dsn, INDEX, tell=tell, stop=stop), True)
    assert waits
    assert (state(dsn), open_changes(recording)) == (before, [])


BUILDER = """
import sys
from pathlib import Path
from perfnb.knobs import changing
from perfnb.knobs.postgres import ConcurrentIndex
from perfnb.recording import Recording
with changing(Recording.open(Path(sys.argv[1])), ConcurrentIndex(sys.argv[2], sys.argv[3]), True):
    pass
"""


def test_a_build_whose_process_is_killed_is_ended_and_its_rest_is_dropped(
    dsn: str, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(dsn)
    with old_snapshot(dsn):
        process = subprocess.Popen([sys.executable, "-c", BUILDER, str(recording.path), dsn, INDEX])
        end = time.monotonic() + 30
        while not invalid(dsn) and time.monotonic() < end:
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert invalid(dsn) == 1
    monkeypatch.setenv("PERFNB_DSN", dsn)
    recording.refresh()
    (line,) = revert(recording)
    assert "is dropped" in line or "there is no index" in line
    assert (state(dsn), invalid(dsn), revert(recording)) == (before, 0, [])


def test_an_index_that_is_not_ours_stays(dsn: str, recording: Recording) -> None:
    knob = ConcurrentIndex(dsn, "CREATE INDEX orders_ours ON orders (customer)")
    change(recording, knob, True).keep()
    ask(dsn, "DROP INDEX orders_ours")
    ask(dsn, "CREATE INDEX orders_ours ON orders (customer, id)")
    assert "is not the one that was built here, and stays" in revert(recording, kept=True)[0]
    assert ask(dsn, "SELECT count(*) FROM pg_indexes WHERE indexname = 'orders_ours'") == [(1,)]
    with pytest.raises(WrongUse, match="there is an index orders_ours already"):
        change(recording, ConcurrentIndex(dsn, "CREATE INDEX orders_ours ON orders (customer)"), True)
    ask(dsn, "DROP INDEX orders_ours")


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        ("CREATE INDEX ON parts (id)", "partitioned table"),
        ("CREATE INDEX ON looks (id)", "view"),
        ("CREATE INDEX ON nowhere (id)", "there is no table nowhere"),
        ("CREATE INDEX ON orders (nothing)", "does not exist"),
        ("CREATE INDEX ON orders USING nothing (id)", "does not exist"),
        ("CREATE INDEX ON orders (id); DROP TABLE orders", "multiple commands"),
        ("CREATE UNIQUE INDEX ON orders (id)", "unique"),
        ("CREATE INDEX ON pg_catalog.pg_class (relname)", "server's own"),
        ("DROP TABLE orders", "no CREATE INDEX"),
    ],
)
def test_an_index_that_makes_no_sense_is_refused_and_nothing_happens(
    dsn: str, recording: Recording, definition: str, why: str
) -> None:
    ask(dsn, "CREATE TABLE IF NOT EXISTS parts (id int) PARTITION BY RANGE (id)")
    ask(dsn, "CREATE OR REPLACE VIEW looks AS SELECT id FROM orders")
    before = state(dsn)
    with pytest.raises(PerfnbError, match=why):
        change(recording, ConcurrentIndex(dsn, definition), True)
    assert (state(dsn), open_changes(recording)) == (before, [])
    assert ask(dsn, "SELECT count(*) FROM orders") == [(20000,)]


def test_a_table_that_is_too_large_and_a_transaction_under_way_are_refused(dsn: str, recording: Recording) -> None:
    with pytest.raises(WrongUse, match="more than the 1 KiB this is allowed for"):
        change(recording, ConcurrentIndex(dsn, INDEX, most_bytes=1024), True)
    with connect(dsn) as connection, connection.transaction(), pytest.raises(WrongUse, match="inside a transaction"):
        require_ready(connection)


def test_a_standby_takes_no_changes(dsn: str, recording: Recording) -> None:
    with standby_of(dsn) as standby:
        for knob, value in ((RoleSetting(standby, "work_mem"), "5MB"), (ConcurrentIndex(standby, INDEX), True)):
            with pytest.raises(WrongUse, match="standby"):
                change(recording, knob, value)
        with connect(standby) as there, connect(dsn) as here:
            assert place_of(there).is_same(place_of(here))


def test_behind_a_pooler_settings_are_read_from_the_catalog_and_no_index_is_built(
    dsn: str, recording: Recording
) -> None:
    before = state(dsn)
    with through_pgbouncer(dsn) as pooled:
        knob = RoleSetting(pooled, "work_mem")
        with changing(recording, knob, "11MB"):
            assert (knob.read_back().value, knob.read_back().is_seen) == ("11MB", False)
        with pytest.raises(WrongUse, match="leads to a pooler"):
            change(recording, ConcurrentIndex(pooled, INDEX), True)
    assert (state(dsn), open_changes(recording)) == (before, [])


@pytest.mark.parametrize(
    ("change_to", "kind", "why"),
    [
        ({"password": "wrong"}, NotPermitted, "password authentication failed"),
        ({"dbname": "nowhere"}, WrongUse, "does not exist"),
        ({"port": "1"}, NotReachable, "refused"),
    ],
)
def test_a_dsn_that_leads_nowhere_is_told(dsn: str, change_to: dict[str, str], kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why) as refused, connect(make_conninfo(dsn, **change_to)):
        pass
    assert psycopg.conninfo.conninfo_to_dict(dsn)["password"] not in str(refused.value)
    with pytest.raises(WrongUse), connect("no dsn at all"):
        pass
