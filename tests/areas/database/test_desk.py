"""Indexes and upkeep staged for real: a desk's database on Postgres 18 is put into a state, recorded, and judged."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from desk import HISTORY, desk, made, recorded, work
from servers import postgres_18

from perfnb.areas.database.missing_indexes import suggested_indexes
from perfnb.areas.database.space import oldest_rows
from perfnb.checklist import checks
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording

CAUSES = (
    "missing-index", "unused-index", "duplicate-index", "table-bloat", "autovacuum-disabled", "stale-rows", "wraparound-risk",
)  # fmt: skip
ADD = "INSERT INTO messages (session_id, role, content) VALUES (%s, 'user', 'hello')"
IMPORT = (
    "INSERT INTO messages (session_id, role, content) SELECT 's1', 'user', md5(n::text) FROM generate_series(1, 300) n"
)
GROW = "UPDATE messages SET content = content || '.'"

# state, what the app does, and the causes that are found with a word each that must be said
STAGED: dict[str, tuple[list[str], tuple[str, ...], dict[str, str]]] = {
    "healthy": ([], (HISTORY, ADD, "SELECT count(*) FROM messages", "SELECT * FROM documents WHERE id = 7"), {}),
    "no_index": (["DROP INDEX messages_session"], (HISTORY, ADD), {"missing-index": '("session_id", "id")'}),
    "no_index_for_a_join": (
        ["DROP INDEX messages_session"],
        ("SELECT m.id FROM messages m JOIN sessions s ON s.id = m.session_id WHERE s.user_name = %s",),
        {"missing-index": '"messages" ("session_id")'},
    ),
    "no_index_for_a_foreign_key": (
        ["DROP INDEX messages_session", "INSERT INTO sessions (id) SELECT 'gone-s' || n FROM generate_series(1, 100) n"],
        ("DELETE FROM sessions WHERE id = 'gone-' || %s",),
        {"missing-index": "Each row deleted from public.sessions"},
    ),
    "unused": (
        [
            "CREATE INDEX messages_role ON messages (role)",
            "CREATE INDEX messages_created ON messages (created_at)",
            "CREATE INDEX messages_hash ON messages (md5(content))",
        ],
        (HISTORY, IMPORT),
        {"unused-index": '"messages_hash"'},
    ),
    "duplicate": (
        ["CREATE INDEX messages_by_session ON messages (session_id, id)", "CREATE INDEX messages_of ON messages (session_id)"],
        (HISTORY, ADD),
        {"duplicate-index": '"messages_of"'},
    ),
    "invalid": (
        ["CREATE UNIQUE INDEX CONCURRENTLY messages_once ON messages (session_id, role)"],
        (HISTORY, ADD),
        {"duplicate-index": 'REINDEX INDEX CONCURRENTLY "public"."messages_once"'},
    ),
    "bloat": ([GROW, GROW, GROW], (HISTORY, ADD), {"table-bloat": 'VACUUM (ANALYZE) "public"."messages"'}),
    "disabled": (
        ["ALTER TABLE messages SET (autovacuum_enabled = false)", f"{GROW} WHERE id % 2 = 0"],
        (HISTORY, ADD),
        {"autovacuum-disabled": "RESET (autovacuum_enabled)"},
    ),
    "stale": (
        ["UPDATE messages SET created_at = created_at - interval '5 minutes' * id", "VACUUM FULL messages", "ANALYZE"],
        (HISTORY, ADD),
        {"stale-rows": 'FROM "public"."messages"'},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_18({"autovacuum_naptime": "1h"}) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE desk_template")
        made(dsn.rpartition("/")[0] + "/desk_template")
        yield dsn


def answers(recording: Recording) -> dict[str, Finding | Clear | NotMeasured]:
    said: dict[str, Finding | Clear | NotMeasured] = {}
    for each in checks("database"):
        if each.cause in CAUSES:
            try:
                said[each.cause] = each.function(recording, Objectives.load())
            except NotMeasured as missing:
                said[each.cause] = missing
    return said


@pytest.mark.parametrize("name", STAGED)
def test_what_is_staged_is_found_and_nothing_else(server: str, tmp_path: Path, name: str) -> None:
    state, statements, wanted = STAGED[name]
    with desk(server, f"staged_{name}", state) as dsn:
        said = answers(recorded(tmp_path, dsn, lambda: work(dsn, statements)))
    found = {cause: each for cause, each in said.items() if isinstance(each, Finding)}
    assert set(found) == set(wanted), said
    for cause, words in wanted.items():
        assert words in found[cause].remedy, found[cause].remedy


def test_the_index_that_is_advised_is_made_and_mends_it(server: str, tmp_path: Path) -> None:
    with desk(server, "mended", ["DROP INDEX messages_session"]) as dsn:
        frame = suggested_indexes(recorded(tmp_path, dsn, lambda: work(dsn, (HISTORY,))))
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(frame["ddl"].iloc[0])
            row = connection.execute("SELECT pg_relation_size('messages_session_id_id_idx')").fetchone()
        (tmp_path / "after").mkdir()
        after = answers(recorded(tmp_path / "after", dsn, lambda: work(dsn, (HISTORY,))))
    assert isinstance(after["missing-index"], Clear)
    assert row is not None
    assert 0.7 * frame["size_least_bytes"].iloc[0] <= row[0] <= 1.4 * frame["size_most_bytes"].iloc[0]


@pytest.mark.parametrize("name", ["unused", "duplicate", "disabled"])
def test_what_is_written_out_can_be_run(server: str, tmp_path: Path, name: str) -> None:
    state, statements, wanted = STAGED[name]
    with desk(server, f"run_{name}", state) as dsn:
        found = answers(recorded(tmp_path, dsn, lambda: work(dsn, statements)))[next(iter(wanted))]
        assert isinstance(found, Finding)
        lines = [line for line in found.remedy.splitlines() if line.endswith(";")]
        with psycopg.connect(dsn, autocommit=True) as connection:
            for line in lines:
                connection.execute(line)
        (tmp_path / "after").mkdir()
        after = answers(recorded(tmp_path / "after", dsn, lambda: work(dsn, (HISTORY,))))
    assert len(lines) >= 2
    assert not isinstance(after[next(iter(wanted))], Finding)


def test_a_vacuum_leaves_free_space_which_is_told_as_such(server: str, tmp_path: Path) -> None:
    with desk(server, "vacuumed", [GROW, GROW, GROW, "VACUUM ANALYZE messages"]) as dsn:
        found = answers(recorded(tmp_path, dsn, lambda: work(dsn, (HISTORY,))))["table-bloat"]
    assert isinstance(found, Finding)
    assert "free space by estimate" in found.title
    assert "VACUUM (ANALYZE)" not in found.remedy
    assert "pg_repack" in found.remedy


def test_rows_are_counted_only_when_asked_and_in_time(server: str) -> None:
    with (
        desk(server, "counted", ["UPDATE messages SET created_at = now() - interval '100 days' WHERE id <= 50"]) as dsn,
        psycopg.connect(dsn) as connection,
    ):
        frame = oldest_rows(connection, "public.messages", "created_at", days=90)
        assert (frame["rows"].iloc[0], frame["old_rows"].iloc[0]) == (150_000, 50)
        with pytest.raises(NotMeasured, match="within 1 ms"):
            oldest_rows(connection, "public.messages", "created_at", timeout_ms=1)
        connection.execute("SELECT 1")  # the connection is still of use


def test_orphans_and_old_rows_are_deleted_in_batches(server: str) -> None:
    from perfnb.areas.database.maintenance_statements import count_orphans, delete_old, delete_orphans

    state = [
        "ALTER TABLE messages DROP CONSTRAINT messages_session_id_fkey",
        "DELETE FROM sessions WHERE id = 's9'",
        "UPDATE messages SET created_at = now() - interval '100 days' WHERE id <= 25",
    ]
    names = ("public.messages", "session_id", "public.sessions", "id")
    with desk(server, "cleaned", state) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        orphans = connection.execute(count_orphans(*names)).fetchone()
        first = connection.execute(delete_orphans(*names, batch=50)).rowcount
        rest = connection.execute(delete_orphans(*names, batch=50)).rowcount
        old = [connection.execute(delete_old("public.messages", "created_at", 90, batch=20)).rowcount for _ in range(3)]
    assert orphans == (75,)
    assert (first, rest) == (50, 25)
    assert old == [20, 4, 0]  # one of the 25 was an orphan
