"""What the rules of PgHero, postgres-mcp and MCPg say of the same staged server as perfnb does: docs/database_rules.md.

The others are not run: PgHero is a Ruby engine, MCPg wants a newer Python, and none takes a recording. Their rules are
stated here anew as they stand in their sources (named below), and asked of the server at the end of each stage, when
its counters hold all that was done. What they show besides (screens of sizes, plans, an assistant's own reasoning) is left out.
Takes about five minutes; ``--write`` puts the table into the page.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

HOME = Path(__file__).parent.parent
sys.path.insert(0, str(HOME / "tests/areas/database"))

from desk import HISTORY, desk, made, recorded, work  # noqa: E402

from perfnb.checklist import checks  # noqa: E402
from perfnb.demo.postgres import Postgres  # noqa: E402
from perfnb.errors import NotMeasured  # noqa: E402
from perfnb.finding import Finding  # noqa: E402
from perfnb.objectives import Objectives  # noqa: E402
from perfnb.recording import Recording  # noqa: E402

PAGE = HOME / "docs/database_rules.md"
MB = 1_000_000
CAUSES = ("missing-index", "unused-index", "duplicate-index", "table-bloat", "autovacuum-disabled", "stale-rows")
ADD = "INSERT INTO messages (session_id, role, content) VALUES (%s, 'user', 'hello')"
IMPORT = (
    "INSERT INTO messages (session_id, role, content) SELECT 's1', 'user', md5(n::text) FROM generate_series(1, 300) n"
)
GROW = "UPDATE messages SET content = content || '.'"

Row = dict[str, Any]
Rule = Callable[[list[Row], list[Row]], list[str]]


@dataclass(frozen=True)
class Stage:
    """A state of the desk's database, what the app does there, and what a right answer is."""

    name: str
    is_: str
    right: str
    state: tuple[str, ...] = ()
    statements: tuple[str, ...] = (HISTORY, ADD)


STAGES = (
    Stage("healthy", "indexes as they should be, a minute old", "nothing"),
    Stage("reports", "the same, and all messages are counted again and again", "nothing", statements=(HISTORY, "SELECT count(*) FROM messages")),
    Stage("no_index", "no index leads to a session's messages: read backwards by the primary key", "messages (session_id, id)", ("DROP INDEX messages_session",)),
    Stage("no_index_and_no_key", "a large table without any index, one row read at a time", "log_lines (reference)",
          ("CREATE TABLE log_lines AS SELECT n AS reference, md5(n::text) AS line FROM generate_series(1, 200000) n", "ANALYZE log_lines"),
          ("SELECT line FROM log_lines WHERE reference = length(%s) + 70000",)),
    Stage("unused", "three indexes that nothing reads on a table that is written much", "messages_role, _created and _hash",
          ("CREATE INDEX messages_role ON messages (role)", "CREATE INDEX messages_created ON messages (created_at)", "CREATE INDEX messages_hash ON messages (md5(content))"), (HISTORY, IMPORT)),
    Stage("not_yet_used", "an index for the monthly report, counters a minute old", "not to be told yet", ("CREATE INDEX messages_monthly ON messages (created_at)",)),
    Stage("duplicate", "one index twice, and once its first column", "two of three", ("CREATE INDEX messages_by_session ON messages (session_id, id)", "CREATE INDEX messages_of ON messages (session_id)")),
    Stage("duplicate_expression", "an index on an expression, twice", "one of two", ("CREATE INDEX messages_day ON messages (lower(role))", "CREATE INDEX messages_day_again ON messages (lower(role))"),
          ("SELECT count(*) FROM messages WHERE lower(role) = 'nobody'", HISTORY)),
    Stage("other_order", "two indexes on one column that sort otherwise (text_pattern_ops for LIKE)", "nothing", ("CREATE INDEX messages_like ON messages (session_id text_pattern_ops)",),
          (HISTORY, "SELECT count(*) FROM messages WHERE session_id LIKE 's77%%'")),
    Stage("invalid", "a unique index that could not be built", "messages_once", ("CREATE UNIQUE INDEX CONCURRENTLY messages_once ON messages (session_id, role)",)),
    Stage("bloat", "all messages rewritten three times, no vacuum", "messages", (GROW, GROW, GROW)),
    Stage("disabled", "autovacuum off for messages, half of them rewritten", "messages, and why", ("ALTER TABLE messages SET (autovacuum_enabled = false)", f"{GROW} WHERE id % 2 = 0")),
    Stage("old_rows", "messages of the last 500 days, none deleted", "messages", ("UPDATE messages SET created_at = created_at - interval '5 minutes' * id", "VACUUM FULL messages", "ANALYZE")),
)  # fmt: skip

TABLES = """
SELECT t.relname AS name, t.n_live_tup AS live, t.n_dead_tup AS dead, t.seq_scan AS scans, t.idx_scan AS index_scans,
       c.relpages AS pages, c.reltuples AS rows,
       (SELECT sum(avg_width) FROM pg_stats s WHERE s.schemaname = t.schemaname AND s.tablename = t.relname) AS width,
       ARRAY(SELECT conkey[1] FROM pg_constraint WHERE conrelid = t.relid AND contype = 'f') AS foreign_keys
FROM pg_stat_user_tables t JOIN pg_class c ON c.oid = t.relid
"""
INDEXES = """
SELECT i.relname AS name, t.relname AS table, am.amname AS method, x.indisunique AS is_unique, x.indisprimary AS is_primary,
       x.indisvalid AS is_valid, x.indexprs::text AS expressions, x.indpred::text AS predicate, x.indkey::int[] AS numbers,
       x.indclass::text AS classes, x.indoption::text AS options, s.idx_scan AS scans, s.idx_tup_fetch AS fetched,
       pg_relation_size(i.oid) AS bytes, regexp_replace(pg_get_indexdef(i.oid), '^[^(]*\\((.*)\\)$', '\\1') AS columns
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid JOIN pg_am am ON am.oid = i.relam
JOIN pg_stat_user_indexes s ON s.indexrelid = i.oid ORDER BY i.relname
"""


def covers(one: Row, other: Row) -> bool:
    """Tell whether the columns of ``one``, as its definition words them, begin with those of ``other``."""
    first, second = one["columns"].split(", "), other["columns"].split(", ")
    return bool(first[: len(second)] == second)


def pghero(tables: list[Row], indexes: list[Row]) -> list[str]:
    """Return what PgHero's page shows: lib/pghero/methods/indexes.rb, maintenance.rb, home_controller.rb."""
    usage = [t for t in tables if t["index_scans"] and 100 * t["index_scans"] // (t["scans"] + t["index_scans"]) < 95]
    unused = [i for i in indexes if not i["is_unique"] and i["scans"] == 0 and i["bytes"] >= 10 * 2**20]
    plain = [i for i in indexes if i["is_valid"] and not i["expressions"] and not i["predicate"]]
    return [
        *(f"missing index: {t['name']}" for t in usage if t["live"] >= 10_000),
        *(f"unused: {i['name']}" for i in unused),
        *(f"duplicate: {name}" for name in covered(plain, plain)),
        *(f"invalid: {i['name']}" for i in indexes if not i["is_valid"]),
    ]


def postgres_mcp(tables: list[Row], indexes: list[Row]) -> list[str]:
    """Return what postgres-mcp's health check says: src/postgres_mcp/database_health/index_health_calc.py."""
    valid = [i for i in indexes if i["is_valid"]]
    return [
        *(f"rarely used: {i['name']}" for i in indexes if not i["is_unique"] and i["scans"] <= 50),
        *(f"duplicate: {name}" for name in covered(valid, valid)),
        *(f"invalid: {i['name']}" for i in indexes if not i["is_valid"]),
    ]


def covered(indexes: list[Row], others: list[Row]) -> Iterator[str]:
    """Yield indexes neither unique nor primary whose columns another one of the table begins with."""
    for one in indexes:
        same = [o for o in others if (o["table"], o["method"], o["expressions"], o["predicate"]) == (one["table"], one["method"], one["expressions"], one["predicate"])]  # fmt: skip
        longer = [o for o in same if o["name"] != one["name"] and covers(o, one) and (o["columns"] != one["columns"] or one["name"] > o["name"])]  # fmt: skip
        if longer and not one["is_unique"] and not one["is_primary"]:
            yield one["name"]


def mcpg(tables: list[Row], indexes: list[Row]) -> list[str]:
    """Return what MCPg's tools say: src/mcpg/indexing.py, advisors.py, health.py."""
    scanned = [t for t in tables if t["live"] >= 10_000 and t["scans"] > (t["index_scans"] or 0)]
    droppable = [i for i in indexes if not i["is_unique"] and i["bytes"] >= MB]
    dead = [t for t in tables if t["dead"] > 1000 and t["dead"] > 0.1 * max(t["live"], 1)]
    least = {t["name"]: max(1, -(-t["rows"] * ((t["width"] or 0) + 24) // 8168)) for t in tables}
    bloated = [t for t in tables if t["pages"] > 128 and t["rows"] > 0 and t["pages"] / least[t["name"]] > 2]
    return [
        *(f"may lack an index: {t['name']}" for t in scanned),
        *(f"foreign key without an index: {t['name']}" for t in tables for key in t["foreign_keys"] if not any(i["table"] == t["name"] and i["numbers"][0] == key for i in indexes)),
        *(f"drop: {i['name']}" for i in droppable if i["scans"] == 0 or not i["fetched"]),
        *(f"duplicate: {one['name']}" for at, one in enumerate(indexes) for other in indexes[:at] if identical(one, other)),
        *(f"redundant: {i['name']}" for i in indexes if any(is_first_of(i, o) for o in indexes)),
        *(["1 invalid index"] if any(not i["is_valid"] for i in indexes) else []),
        *([f"{len(dead)} table needs vacuuming"] if dead else []),
        *([f"{len(bloated)} table appears bloated"] if bloated else []),
    ]  # fmt: skip


def identical(one: Row, other: Row) -> bool:
    names = ("table", "method", "numbers", "classes", "options", "is_unique", "is_primary", "predicate", "expressions")
    return all(one[name] == other[name] for name in names)


def is_first_of(one: Row, other: Row) -> bool:
    """Tell whether one is a btree on the first columns of another; operator classes and order are not compared."""
    count = len(one["numbers"])
    return (
        one["table"] == other["table"]
        and not one["is_unique"]
        and one["method"] == other["method"] == "btree"
        and count < len(other["numbers"])
        and other["numbers"][:count] == one["numbers"]
        and (not other["predicate"] or other["predicate"] == one["predicate"])
    )


OTHERS: dict[str, Rule] = {"PgHero": pghero, "postgres-mcp": postgres_mcp, "MCPg": mcpg}


def perfnb(recording: Recording) -> list[str]:
    """Return what perfnb's checks of indexes and upkeep say."""
    said = []
    for each in checks("database"):
        if each.cause not in CAUSES:
            continue
        try:
            answer = each.function(recording, Objectives.load())
        except NotMeasured:
            said.append(f"{each.cause}: not measured")
            continue
        if isinstance(answer, Finding):
            named = re.findall(
                r'(?:ON|CONCURRENTLY|VACUUM \(ANALYZE\)|FROM|TABLE) "public"\."(\w+)"( \([^)]*\))?', answer.remedy
            )
            objects = dict.fromkeys(name + columns.replace('"', "") for name, columns in named)
            said.append(f"{each.cause}: {', '.join(objects) or answer.title}")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/database_rules.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(staged(Path(folder)))
    names = ["staged", "right", "perfnb", *OTHERS]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *rows])
    print(table)
    if options.write:
        begin, end = "<!-- table: begin -->", "<!-- table: end -->"
        PAGE.write_text(
            re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{table}\n{end}", PAGE.read_text(), flags=re.DOTALL)
        )


def staged(folder: Path) -> Iterator[list[str]]:
    """Yield a row of the table for each stage."""
    with Postgres(folder / "postgres.log", settings={"autovacuum_naptime": "1h"}) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE desk_template")
        made(server.dsn.rpartition("/")[0] + "/desk_template")
        for stage in STAGES:
            place = folder / stage.name
            place.mkdir()
            with desk(server.dsn, stage.name, ("ANALYZE", *stage.state)) as dsn:
                own = perfnb(recorded(place, dsn, lambda: work(dsn, stage.statements, times=60)))  # noqa: B023
                with psycopg.connect(dsn, row_factory=dict_row) as connection:
                    tables, indexes = connection.execute(TABLES).fetchall(), connection.execute(INDEXES).fetchall()
            said = [own, *(rule(tables, indexes) for rule in OTHERS.values())]
            yield [stage.is_, stage.right, *("<br>".join(each) or "nothing" for each in said)]


if __name__ == "__main__":
    main()
