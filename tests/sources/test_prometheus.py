"""Pages of metrics, read from real HTTP servers: prometheus_client's own, and some that misbehave."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from perfnb.errors import NotPermitted, NotReachable, WrongUse
from perfnb.sources.prometheus import Prometheus, _series


class Collected(list[tuple[str, dict[str, Any]]]):
    def emit(self, table: str, rows: Iterable[Any]) -> int:
        made = [(table, row) for row in rows]
        self.extend(made)
        return len(made)


def nowhere(table: str, rows: Iterable[Any]) -> int:
    return len(list(rows))


@contextmanager
def app(registry: CollectorRegistry) -> Iterator[str]:
    """Serve ``registry`` as apps do."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def page(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve what ``answer`` writes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


def text(
    body: bytes, *, status: int = 200, kind: str = "text/plain; version=0.0.4", **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in ({"Content-Type": kind} | headers).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Gauge("db_client_connection_pending_requests", "waiting", ["pool"], registry=made).labels("main").set(3)
    Counter("chats", "asked", registry=made).inc(7)
    Histogram("answer_seconds", "how long", buckets=(1, 5), registry=made).observe(2)
    return made


def samples(source: Prometheus) -> dict[str, float]:
    return {row["metric"]: row["value"] for table, row in source.look() if table == "samples"}


def test_an_apps_page() -> None:
    with app(registry()) as url:
        source = Prometheus(nowhere, (url,))
        assert source.probe().works
        rows = [row for _, row in source.look()]
    values = {(row["metric"], row["attributes"].get("le", "")): row["value"] for row in rows}
    assert values == {
        ("db_client_connection_pending_requests", ""): 3, ("chats_total", ""): 7, ("answer_seconds_count", ""): 1,
        ("answer_seconds_sum", ""): 2, ("answer_seconds_bucket", "1.0"): 0, ("answer_seconds_bucket", "5.0"): 1,
        ("answer_seconds_bucket", "+Inf"): 1,
    }  # fmt: skip
    assert {row["source"] for row in rows} == {"prometheus"}
    assert {row["entity"] for row in rows} == {url.removeprefix("http://")}
    assert rows[0]["attributes"] == {"pool": "main"}


def test_openmetrics_by_its_type() -> None:
    body = b"# TYPE chats counter\n# UNIT chats \nchats_total 7.0\nchats_created 1.7e9\n# TYPE wait_seconds gauge\n# UNIT wait_seconds seconds\nwait_seconds 0.5\n# EOF\n"
    with page(text(body.replace(b"# UNIT chats \n", b""), kind="application/openmetrics-text; version=1.0.0")) as url:
        rows = [row for _, row in Prometheus(nowhere, (url,)).look()]
    assert [(row["metric"], row["value"], row["unit"]) for row in rows] == [
        ("chats_total", 7, ""),
        ("wait_seconds", 0.5, "seconds"),
    ]


def test_what_is_no_number_is_left_out() -> None:
    with page(text(b"a 1\nb NaN\nc +Inf\nd -2.5e3\n")) as url:
        assert samples(Prometheus(nowhere, (url,))) == {"a": 1, "d": -2500}


def test_secrets_are_sent_and_not_kept() -> None:
    seen: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers.get("Authorization", ""))
        text(
            b'a{api_key="sk-abcdefghijklmnop",pool="main",dsn="postgresql://app:swordfish@db/shop"} 1\n'
            b'b{password="swordfish",note="bearer abcdefghijklmnop"} 2\n'
        )(request)

    with page(answer) as url:
        source = Prometheus(nowhere, (url.replace("http://", "http://me:sword%40fish@"),))
        rows = [row for _, row in source.look()]
    assert seen == ["Basic bWU6c3dvcmRAZmlzaA=="]
    assert rows[0]["attributes"]["pool"] == "main"
    assert "sword" not in str(rows)
    assert "abcdefghijklmnop" not in str(rows)
    assert "me" not in rows[0]["entity"].split(":")


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (text(b"", status=302, Location="http://127.0.0.1:1/elsewhere"), NotReachable, "sends elsewhere"),
        (text(b"", status=401), NotPermitted, "answers 401"),
        (text(b"", status=403), NotPermitted, "answers 403"),
        (text(b"", status=404), NotReachable, "answers 404"),
        (text(b"<html><body>hello</body></html>"), NotReachable, "shows no metrics"),
        (text(b'{"status": "ok", "answers": [1, 2]}'), NotReachable, "shows no metrics"),
    ],
)
def test_pages_that_are_none(answer: Any, kind: type[Exception], told: str) -> None:
    with page(answer) as url:
        source = Prometheus(nowhere, (url,))
        with pytest.raises(kind, match=told):
            source.look()
        assert not source.probe().works


def test_a_redirect_is_not_followed() -> None:
    asked: list[str] = []

    def note(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        text(b"a 1\n")(request)

    with page(note) as elsewhere, page(text(b"", status=307, Location=elsewhere)) as url, pytest.raises(NotReachable):
        Prometheus(nowhere, (url,)).look()
    assert asked == []


def test_a_page_too_large_is_refused_and_one_with_many_series_cut() -> None:
    body = b"".join(b"series_%d 1\n" % number for number in range(50))
    with page(text(body)) as url:
        with pytest.raises(NotReachable, match="larger than 100 bytes"):
            Prometheus(nowhere, (url,), most_bytes=100).look()
        source = Prometheus(nowhere, (url,), most_series=20)
        rows = list(source.look())
        assert [table for table, _ in rows] == ["samples"] * 20 + ["events"]
        assert rows[-1][1]["body"] == {"why": "30 are left out"}
        assert [table for table, _ in source.look()] == ["samples"] * 20


def test_a_page_that_never_ends_is_given_up() -> None:
    ended = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while not ended.wait(0.05):
                request.wfile.write(b"a 1\n")
        except OSError:
            pass

    with page(drip) as url:
        with pytest.raises(NotReachable, match="took longer"):
            Prometheus(nowhere, (url,), timeout_s=0.3).look()
        ended.set()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_nobody_there() -> None:
    with pytest.raises(NotReachable) as caught:
        Prometheus(nowhere, (f"http://me:swordfish@127.0.0.1:{closed_port()}/metrics",)).look()
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000/metrics", "ftp://host/metrics", "http://", "file:///etc/passwd"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(WrongUse):
        Prometheus(nowhere, (url,))


def test_one_of_two_that_is_gone_is_told_once() -> None:
    with page(text(b"a 1\n")) as url:
        source = Prometheus(nowhere, (f"http://127.0.0.1:{closed_port()}/metrics", url))
        assert [table for table, _ in source.look()] == ["events", "samples"]
        assert [table for table, _ in source.look()] == ["samples"]


def test_it_is_read_again_and_again_until_it_is_left() -> None:
    rows = Collected()
    with app(registry()) as url, Prometheus(rows.emit, (url,), interval_s=0.05) as source:
        deadline = time.monotonic() + 10
        while source.counters["looks"] < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert source.counters["looks"] >= 4
    assert source.counters["rows"] == len(rows) > 7 * 3
    assert not source.is_alive


def test_an_app_that_is_being_started_is_waited_for() -> None:
    port, rows = closed_port(), Collected()
    url = f"http://127.0.0.1:{port}/metrics"
    with pytest.raises(NotReachable), Prometheus(rows.emit, (url,)):
        pass
    source = Prometheus(rows.emit, (url,), waits=True, interval_s=0.02)
    assert source.probe().works
    with source:
        assert not rows
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry())
        deadline = time.monotonic() + 10
        while not rows and time.monotonic() < deadline:
            time.sleep(0.02)
        assert rows
        server.shutdown()
        server.server_close()
        thread.join()


def test_one_that_is_waited_for_in_vain_is_told() -> None:
    rows = Collected()
    with Prometheus(rows.emit, (f"http://127.0.0.1:{closed_port()}/metrics",), waits=True, interval_s=0.005):
        deadline = time.monotonic() + 10
        while not rows and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [row["title"] for _, row in rows] == ["metrics could not be read"]


@given(st.text(max_size=200), st.booleans())
def test_any_text_is_read_or_refused(body: str, is_openmetrics: bool) -> None:
    """What the parser raises of a broken page is among what the source expects."""
    try:
        for name, labels, value, _ in _series(body, is_openmetrics):
            assert isinstance(name, str)
            assert isinstance(value, float)
            assert all(isinstance(label, str) for label in labels)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        pass


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z_]{1,12}", fullmatch=True),
            st.dictionaries(
                st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.text('ab\\"\n ,={}', max_size=8), max_size=3
            ),
            st.floats(allow_nan=False, allow_infinity=False, width=32),
        ),
        max_size=6,
    )
)
def test_what_is_written_is_read(series: list[tuple[str, dict[str, str], float]]) -> None:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

    lines = []
    for name, labels, value in series:
        inside = ",".join(f'{label}="{escaped(text)}"' for label, text in labels.items())
        lines.append(f"{name}{{{inside}}} {value!r}\n")
    read = [(name, dict(labels), value) for name, labels, value, _ in _series("".join(lines), False)]
    assert read == [each for each in series if not each[0].endswith("_created")]
