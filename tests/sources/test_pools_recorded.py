"""``perfnb record --pgbouncer DSN --metrics URL``: from the target's settings to the recording."""

import json
from pathlib import Path

import psycopg
import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server
from psycopg.conninfo import conninfo_to_dict
from servers import postgres_18, through_pgbouncer
from typer.testing import CliRunner

from perfnb.cli import app
from perfnb.recording import Recording
from perfnb.sources import kinds
from perfnb.target import Target


def test_both_are_recorded_and_no_password_is_kept(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    Gauge("db_client_connection_pending_requests", "waiting", registry=registry).set(2)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    url = f"http://me:swordfish@127.0.0.1:{server.server_port}/metrics"
    out = tmp_path / "made.perfnb"
    with postgres_18() as dsn, through_pgbouncer(dsn) as pooled:
        with psycopg.connect(pooled, prepare_threshold=None) as connection:
            connection.execute("SELECT 1")
        done = CliRunner().invoke(
            app, ["record", "--pgbouncer", pooled, "--metrics", url, "--seconds", "1", "--out", str(out)]
        )
        password = str(conninfo_to_dict(dsn)["password"])
    server.shutdown()
    server.server_close()
    thread.join()
    assert done.exit_code == 0, done.output
    made = Recording.open(out)
    counted = made.query("SELECT source, count(DISTINCT metric) AS n FROM samples GROUP BY source").set_index("source")[
        "n"
    ]
    assert counted["prometheus"] == 1
    assert counted["pgbouncer"] >= 10
    assert made.query("SELECT name FROM catalog WHERE kind = 'pool'")["name"].unique().tolist() == [
        "supportdesk/postgres"
    ]
    for secret in (password, "swordfish"):
        assert secret not in done.output
        assert all(secret.encode() not in path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_the_target_names_them_and_does_not_show_them(tmp_path: Path) -> None:
    (tmp_path / "perfnb.toml").write_text(
        '[target]\npgbouncer = "postgresql://app:swordfish@db:6432/shop"\nmetrics = ["http://a/metrics", "http://b/metrics"]\n'
    )
    target = Target.load(tmp_path, environment={})
    assert target.pgbouncer == "postgresql://app:swordfish@db:6432/shop"
    assert target.metrics == ("http://a/metrics", "http://b/metrics")
    assert "swordfish" not in repr(target)
    given = Target.load(tmp_path, environment={"PERFNB_METRICS": "http://c/metrics http://d/metrics"})
    assert given.metrics == ("http://c/metrics", "http://d/metrics")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("pgbouncer", Target()),
        ("metrics", Target()),
        ("pgbouncer", Target(pgbouncer="host=127.0.0.1 port=1 dbname=shop connect_timeout=1")),
        ("metrics", Target(metrics=("http://127.0.0.1:1/metrics",))),
    ],
)
def test_the_doctor_tells_what_is_missing(name: str, target: Target) -> None:
    kind = next(each for each in kinds() if each.name == name)
    readiness = kind.ready(target)
    assert not readiness.works
    assert readiness.found
    assert readiness.needs


def test_an_address_that_is_none_does_not_stop_the_rest(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["record", "--metrics", "nonsense", "--otlp", "--seconds", "0.2", "--out", str(tmp_path / "made.perfnb")]
    )
    assert done.exit_code == 0, done.output
    with Recording.open(tmp_path / "made.perfnb") as made:
        told = made.query("SELECT title, body FROM events WHERE kind = 'source'")
    assert told["title"].tolist() == ["metrics could not start"]
    assert "give a URL" in json.loads(told["body"][0])["why"]
