"""An HTTP server that passes every request on to one upstream and every byte back, and hands out what it saw.

What a caller gets is what it would get from the upstream: bytes as they come, in any encoding, redirects and errors
included; a caller that goes away ends its request upstream at once; a slow one slows the upstream down. There are no
timeouts of its own. Nothing is parsed here. Known limits, both aiohttp's: a header with bytes that are not UTF-8 loses
those bytes, and an answer's trailers are left out.

Where requests go: the pass-through stands for the upstream's origin. A path that begins with the upstream's own path is
passed as it is, any other is put behind it. With the upstream ``https://api.example.com/v1``, both ``/v1/models`` and
``/models`` reach ``https://api.example.com/v1/models``.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.http import HttpVersion11
from multidict import CIMultiDict
from yarl import URL

from perfnb.errors import NotReachable, WrongUse
from perfnb.sources.traffic import websocket
from perfnb.sources.traffic.exchange import End, Exchange, kept_headers
from perfnb.sources.traffic.verbatim import (
    CountingServer,
    TimedConnector,
    VerbatimAnswer,
    VerbatimRequest,
    connect_ms,
    trusted_certificates,
    way_out,
    without_hops,
)

CAPTURE_BYTES = 32 * 2**20
"""Bytes of a body that are kept for reading; what is longer passes and is only counted."""
SMALL_BODY_BYTES = 64 * 2**10
IDLE_CONNECTION_S = 4.5
"""Shorter than common servers keep an idle connection (uvicorn and Node 5 s): else a request may meet a closing one."""
HEADER_BYTES = 64 * 2**10

# What may go wrong on the way to the upstream: aiohttp's own errors, and a bad address or port among them.
UPSTREAM_ERRORS = (aiohttp.ClientError, OSError, ValueError)


class PassThrough:
    """Listens and passes on; ``record`` gets each exchange once it ended and must neither block nor raise.

    ``forward`` does the work for one request: whoever wants to change what is sent upstream wraps it.
    """

    def __init__(
        self,
        upstream: str,
        record: Callable[[Exchange], None],
        *,
        keeps_host: bool = False,
        capture_bytes: int = CAPTURE_BYTES,
    ) -> None:
        self.upstream = base_url(upstream)
        self.forward: Callable[[web.BaseRequest, Exchange], Any] = self.pass_on
        self.port = 0
        self._origin = str(self.upstream.origin())
        self._base = self.upstream.raw_path.rstrip("/")
        self._record = record
        self._keeps_host = keeps_host
        self._capture_bytes = capture_bytes
        self._open: set[Exchange] = set()

    @property
    def open_exchanges(self) -> int:
        """Return how many requests are under way."""
        return len(self._open)

    async def start(self, host: str, port: int) -> None:
        """Listen on ``host`` and ``port`` (0: any free one, then see ``port``); raises NotReachable."""
        self._session = aiohttp.ClientSession(
            connector=TimedConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_S, ssl=trusted_certificates()),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            request_class=VerbatimRequest,
            proxy=way_out(self.upstream),
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=1000,
        )
        self._server = CountingServer(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=1000,
        )
        try:
            self._listener = await asyncio.get_running_loop().create_server(self._server, host, port, backlog=1024)
        except OSError as error:
            await self._session.close()
            raise NotReachable(
                f"can't listen on {host}:{port}: {error.strerror or error}", hint="name another port, or 0 for any"
            ) from None
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Record what is under way as unfinished, end it and listen no more."""
        self._listener.close()
        for exchange in list(self._open):
            self.end(exchange, "unfinished")
        await self._server.shutdown(0.05)
        await self._session.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = self._begin(request)
        try:
            answer: web.StreamResponse = await self.forward(request, exchange)
            return answer
        except (asyncio.CancelledError, ConnectionError) as error:  # the caller went away
            self.end(exchange, "disconnected")
            raise asyncio.CancelledError from error  # aiohttp ends the connection, and prints no traceback for it
        finally:
            self.end(exchange, exchange.end)

    def _begin(self, request: web.BaseRequest) -> Exchange:
        path, _, query = request.raw_path.partition("?")
        exchange = Exchange(request.method, path, time.time_ns(), time.perf_counter())
        exchange.query = query
        exchange.request_headers = kept_headers(request.headers)
        exchange.connection_id, exchange.connection_requests = self._server.next_request(request.protocol)
        self._open.add(exchange)
        return exchange

    def begin_attempt(self, exchange: Exchange) -> Exchange:
        """Return another attempt at ``exchange``, to be ended or forgotten by whoever makes it."""
        attempt = exchange.again()
        self._open.add(attempt)
        return attempt

    def forget(self, exchange: Exchange) -> None:
        """Record nothing of ``exchange``."""
        self._open.discard(exchange)

    def end(self, exchange: Exchange, end: End) -> None:
        """Record ``exchange`` as ended in this way; only the first call for it does something."""
        if exchange not in self._open:
            return
        self._open.discard(exchange)
        exchange.end = end
        exchange.ended = time.perf_counter()
        self._record(exchange)

    async def pass_on(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Send ``request`` upstream and its answer back."""
        if websocket.is_asked(request):
            url = self._url(request).with_scheme("wss" if self.upstream.scheme == "https" else "ws")
            return await websocket.relay(self._session, request, url, exchange)
        try:
            upstream = await self.ask(request, exchange)
        except UPSTREAM_ERRORS as error:
            if isinstance(error, web.PayloadAccessError | web.RequestPayloadError):
                raise ConnectionResetError from error
            exchange.end, exchange.error = "unreachable", type(error).__name__
            return unreachable(self.upstream, error)
        try:
            return await self.answer(request, upstream, exchange)
        finally:
            upstream.close()  # ends a request that is still under way; a finished one has given its connection back

    async def invite(self, request: web.BaseRequest) -> None:
        """Let a caller that waits for it send its body."""
        if "Expect" in request.headers and request.version == HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0

    async def ask(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        body: bytes | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send the request upstream and return the answer's head; raises UPSTREAM_ERRORS.

        ``body`` goes in the place of what the caller sends, which was invited and read before, and so do the headers in
        ``changes``.
        """
        headers = CIMultiDict(request.headers)
        without_hops(headers)
        if not self._keeps_host:
            headers.popall("Host", None)
        if headers.popall("Expect", None) and body is None:
            await self.invite(request)
        headers.update(changes or {})
        data: bytes | AsyncIterator[bytes] | None = None
        is_sized = "Content-Length" in headers
        if body is not None:
            headers["Content-Length"], is_sized, data = str(len(body)), True, body
            exchange.sent(body, self._capture_bytes)
        elif request.body_exists:
            if request.content.is_eof() or (request.content_length or HEADER_BYTES) < SMALL_BODY_BYTES:
                data = await request.content.read()
                exchange.sent(data, self._capture_bytes)
            else:
                data = self._upload(request.content, exchange)
        upstream = await self._session.request(
            request.method,
            self._url(request),
            headers=headers,
            data=data,
            chunked=None if data is None or is_sized else True,
            allow_redirects=False,
        )
        exchange.answered = time.perf_counter()
        exchange.connect_ms = connect_ms.get()
        exchange.status = upstream.status
        exchange.response_headers = kept_headers(upstream.headers)
        return upstream

    async def _upload(self, content: aiohttp.StreamReader, exchange: Exchange) -> AsyncIterator[bytes]:
        while data := await content.readany():
            exchange.sent(data, self._capture_bytes)
            yield data

    async def answer(
        self,
        request: web.BaseRequest,
        upstream: aiohttp.ClientResponse,
        exchange: Exchange,
        held: Iterable[bytes] = (),
        changes: Mapping[str, str] | None = None,
    ) -> web.StreamResponse:
        """Pass the upstream's answer back: what was ``held`` back of its body first, with the headers in ``changes``."""
        headers = CIMultiDict(upstream.headers)
        without_hops(headers)
        headers.update(changes or {})
        answer = VerbatimAnswer(status=upstream.status, reason=upstream.reason, headers=headers)
        writer = await answer.prepare(request)
        assert writer is not None
        content = upstream.content
        if content.is_eof():  # all of it is here: head and body leave in one packet, as they came
            await answer.write_eof(b"".join([*held, self.noted(content.read_nowait(), exchange)]))
            return answer
        writer.send_headers()
        for data in held:
            await answer.write(data)
        while True:
            try:
                data = await content.readany()
            except UPSTREAM_ERRORS as error:
                exchange.end, exchange.error = "broken", type(error).__name__
                request.protocol.force_close()  # the caller sees the answer break off, as it did here
                return answer
            if not data:
                break
            await answer.write(self.noted(data, exchange))
        await answer.write_eof()
        return answer

    def noted(self, data: bytes, exchange: Exchange) -> bytes:
        """Note a piece of the answer that came just now, and return it."""
        if data:
            exchange.received(data, time.perf_counter(), self._capture_bytes)
        return data

    async def fetch(self, exchange: Exchange, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Post ``body`` to the exchange's path on the proxy's own account and return the answer; raises UPSTREAM_ERRORS."""
        exchange.sent(body, self._capture_bytes)
        url = self._url_of(exchange.path + (f"?{exchange.query}" if exchange.query else ""))
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as upstream:
            exchange.answered, exchange.status = time.perf_counter(), upstream.status
            exchange.response_headers = kept_headers(upstream.headers)
            return self.noted(await upstream.read(), exchange)

    def _url(self, request: web.BaseRequest) -> URL:
        path = request.raw_path
        return self._url_of(path if path.startswith("/") else request.rel_url.raw_path_qs)  # a proxy's absolute form

    def _url_of(self, path: str) -> URL:
        if self._base and not path.startswith((f"{self._base}/", f"{self._base}?")) and path != self._base:
            path = self._base + path
        return URL(self._origin + path, encoded=True)


def base_url(text: str) -> URL:
    """Return ``text`` as a base URL; raises WrongUse where it is none."""
    try:
        url = URL(text)
        is_usable = url.scheme in ("http", "https") and bool(url.host) and not url.query_string
    except ValueError:
        is_usable = False
    if not is_usable:
        raise WrongUse(f"{text!r} is no base URL", hint="write it like https://api.openai.com/v1")
    return url


def unreachable(upstream: URL, error: Exception) -> web.Response:
    """Return the answer a caller gets where nothing answers upstream."""
    message = f"{upstream.origin()} gave no answer: {error or type(error).__name__}"
    return web.json_response({"error": {"message": message, "type": "upstream_unreachable"}}, status=502)
