"""Redis, read from a real server; search indexes from answers as Redis documents them."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vector_servers import Written, redis_server

from perfnb.attribution.objects import objects
from perfnb.errors import NotPermitted, NotReachable
from perfnb.recorder import Recorder
from perfnb.recording import Recording
from perfnb.sources.redis import Redis
from perfnb.sources.redis_rows import index_properties, key_facts, prefix_of
from perfnb.target import Target

redis = pytest.importorskip("redis")


def test_memory_hits_expiry_and_prefixes_of_a_real_server(tmp_path: Path) -> None:
    written = Written()
    with redis_server(tmp_path, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru") as port:
        with redis.Redis(port=port) as client:
            for n in range(50):
                client.set(f"session:anna-{n}", "x" * 100)
            for n in range(1, 7):
                client.set(f"answer:{n}", "y", ex=100)
            client.set("anna:mail", "z")
            client.get("answer:1")
            client.get("missing")
        with Redis(written, f"redis://127.0.0.1:{port}", interval_s=60):
            pass
    store = written.things("store")[f"127.0.0.1:{port}"]
    assert store["eviction"] == "allkeys-lru"
    assert store["memory_limit_bytes"] == 64 * 2**20
    assert (store["keys"], store["keys_sampled"], store["keys_without_expiry"]) == (57, 57, 51)
    assert store["prefixes"] == {"session:*": 50, "answer:*": 6, "*": 1}
    values = written.values("server")
    assert (values["hits"], values["misses"], values["evictions"]) == (1, 1, 0), "looking counts as nothing"
    assert (values["keys"], values["keys_with_expiry"]) == (57, 6)
    assert values["memory_used_bytes"] > 500_000
    assert values["command_time_ms"] > 0
    assert values["slow_commands"] == 0
    assert written.things("collection") == {}, "this Redis has no search"


def test_evictions_of_a_full_server_are_counted(tmp_path: Path) -> None:
    written = Written()
    with redis_server(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru") as port:
        with redis.Redis(port=port) as client:
            for n in range(400):
                client.set(f"answer:{n}", "x" * 20_000)
        with Redis(written, f"127.0.0.1:{port}", interval_s=60):
            pass
    assert written.values("server")["evictions"] > 100


def test_nothing_of_keys_values_or_passwords_is_written(tmp_path: Path) -> None:
    written = Written()
    with redis_server(tmp_path, "--requirepass", "hunter-secret") as port:
        with redis.Redis(port=port, password="hunter-secret") as client:
            client.set("anna.smith@example.org", "private value")
            client.set("anna:smith", "private value")
            for n in range(9):
                client.set(f"user:anna.smith{n}", "private value")
        with Redis(written, f"redis://:hunter-secret@127.0.0.1:{port}", interval_s=60):
            pass
    text = json.dumps(written.rows)
    assert "hunter" not in text
    assert "anna" not in text
    assert "private" not in text
    assert "user:*" in text


def test_a_password_comes_from_the_environment_and_a_missing_one_is_told(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--requirepass", "hunter-secret") as port:
        url = f"redis://127.0.0.1:{port}"
        refused = Redis(Written(), url, environment={}).probe()
        assert not refused.works
        assert "REDIS_PASSWORD" in refused.needs
        with pytest.raises(NotPermitted) as raised:
            Redis(Written(), f"redis://:wrong-one@127.0.0.1:{port}").__enter__()
        assert "wrong-one" not in str(raised.value)
        ready = Redis(Written(), url, environment={"REDIS_PASSWORD": "hunter-secret"}).probe()
        assert ready.works
        assert ready.found == "0 keys"


def test_nobody_there_is_told_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NotReachable) as raised:
        Redis(Written(), f"redis://:hunter-secret@127.0.0.1:{port}").__enter__()
    assert str(port) in str(raised.value)
    assert "hunter" not in str(raised.value)


def test_a_server_that_goes_away_is_told_once_and_read_again(tmp_path: Path) -> None:
    written = Written()
    with redis_server(tmp_path) as port:
        source = Redis(written, f"127.0.0.1:{port}", interval_s=60)
        source.__enter__()
    source._try()
    source._try()
    assert source.counters["errors"] == 2
    assert [row["title"] for row in written.rows["events"]] == ["redis could not be read"]
    source.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("session:4f2a:history", "session:*"),
        ("cache/anna/1", "cache/*"),
        ("anna.smith@example.org", "*"),
        ("anna smith", "*"),
        ("4711:orders", "*"),
        ("rag|doc|17", "rag|*"),
        ("", "*"),
        (":", "*"),
    ],
)
def test_a_key_is_shown_by_its_first_word_alone(key: str, shown: str) -> None:
    assert prefix_of(key) == shown


FT_INFO: list[Any] = [
    b"index_name", b"idx:docs", b"index_options", [],
    b"attributes", [
        [b"identifier", b"$.tenant", b"attribute", b"tenant", b"type", b"TAG", b"SEPARATOR", b","],
        [b"identifier", b"embedding", b"attribute", b"embedding", b"type", b"VECTOR", b"algorithm", b"HNSW",
         b"data_type", b"FLOAT32", b"dim", 768, b"distance_metric", b"COSINE", b"M", 16, b"ef_construction", 200],
    ],
    b"num_docs", b"20000", b"vector_index_sz_mb", b"70.5", b"indexing", b"1", b"percent_indexed", b"0.25",
]  # fmt: skip


@pytest.mark.parametrize("as_map", [False, True])
def test_a_search_index_is_read_in_both_protocols(as_map: bool) -> None:
    told = dict(zip(FT_INFO[::2], FT_INFO[1::2], strict=True)) if as_map else FT_INFO
    ((field, known),) = index_properties(told)
    assert field == "embedding"
    assert known["index"] == "hnsw"
    assert known["status"] == "indexing"
    assert (known["points"], known["indexed_points"], known["dimensions"]) == (20_000, 5_000, 768)
    assert known["build"] == {"m": 16, "ef_construction": 200}
    assert known["fields"] == {"tenant": "tag"}
    assert known["bytes"] == int(70.5 * 2**20)


def test_an_index_without_vectors_is_no_collection() -> None:
    assert list(index_properties([b"index_name", b"texts", b"attributes", [FT_INFO[5][0]]])) == []


@given(st.lists(st.text(max_size=30), max_size=40))
def test_no_key_is_told_and_none_is_lost(keys: list[str]) -> None:
    told = key_facts(keys)
    assert sum(told["prefixes"].values()) == told["keys_sampled"] == len(keys)
    for prefix, count in told["prefixes"].items():
        assert prefix == "*" or count >= 5


def test_a_recorder_watches_redis_beside_what_else_there_is(tmp_path: Path) -> None:
    with redis_server(tmp_path) as port:
        target = Target(redis=f"redis://127.0.0.1:{port}", qdrant=":memory:")
        with Recorder(target, tmp_path / "made.perfnb", tell=lambda line: None) as recorder:
            assert set(recorder.running) == {"redis"}
            assert "exact search" in recorder.refused["qdrant"]
    made = Recording.open(tmp_path / "made.perfnb")
    (store,) = objects(made, "store").to_dict("records")
    assert (store["engine"], store["eviction"], store["keys"]) == ("redis", "noeviction", 0)
    assert made.query("SELECT count(*) AS n FROM samples WHERE source = 'redis'")["n"].iloc[0] > 10
