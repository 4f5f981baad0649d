import psycopg
import pytest
import servers


@pytest.mark.parametrize("version", servers.VERSIONS)
def test_a_server_of_each_version_counts_statements(version: int) -> None:
    with servers.running(version, {"work_mem": "7MB"}) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.info.server_version // 10000 == version
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
        connection.execute("CREATE EXTENSION pg_stat_statements")
        assert connection.execute("SELECT count(*) > 0 FROM pg_stat_statements").fetchone() == (True,)


def test_hypothetical_indexes_are_at_hand() -> None:
    with servers.with_hypopg() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION hypopg")
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id")
        made = connection.execute("SELECT indexname FROM hypopg_create_index('CREATE INDEX ON t (id)')").fetchone()
        assert "btree" in made[0]


def test_a_main_server_that_is_missing_fails_in_ci_and_skips_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for in_ci, version, expected in (
        ("true", 13, pytest.fail.Exception),
        ("true", 14, pytest.skip.Exception),
        ("", 13, pytest.skip.Exception),
    ):
        monkeypatch.setenv("CI", in_ci)
        with pytest.raises(expected, match=f"no Postgres {version} here"):
            servers.missing(version, "not fetched")
