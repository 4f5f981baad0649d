"""A long way between app and provider: a TCP relay that delays what passes, as a far region or a bad route does.

``python -m perfnb.demo.network --to 127.0.0.1:8001 --way '{"delay_ms": 200}'`` prints the address it listens at. Bytes
pass unchanged and in order.
"""

import argparse
import asyncio
import json
import random
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

CHUNK_BYTES = 65536


@dataclass(frozen=True)
class Way:
    """How long the way is: ``delay_ms`` in each direction, up to ``jitter_ms`` more, ``connect_ms`` once a connection."""

    delay_ms: float
    jitter_ms: float = 0
    connect_ms: float = 0


class Relay:
    """Relays connections to ``host`` and ``port``, late."""

    def __init__(self, host: str, port: int, way: Way, *, seed: int = 0) -> None:
        self._host = host
        self._port = port
        self._way = way
        self._rng = random.Random(seed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side ends it."""
        try:
            there, back = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        with suppress(ConnectionError):
            await asyncio.gather(self._pass(reader, back, self._way.connect_ms), self._pass(there, writer, 0))
        for each in (back, writer):
            each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, extra_ms: float) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1000)
        arriving = asyncio.create_task(self._deliver(under_way, writer))
        loop = asyncio.get_running_loop()
        due, open_from = 0.0, loop.time() + extra_ms / 1000
        try:
            while data := await reader.read(CHUNK_BYTES):
                due = max(due, max(open_from, loop.time()) + self._one_way_s())
                await under_way.put((due, data))
        finally:
            await under_way.put((due, b""))
            await arriving

    async def _deliver(self, under_way: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0, due - loop.time()))
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            with suppress(ConnectionError):  # it is told by the reading side too
                await writer.drain()

    def _one_way_s(self) -> float:
        return (self._way.delay_ms + self._rng.uniform(0, self._way.jitter_ms)) / 1000


def main() -> None:
    """Parse the command line and relay until a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", required=True)
    parser.add_argument("--way", type=json.loads, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    host, _, port = given.to.rpartition(":")
    asyncio.run(_serve(Relay(host, int(port), Way(**given.way), seed=given.seed)))


async def _serve(relay: Relay, report: Any = print) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    report(f"relay listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()


def scaled(way: Mapping[str, float], time_scale: float) -> dict[str, float]:
    """Return the way with its times divided by ``time_scale``."""
    return {name: value / time_scale for name, value in way.items()}


if __name__ == "__main__":
    main()
