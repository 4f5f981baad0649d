"""Serve the simulated provider: ``python -m perfnb.demo.provider --port 0``; prints the address it listens at."""

import argparse
import asyncio
import json
import signal

from aiohttp import web

from perfnb.demo.provider.conditions import Conditions
from perfnb.demo.provider.server import Provider


def main() -> None:
    """Parse the command line and serve until a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time-scale", type=float, default=1)
    parser.add_argument("--conditions", type=json.loads, default={})
    given = parser.parse_args()
    conditions = Conditions.of(given.conditions)
    provider = Provider(seed=given.seed, time_scale=given.time_scale, conditions=conditions)
    asyncio.run(_serve(provider, given.port))


async def _serve(provider: Provider, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(provider.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    print(f"simulated provider listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await stop.wait()
    await runner.cleanup()


main()
