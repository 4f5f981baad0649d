import asyncio
import contextlib
import gzip
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from http_upstream import Handler, Upstream, exchange_raw, parted, serving

from perfnb.errors import NotReachable, WrongUse
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.passthrough import PassThrough, base_url

BIG = bytes(range(256)) * 4 * 2**12  # 4 MB


@contextlib.asynccontextmanager
async def between(url: str, **settings: Any) -> AsyncIterator[tuple[str, list[Exchange], PassThrough]]:
    """A pass-through before ``url``: its address, the exchanges it recorded, itself."""
    exchanges: list[Exchange] = []
    server = PassThrough(url, lambda exchange: exchanges.append(Exchange.decoded(exchange.encoded())), **settings)
    await server.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.port}", exchanges, server
    finally:
        await server.stop()


def get(path: str = "/", *, method: str = "GET", version: str = "1.1", headers: str = "", body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {path} HTTP/{version}\r\nHost: app.example\r\n{headers}{length}Connection: close\r\n\r\n"
    return head.encode() + body


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def plain(request: web.Request) -> web.StreamResponse:
    return web.json_response({"path": request.path, "n": 1})


async def packed(request: web.Request) -> web.StreamResponse:
    return web.Response(body=gzip.compress(b"hello " * 100, mtime=0), headers={"Content-Encoding": "gzip"})


async def chunked(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Odd-CASE": "Kept"})
    await response.prepare(request)
    for number in range(5):
        await response.write(f"data: {number}\n\n".encode())
        await asyncio.sleep(0.005)
    await response.write_eof()
    return response


async def two_cookies(request: web.Request) -> web.StreamResponse:
    response = web.Response(text="x", headers={"Location": "/elsewhere"}, status=302)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


async def big(request: web.Request) -> web.StreamResponse:
    return web.Response(body=BIG)


def status(code: int, **settings: Any) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, **settings)

    return answer


SAME = {
    "JSON": (plain, get("/a")),
    "odd path": (plain, get("/a%2Fb/%7E/../c?x=1&y=%20+é".replace("é", "%C3%A9"))),
    "gzip": (packed, get(headers="Accept-Encoding: gzip\r\n")),
    "stream": (chunked, get()),
    "HTTP 1.0": (plain, get(version="1.0")),
    "HTTP 1.0 stream": (chunked, get(version="1.0")),
    "redirect with cookies": (two_cookies, get()),
    "no content": (status(204), get()),
    "not modified": (status(304), get()),
    "HEAD": (plain, get(method="HEAD")),
    "OPTIONS": (status(200), get(method="OPTIONS")),
    "client error": (status(404, text="nothing here"), get()),
    "rate limit": (status(429, text="slow down", headers={"Retry-After": "2"}), get()),
    "server error": (status(500, body=b"\x00\xff"), get()),
    "own reason": (status(299, reason="Very Fine"), get()),
    "posted": (plain, get(method="POST", body=b'{"a": 1}', headers="Content-Type: application/json\r\n")),
    "posted nothing": (plain, get(method="POST", headers="Content-Length: 0\r\n")),
    "big": (big, get()),
}


@pytest.mark.parametrize(("handler", "request_bytes"), SAME.values(), ids=SAME)
def test_a_caller_gets_what_it_would_get_without(handler: Handler, request_bytes: bytes) -> None:
    async def main() -> None:
        async with serving(handler) as upstream, between(upstream.url) as (url, exchanges, _):
            direct, through = [parted(await exchange_raw(each, request_bytes)) for each in (upstream.url, url)]
            assert without_date(through[1]) == without_date(direct[1])
            assert (through[0], through[2]) == (direct[0], direct[2])
            assert len(exchanges) == 1
            assert exchanges[0].end == "complete"
            assert upstream.seen[0][:2] == upstream.seen[1][:2]
            assert upstream.seen[0][3] == upstream.seen[1][3]

    asyncio.run(main())


def without_date(headers: list[bytes]) -> list[bytes]:
    return sorted(line for line in headers if not line.startswith(b"Date:"))


def test_no_header_is_added_to_a_request_and_those_of_one_connection_are_left_out() -> None:
    sent = "Authorization: Bearer sk-1\r\nX-Mine: a\r\nConnection: x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n"
    request = f"GET / HTTP/1.1\r\nHost: x\r\n{sent}\r\n".encode()

    async def main() -> dict[str, str]:
        async with serving(plain) as upstream, between(upstream.url) as (url, exchanges, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(request)
            await reader.readuntil(b"}")
            writer.close()
            await until(lambda: len(exchanges) == 1)
            assert "sk-1" not in exchanges[0].encoded().decode("latin-1")
            return upstream.seen[0][2]

    headers = asyncio.run(main())
    assert set(headers) == {"Host", "Authorization", "X-Mine"}


@pytest.mark.parametrize(("keeps_host", "host"), [(True, "app.example"), (False, "127.0.0.1")])
def test_host_is_the_upstreams_or_the_callers(keeps_host: bool, host: str) -> None:
    async def main() -> str:
        async with serving(plain) as upstream, between(upstream.url, keeps_host=keeps_host) as (url, _, _):
            await exchange_raw(url, get())
            return upstream.seen[0][2]["Host"]

    assert asyncio.run(main()).partition(":")[0] == host


@pytest.mark.parametrize(
    ("base", "asked", "reached"),
    [
        ("", "/v1/models", "/v1/models"),
        ("/", "/v1/models?a=1", "/v1/models?a=1"),
        ("/v1", "/v1/models", "/v1/models"),
        ("/v1", "/models", "/v1/models"),
        ("/v1/", "/v1?x", "/v1?x"),
        ("/api/v1", "/v10/x", "/api/v1/v10/x"),
        ("/v1", "/", "/v1/"),
    ],
)
def test_where_requests_go(base: str, asked: str, reached: str) -> None:
    async def main() -> str:
        async with serving(plain) as upstream, between(upstream.url + base) as (url, _, _):
            await exchange_raw(url, get(asked))
            return upstream.seen[0][1]

    assert asyncio.run(main()) == reached


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://x/", "http://", "http://x/?key=1", "http://[::1"])
def test_a_bad_base_url_is_refused(url: str) -> None:
    with pytest.raises(WrongUse):
        base_url(url)


def test_a_taken_port_is_told() -> None:
    async def main() -> None:
        async with serving(plain) as upstream, between(upstream.url) as (_, _, server):
            second = PassThrough(upstream.url, lambda exchange: None)
            with pytest.raises(NotReachable):
                await second.start("127.0.0.1", server.port)

    asyncio.run(main())


def test_each_piece_passes_before_the_next_one_is_there() -> None:
    async def main() -> Exchange:
        got_it = asyncio.Event()

        async def waits(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for number in range(3):
                got_it.clear()
                await response.write(b"piece %d" % number)
                await got_it.wait()
            return response

        async with serving(waits) as upstream, between(upstream.url) as (url, exchanges, _):
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                for number in range(3):
                    assert await response.content.readexactly(7) == b"piece %d" % number
                    got_it.set()
            await until(lambda: len(exchanges) == 1)
            return exchanges[0]

    exchange = asyncio.run(main())
    assert exchange.pieces == len(exchange.times) == 3
    assert exchange.times == sorted(exchange.times)
    assert exchange.answered is not None
    assert exchange.answered <= exchange.times[0] <= exchange.duration_ms


def test_the_head_of_a_stream_passes_before_its_first_event() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def waits(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await go_on.wait()
            return response

        async with (
            serving(waits) as upstream,
            between(upstream.url) as (url, _, _),
            aiohttp.ClientSession() as session,
            session.get(url) as response,
        ):
            assert response.status == 200
            go_on.set()

    asyncio.run(main())


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_caller_that_goes_away_ends_its_request_upstream(is_answered: bool) -> None:
    async def main() -> Exchange:
        began, cancelled = asyncio.Event(), asyncio.Event()

        async def endless(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            try:
                if is_answered:
                    await response.prepare(request)
                    await response.write(b"so far")
                began.set()
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return response

        async with serving(endless) as upstream, between(upstream.url) as (url, exchanges, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(get())
            await began.wait()
            if is_answered:
                await reader.readuntil(b"so far")
            writer.close()
            async with asyncio.timeout(10):
                await cancelled.wait()
            await until(lambda: len(exchanges) == 1)
            return exchanges[0]

    exchange = asyncio.run(main())
    assert exchange.end == "disconnected"
    assert exchange.status == (200 if is_answered else None)


def test_nothing_upstream_gives_502_that_says_so() -> None:
    async def main() -> tuple[bytes, Exchange]:
        async with serving(plain) as upstream:
            gone = upstream.url
        async with between(gone) as (url, exchanges, _):
            return await exchange_raw(url, get(method="POST", body=b"{}")), exchanges[0]

    answer, exchange = asyncio.run(main())
    status_line, _, body = parted(answer)
    assert status_line.startswith(b"HTTP/1.1 502")
    assert json.loads(body)["error"]["type"] == "upstream_unreachable"
    assert (exchange.end, exchange.status) == ("unreachable", None)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst",
    ],
)
def test_an_answer_that_breaks_off_breaks_off_for_the_caller_too(answer: bytes) -> None:
    async def main() -> tuple[bytes, Exchange]:
        async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await asyncio.sleep(0.02)
            writer.close()

        server = await asyncio.start_server(breaks, "127.0.0.1", 0)
        async with server, between(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as (url, exchanges, _):
            got = await exchange_raw(url, get())
            return got, exchanges[0]

    got, exchange = asyncio.run(main())
    assert got.partition(b"\r\n\r\n")[2] == answer.partition(b"\r\n\r\n")[2]
    assert exchange.end == "broken"


def test_no_http_upstream_gives_502() -> None:
    async def main() -> tuple[bytes, Exchange]:
        async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail ready\r\n\r\n")
            await reader.read(1)
            writer.close()

        server = await asyncio.start_server(talks, "127.0.0.1", 0)
        async with server, between(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as (url, exchanges, _):
            return await exchange_raw(url, get()), exchanges[0]

    got, exchange = asyncio.run(main())
    assert got.startswith(b"HTTP/1.1 502")
    assert exchange.end == "unreachable"


def test_a_slow_caller_slows_the_upstream_down_and_gets_everything() -> None:
    total = 400

    async def main() -> None:
        written = 0

        async def floods(request: web.Request) -> web.StreamResponse:
            nonlocal written
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(total):
                await response.write(b"x" * 2**16)
                written += 1
            return response

        async with serving(floods) as upstream, between(upstream.url, capture_bytes=2**20) as (url, exchanges, _):
            async with aiohttp.ClientSession(read_bufsize=2**16) as session, session.get(url) as response:
                await response.content.read(1)
                before = -1
                while before != written:
                    before = written
                    await asyncio.sleep(0.2)
                assert written < total
                assert 1 + len(await response.read()) == total * 2**16
            await until(lambda: len(exchanges) == 1)
            assert exchanges[0].is_cut
            assert exchanges[0].response_bytes == total * 2**16
            assert sum(map(len, exchanges[0].answer)) <= 2**20

    asyncio.run(main())


@pytest.mark.parametrize("is_chunked", [True, False])
def test_big_bodies_pass_intact_both_ways(is_chunked: bool) -> None:
    async def main() -> Exchange:
        async def echo(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"X-Chunked": request.headers.get("Transfer-Encoding", "no")})
            await response.prepare(request)
            async for data in request.content.iter_any():
                await response.write(data)
            return response

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(BIG), 10_007):
                yield BIG[start : start + 10_007]

        headers = {} if is_chunked else {"Content-Length": str(len(BIG))}
        async with serving(echo, keeps=False) as upstream, between(upstream.url) as (url, exchanges, _):
            async with aiohttp.ClientSession() as session, session.put(url, data=pieces(), headers=headers) as response:
                assert response.headers["X-Chunked"] == ("chunked" if is_chunked else "no")
                assert hashlib.sha256(await response.read()).digest() == hashlib.sha256(BIG).digest()
            await until(lambda: len(exchanges) == 1)
            return exchanges[0]

    exchange = asyncio.run(main())
    assert exchange.request_body == BIG
    assert b"".join(exchange.answer) == BIG


def test_a_caller_that_asks_first_is_told_to_go_on() -> None:
    async def main() -> bytes:
        async with serving(plain) as upstream, between(upstream.url) as (url, _, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(
                b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
            )
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"{}")
            await reader.read()
            writer.close()
            return upstream.seen[0][3]

    assert asyncio.run(main()) == b"{}"


def test_connections_are_numbered_and_new_ones_upstream_are_timed() -> None:
    async def main() -> list[Exchange]:
        async with serving(plain) as upstream, between(upstream.url) as (url, exchanges, _):
            for _ in range(2):
                async with aiohttp.ClientSession() as session:
                    for _ in range(2):
                        async with session.get(url) as response:
                            await response.read()
            await until(lambda: len(exchanges) == 4)
            return exchanges

    exchanges = asyncio.run(main())
    assert [(each.connection_id, each.connection_requests) for each in exchanges] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [each.connect_ms is not None for each in exchanges] == [True, False, False, False]


def test_what_is_under_way_at_the_end_is_recorded_as_unfinished() -> None:
    async def main() -> list[Exchange]:
        async def endless(request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(60)
            return web.Response()

        async with serving(endless) as upstream:
            async with between(upstream.url) as (url, exchanges, server):
                asking = asyncio.ensure_future(exchange_raw(url, get()))
                await until(lambda: bool(upstream.seen))
                assert server.open_exchanges == 1
            assert await asking == b""
            return exchanges

    (exchange,) = asyncio.run(main())
    assert exchange.end == "unfinished"
    assert exchange.duration_ms > 0


@pytest.mark.parametrize(("sent", "kept"), [("café".encode(), "café"), (b"caf\xe9", "caf?")])
def test_headers_beyond_ascii_can_be_recorded(sent: bytes, kept: str) -> None:
    async def main() -> list[Exchange]:
        handler = status(200, headers={"X-Request-Id": "\xff"})
        async with serving(handler) as upstream, between(upstream.url) as (url, seen, _):
            answer = await exchange_raw(
                url, b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: %s\r\nConnection: close\r\n\r\n" % sent
            )
            assert answer.startswith(b"HTTP/1.1 200")
            assert upstream.seen[0][2]["User-Agent"].startswith(kept.rstrip("?"))
            return seen

    (exchange,) = asyncio.run(main())
    assert exchange.request_headers["user-agent"].startswith(kept)


async def websocket_echo(request: web.Request) -> web.StreamResponse:
    if request.path == "/refused":
        return web.Response(status=403)
    socket = web.WebSocketResponse(protocols=["realtime"])
    await socket.prepare(request)
    async for message in socket:
        if message.data == "close":
            await socket.close(code=4001)
            break
        await (socket.send_bytes(message.data) if isinstance(message.data, bytes) else socket.send_str(message.data))
    return socket


def with_websocket(use: Callable[[aiohttp.ClientSession, str], Awaitable[None]]) -> tuple[list[Exchange], Upstream]:
    async def main() -> tuple[list[Exchange], Upstream]:
        async with serving(websocket_echo) as upstream, between(upstream.url) as (url, exchanges, _):
            async with aiohttp.ClientSession() as session:
                await use(session, url)
            await until(lambda: len(exchanges) == 1)
            return exchanges, upstream

    return asyncio.run(main())


@pytest.mark.parametrize("who_closes", ["caller", "upstream"])
def test_a_websocket_passes_both_ways(who_closes: str) -> None:
    async def talk(session: aiohttp.ClientSession, url: str) -> None:
        async with session.ws_connect(f"{url}/v1/realtime?model=x", protocols=["realtime", "other"]) as socket:
            assert socket.protocol == "realtime"
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            await socket.send_bytes(b"\x00\x01")
            assert await socket.receive_bytes() == b"\x00\x01"
            await socket.ping()
            if who_closes == "upstream":
                await socket.send_str("close")
                assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
                assert socket.close_code == 4001

    (exchange,), upstream = with_websocket(talk)
    assert (exchange.status, exchange.pieces) == (101, 2)
    assert upstream.seen[0][1] == "/v1/realtime?model=x"


def test_a_refused_websocket_is_refused() -> None:
    async def talk(session: aiohttp.ClientSession, url: str) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{url}/refused")
        assert refused.value.status == 403

    (exchange,), _ = with_websocket(talk)
    assert exchange.status == 403
