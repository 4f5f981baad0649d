"""Pass a WebSocket through: messages both ways as they come, pings and closes included."""

import asyncio
import time

import aiohttp
from aiohttp import WSMsgType, web
from multidict import CIMultiDict
from yarl import URL

from perfnb.sources.traffic.exchange import Exchange

_HANDSHAKE = (
    "Host", "Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Protocol", "Content-Length", "Transfer-Encoding",
)  # fmt: skip

Either = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


def is_asked(request: web.BaseRequest) -> bool:
    """Tell whether ``request`` wants to become a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


async def relay(
    session: aiohttp.ClientSession, request: web.BaseRequest, url: URL, exchange: Exchange
) -> web.StreamResponse:
    """Open a WebSocket at ``url``, then the caller's, and pass messages until either side closes.

    Frames are put together and compression is not offered: messages arrive as sent, not necessarily in the same frames.
    Only their number and size are captured.
    A refusal is answered with the upstream's status.
    """
    headers = CIMultiDict(request.headers)
    for name in _HANDSHAKE:
        headers.popall(name, None)
    offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if part.strip()]
    try:
        upstream = await session.ws_connect(
            url, headers=headers, protocols=offered, autoclose=False, autoping=False, max_msg_size=0
        )
    except aiohttp.WSServerHandshakeError as error:
        exchange.status = error.status
        return web.Response(status=error.status, text=error.message)
    except (aiohttp.ClientError, OSError) as error:
        exchange.end, exchange.error = "unreachable", type(error).__name__
        return web.Response(status=502, text=f"{url.origin()} gave no answer: {error}")
    async with upstream:
        chosen = [upstream.protocol] if upstream.protocol else []
        caller = web.WebSocketResponse(
            autoclose=False, autoping=False, compress=False, max_msg_size=0, protocols=chosen
        )
        await caller.prepare(request)
        exchange.status = 101
        exchange.answered = time.perf_counter()
        await _both_ways(caller, upstream, exchange)
        return caller


async def _both_ways(
    caller: web.WebSocketResponse, upstream: aiohttp.ClientWebSocketResponse, exchange: Exchange
) -> None:
    async def outwards() -> None:
        async for message in caller:
            exchange.request_bytes += _size(message)
            await _pass(message, upstream)
        await upstream.close(code=caller.close_code or 1000)

    async def inwards() -> None:
        async for message in upstream:
            if size := _size(message):
                exchange.received(b"", time.perf_counter(), 0)
                exchange.response_bytes += size
            await _pass(message, caller)
        await caller.close(code=upstream.close_code or 1000)

    tasks = [asyncio.ensure_future(way()) for way in (outwards, inwards)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _size(message: aiohttp.WSMessage) -> int:
    """Return how long a message is; 0 for pings and pongs."""
    return len(message.data) if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) else 0


async def _pass(message: aiohttp.WSMessage, to: Either) -> None:
    match message.type:
        case WSMsgType.TEXT:
            await to.send_str(message.data)
        case WSMsgType.BINARY:
            await to.send_bytes(message.data)
        case WSMsgType.PING:
            await to.ping(message.data)
        case WSMsgType.PONG:
            await to.pong(message.data)
