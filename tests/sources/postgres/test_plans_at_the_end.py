"""A recording ends with the generic plans of the statements that took most of its time."""

import psycopg
from servers import postgres_18
from watching import watched

from perfnb.plans import plan_of

PRELOADED = {"shared_preload_libraries": "pg_stat_statements"}


def test_plans_of_what_ran_while_it_was_watched() -> None:
    with postgres_18(PRELOADED) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements; CREATE TABLE notes (id int PRIMARY KEY, text text)")
        connection.execute("INSERT INTO notes SELECT i, 'note' FROM generate_series(1, 1000) i")
        connection.execute("SELECT count(*) FROM notes WHERE text = 'before'")
        with watched(dsn) as (_, kept):
            for number in range(20):
                connection.execute("SELECT text FROM notes WHERE id = %s AND text <> 'planted secret'", [number])
        (row,) = [each for each in kept["plans"] if "notes" in each["query"]]
        assert (row["origin"], row["duration_ms"]) == ("generic", None)
        assert row["queryid"] == kept.statement("SELECT text FROM notes")["queryid"]
        assert plan_of(row["plan"]).root.relation == "notes"
        assert "secret" not in str(kept["plans"])
        assert not any("pg_catalog" in each["query"] for each in kept["plans"])


def test_statements_that_have_no_plan_are_counted_on_the_timeline() -> None:
    with postgres_18(PRELOADED) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements; CREATE TABLE gone (id int)")
        with watched(dsn) as (_, kept):
            connection.execute("SELECT id FROM gone WHERE id = 3")
            connection.execute("DROP TABLE gone")
        assert any("no plan for 1 of the busiest statements" in event for event in kept.events)
