"""Send one request and keep its answer as raw bytes with a time for each piece; the probe and the load worker share it."""

import asyncio
import json
import time

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from perfnb import __version__
from perfnb.errors import WrongUse
from perfnb.sources.traffic.exchange import Exchange, kept_headers
from perfnb.target import Request


def client() -> aiohttp.ClientSession:
    """Return a client that behaves the same at every request.

    Bytes as they come, as many connections as it takes, no cookies, no timeouts of its own.
    """
    return aiohttp.ClientSession(
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
    )


def opened(request: Request, started_ns: int, started: float) -> Exchange:
    """Return an exchange for ``request`` whose times count from ``started``."""
    url = URL(request.url)
    exchange = Exchange(request.method.upper(), url.raw_path, started_ns, started)
    exchange.query = url.raw_query_string
    return exchange


def body_of(request: Request) -> bytes | None:
    """Return what is sent as ``request``'s body."""
    return None if request.json is None else json.dumps(request.json).encode()


async def send(
    session: aiohttp.ClientSession,
    request: Request,
    exchange: Exchange,
    capture_bytes: int,
    *,
    traceparent: str | None = None,
) -> None:
    """Send ``request`` and read its answer to the end or to its deadline; how it ended is in ``exchange``.

    Only being cancelled is raised.
    """
    try:
        async with asyncio.timeout(request.timeout_s):
            await _exchange(session, request, exchange, capture_bytes, traceparent)
    except TimeoutError:
        exchange.end = "timeout"
    except asyncio.CancelledError:
        exchange.end = "unfinished"
        raise
    except (aiohttp.ClientError, OSError, ValueError) as error:
        exchange.end = "unreachable" if exchange.status is None else "broken"
        exchange.error = type(error).__name__
    finally:
        exchange.ended = time.perf_counter()


async def _exchange(
    session: aiohttp.ClientSession, request: Request, exchange: Exchange, capture_bytes: int, traceparent: str | None
) -> None:
    body = body_of(request)
    headers = CIMultiDict(request.headers)
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
        exchange.sent(body, capture_bytes)
    headers.setdefault("User-Agent", f"perfnb/{__version__}")
    if traceparent is not None:
        headers["traceparent"] = traceparent
    exchange.request_headers = kept_headers(headers)
    async with session.request(request.method, request.url, headers=headers, data=body) as answer:
        exchange.answered = time.perf_counter()
        exchange.status = answer.status
        exchange.response_headers = kept_headers(answer.headers)
        async for data in answer.content.iter_any():
            exchange.received(data, time.perf_counter(), capture_bytes)


def checked(url: str) -> None:
    """Raise WrongUse where ``url`` is no address to send a request to."""
    try:
        is_usable = URL(url).scheme in ("http", "https") and bool(URL(url).host)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise WrongUse(f"{url!r} is no address to send a request to", hint="write it like http://127.0.0.1:8000/chat")
