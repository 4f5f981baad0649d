"""What watching a Postgres costs it: processor time of perfnb's session, at the default intervals, as part of a core.

Claim: under 1 % on a database with 300 tables (3,000 columns, 900 indexes) and 2,000 distinct statements, 40 of which
run between two looks. Beside it, on the same server, what one look at statements costs with all texts read each time,
as most tools do, and without. Takes about three minutes.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg

from perfnb.demo.postgres import Postgres as Server
from perfnb.recording import Recording
from perfnb.sources.postgres.source import Postgres

CLAIM = 0.01
TABLES, STATEMENTS, A_SECOND = 300, 2000, 4
COLUMNS = ", ".join(f"c{number} int" for number in range(8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--looks", type=int, default=30, help="looks at statements for the comparison")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "postgres.log") as server:
        fill(server.dsn)
        result = watch(server.dsn, Path(folder) / "bench.perfnb", options.seconds)
        result |= compare(server.dsn, options.looks)
    if options.format == "json":
        print(json.dumps(result, indent=2))
    else:
        print(
            f"perfnb's session used {result['of_a_core']:.2%} of a core over {options.seconds:.0f} s (claim: under {CLAIM:.0%})"
        )
        print(
            f"  {result['rows']} rows in {result['looks']} looks, {result['errors']} errors; recorded: {result['recorded_mb']:.1f} MB"
        )
        print(
            f"  one look at {STATEMENTS} statements: {result['look_ms']:.1f} ms, with all texts {result['look_with_texts_ms']:.1f} ms"
        )
    sys.exit(0 if result["of_a_core"] < CLAIM and not result["errors"] else 1)


def fill(dsn: str) -> None:
    """Make the tables, and run each statement once."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
        for number in range(TABLES):
            connection.execute(
                f"CREATE TABLE t{number} (id int PRIMARY KEY, note text, {COLUMNS}); CREATE INDEX ON t{number} (c0, c1); "
                f"CREATE INDEX ON t{number} (lower(note)) WHERE c2 > 5; "
                f"INSERT INTO t{number} SELECT n, md5(n::text), n, n % 7, n % 9, 1, 2, 3, 4, 5 FROM generate_series(1, 500) AS n"
            )
        connection.execute("ANALYZE")
        for number in range(STATEMENTS):
            connection.execute(statement(number))


def statement(number: int) -> str:
    """Return one of the distinct statements, as long as those of an app tend to be."""
    table, form = number % TABLES, number // TABLES
    listed = ", ".join(f"a.c{column}" for column in range(form + 1))
    return (
        f"SELECT {listed}, a.note FROM t{table} AS a JOIN t{(table + 1) % TABLES} AS b ON b.id = a.id "
        f"WHERE a.id = {number % 500} AND b.c{form} > {number} ORDER BY a.id LIMIT 10"
    )


def watch(dsn: str, path: Path, seconds: float) -> dict[str, Any]:
    """Return what watching for ``seconds`` cost while a few statements ran."""
    done = threading.Event()
    load = threading.Thread(target=run_some, args=(dsn, done))
    with Recording.create(path) as recording:
        writer = recording.writer()
        load.start()
        with Postgres(writer.write, dsn) as source:
            session = psutil.Process(session_of(dsn))
            began = time.monotonic()
            time.sleep(seconds)
            times = session.cpu_times()
            took = time.monotonic() - began
        done.set()
        load.join()
        writer.close()
    recorded = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    cost = {"of_a_core": (times.user + times.system) / took, "recorded_mb": recorded / 1e6}
    return cost | dict(source.counters)


def session_of(dsn: str) -> int:
    """Return the server process of perfnb's session."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'perfnb'").fetchone()
    assert row is not None
    return int(row[0])


def run_some(dsn: str, done: threading.Event) -> None:
    number = 0
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        while not done.wait(1 / A_SECOND):
            connection.execute(statement(number % STATEMENTS))
            number += 37


def compare(dsn: str, looks: int) -> dict[str, float]:
    """Return the median time of a look with and without texts, taken in turns."""
    took: dict[str, list[float]] = {"look_ms": [], "look_with_texts_ms": []}
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        for _ in range(looks):
            for name, texts in (("look_ms", "false"), ("look_with_texts_ms", "true")):
                began = time.perf_counter()
                connection.execute(f"SELECT * FROM pg_stat_statements({texts})").fetchall()
                took[name].append((time.perf_counter() - began) * 1e3)
    return {name: statistics.median(values) for name, values in took.items()}


if __name__ == "__main__":
    main()
