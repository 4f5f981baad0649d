"""aiohttp with nothing added: requests and answers go out with the headers they came with, and connections are counted."""

import asyncio
import contextlib
import ssl
import time
import urllib.request
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.web_protocol import RequestHandler

HOP_BY_HOP = (
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authenticate",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)
_AUTOMATIC = ("Date", "Server", "Content-Type")

connect_ms: ContextVar[float | None] = ContextVar("connect_ms", default=None)
"""How long the request of the current task waited for a new connection; None where one was reused."""


def without_hops(headers: "CIMultiDict[str]") -> None:
    """Take out the headers that hold for one connection only."""
    for named in headers.getall("Connection", ()):
        for name in named.split(","):
            headers.popall(name.strip(), None)
    for name in HOP_BY_HOP:
        headers.popall(name, None)


def trusted_certificates() -> ssl.SSLContext:
    """Return the system's certificates, and certifi's where it is installed (HTTP clients trust those)."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError, OSError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def way_out(upstream: URL) -> str | None:
    """Return the proxy that the environment names for ``upstream``, looked up once."""
    if upstream.host in ("localhost", "127.0.0.1", "::1") or urllib.request.proxy_bypass(upstream.authority):
        return None
    return urllib.request.getproxies().get(upstream.scheme)


class VerbatimRequest(aiohttp.ClientRequest):
    """A request with no header that the caller did not send."""

    def update_auto_headers(self, skip_auto_headers: Any) -> None:
        """Add none."""
        self._skip_auto_headers = _SKIPPED


_SKIPPED: "CIMultiDict[None]" = CIMultiDict({"Content-Type": None})


class VerbatimAnswer(web.StreamResponse):
    """An answer with no header that the upstream did not send; its head waits for the first write."""

    _send_headers_immediately = False

    async def _prepare_headers(self) -> None:
        added = [name for name in _AUTOMATIC if name not in self.headers]
        await super()._prepare_headers()
        for name in added:
            self.headers.popall(name, None)


class TimedConnector(aiohttp.TCPConnector):
    """Tells each request how long its new connection took; a TraceConfig would cost every request some 20 µs."""

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> "ResponseHandler":
        start = time.perf_counter()
        connection = await super()._create_connection(req, traces, timeout)
        connect_ms.set((time.perf_counter() - start) * 1e3)
        return connection


class CountingServer(web.Server):
    """Numbers the callers' connections and the requests on each."""

    def __init__(self, handler: Any, **settings: Any) -> None:
        super().__init__(handler, **settings)
        self._numbers: dict[RequestHandler, list[int]] = {}
        self._connected = 0

    def connection_made(self, handler: "RequestHandler", transport: asyncio.Transport) -> None:
        """Give the connection the next number."""
        super().connection_made(handler, transport)
        self._connected += 1
        self._numbers[handler] = [self._connected, 0]

    def connection_lost(self, handler: "RequestHandler", exc: BaseException | None = None) -> None:
        """Forget the connection."""
        super().connection_lost(handler, exc)
        self._numbers.pop(handler, None)

    def next_request(self, handler: "RequestHandler") -> tuple[int, int]:
        """Return the connection's number and how many requests it carried, with one more."""
        numbers = self._numbers.get(handler) or [self._connected, 0]  # it may just have been lost
        numbers[1] += 1
        return numbers[0], numbers[1]
