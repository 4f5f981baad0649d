"""What a fault does to the database: settings of the server, statements before the app starts, and work beside it.

``python -m perfnb.demo.database`` does the work beside: it runs each of ``DESK_JOBS`` (JSON) again and again in a
connection of its own to ``DATABASE_URL`` until it is stopped.
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg

CONNECT_TIMEOUT_S = 5


@dataclass(frozen=True)
class Job:
    """Work of others on the same database: ``sql`` every so often, its transaction held open for ``hold_s``."""

    name: str
    sql: str
    every_s: float = 1.0
    hold_s: float = 0.0
    delay_s: float = 0.0


def change(dsn: str, statements: Sequence[str]) -> None:
    """Run statements one after another, each by itself, as some can't run in a transaction; those that fail are left.

    The server counts what each did before the next begins: rows that an UPDATE left dead would else be counted after the
    VACUUM that removed them.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            with suppress(psycopg.errors.UniqueViolation):  # a unique index that can't be built stays behind, invalid
                connection.execute(statement)
            connection.execute("SELECT pg_stat_force_next_flush()")


def work(dsn: str, job: Job) -> None:
    """Do ``job`` for ever; a connection that is lost is made anew."""
    time.sleep(job.delay_s)
    while True:
        began = time.monotonic()
        with (
            suppress(psycopg.Error),
            psycopg.connect(dsn, application_name=job.name, connect_timeout=CONNECT_TIMEOUT_S) as connection,
        ):
            connection.execute(job.sql)
            time.sleep(job.hold_s)
        time.sleep(max(0.0, job.every_s - (time.monotonic() - began)))


def main() -> None:
    """Do the jobs that the environment names."""
    jobs = [Job(**told) for told in json.loads(os.environ["DESK_JOBS"])]
    threads = [threading.Thread(target=work, args=(os.environ["DATABASE_URL"], job), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
