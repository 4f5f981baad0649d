"""A small app whose settings change how long an answer takes; ``python settings_app.py`` prints its port.

Settings: delay_ms; fails (503 to every question); dies (the process ends at the next question); split, by trace.
"""

import asyncio
import os
from typing import Any

from aiohttp import web

from perfnb.sources.traffic.policies.arms import arm_of

settings: dict[str, Any] = {"delay_ms": 10}


async def ask(request: web.Request) -> web.Response:
    mine = settings
    if split := settings.get("split"):
        mine = split[arm_of(split["trial"], request.headers["traceparent"].split("-")[1])]
    if mine.get("dies"):
        os._exit(1)
    await asyncio.sleep(mine.get("delay_ms", 0) / 1000)
    return web.json_response({"answer": "yes"}, status=503 if mine.get("fails") else 200)


async def read(_: web.Request) -> web.Response:
    return web.json_response(settings)


async def write(request: web.Request) -> web.Response:
    settings.clear()
    settings.update(await request.json())
    return web.json_response(settings)


async def main() -> None:
    app = web.Application()
    app.router.add_post("/ask", ask)
    app.router.add_get("/settings", read)
    app.router.add_post("/settings", write)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
