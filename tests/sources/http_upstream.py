"""An upstream for tests, and a client that shows the raw bytes."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Upstream:
    """Where the upstream listens, and what reached it: method, path with query, headers, body."""

    url: str = ""
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@contextlib.asynccontextmanager
async def serving(handler: Handler, *, keeps: bool = True) -> AsyncIterator[Upstream]:
    """Serve every path with ``handler`` in this loop; with ``keeps`` False bodies are left to the handler."""
    upstream = Upstream()

    async def noting(request: web.Request) -> web.StreamResponse:
        body = await request.read() if keeps else b""
        upstream.seen.append((request.method, request.raw_path, dict(request.headers), body))
        return await handler(request)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", noting)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield upstream
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def running(handler: Handler, *, keeps: bool = True) -> Iterator[Upstream]:
    """Serve in a thread of its own."""
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    found: list[Upstream] = []

    async def main() -> None:
        async with serving(handler, keeps=keeps) as upstream:
            found.append(upstream)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def exchange_raw(url: str, request: bytes) -> bytes:
    """Send ``request`` as it is and return all that comes until the server closes."""
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    with contextlib.suppress(ConnectionResetError):
        answer = await reader.read()
    writer.close()
    return answer


def parted(answer: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return status line, header lines and body with the chunked coding undone."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    if any(line.lower() == b"transfer-encoding: chunked" for line in headers):
        data, rest = b"", body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            data, rest = data + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        body = data
    return status, headers, body
