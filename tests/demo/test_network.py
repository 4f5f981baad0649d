import asyncio
import time

import pytest

from perfnb.demo.network import Relay, Way, scaled


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data.upper())
        await writer.drain()
    writer.close()


async def relayed(way: Way, messages: list[bytes]) -> tuple[list[bytes], list[float]]:
    """Return the answers through a relay before an echo, and how long each took in ms."""
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        relay = Relay("127.0.0.1", server.sockets[0].getsockname()[1], way)
        async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as front:
            reader, writer = await asyncio.open_connection(*front.sockets[0].getsockname())
            answers, times_ms = [], []
            for message in messages:
                started = time.perf_counter()
                writer.write(message)
                answers.append(await reader.readexactly(len(message)))
                times_ms.append((time.perf_counter() - started) * 1000)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
    return answers, times_ms


@pytest.mark.parametrize("way", [Way(0), Way(20), Way(10, jitter_ms=20), Way(5, connect_ms=50)])
def test_bytes_pass_unchanged_and_no_earlier_than_the_way_allows(way: Way) -> None:
    messages = [b"abc", b"x" * 300_000, b"last"]
    answers, times_ms = asyncio.run(relayed(way, messages))
    assert answers == [message.upper() for message in messages]
    assert min(times_ms) >= 2 * way.delay_ms - 1
    assert times_ms[0] >= 2 * way.delay_ms + way.connect_ms - 1


def test_nobody_at_the_other_end_ends_the_connection() -> None:
    async def run() -> bytes:
        relay = Relay("127.0.0.1", 1, Way(0))
        async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as front:
            reader, writer = await asyncio.open_connection(*front.sockets[0].getsockname())
            try:
                return await reader.read()
            except ConnectionError:
                return b""
            finally:
                writer.close()

    assert asyncio.run(run()) == b""


def test_a_time_scale_makes_the_way_shorter() -> None:
    assert scaled({"delay_ms": 200, "connect_ms": 400}, 4) == {"delay_ms": 50, "connect_ms": 100}
