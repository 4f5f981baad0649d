"""An asyncio app with known faults: its loop is held by a blocking call, and a thread burns the processor.

Usage: loop_app.py blocked|hot|both|quiet. Prints "ready" and ends when standard input does.
"""

import asyncio
import contextlib
import json
import sys
import threading
import time


def fetch_the_slow_way() -> None:
    time.sleep(0.4)


async def handle_request() -> None:
    fetch_the_slow_way()


async def serve(is_blocked: bool) -> None:
    while True:
        if is_blocked:
            await handle_request()
        await asyncio.sleep(0.02)


def count_tokens_again_and_again() -> None:
    while True:
        json.dumps(list(range(100)))


def wait_for_input() -> None:
    sys.stdin.read()
    loop.call_soon_threadsafe(task.cancel)


fault = sys.argv[1]
if fault in ("hot", "both"):
    threading.Thread(target=count_tokens_again_and_again, name="hot; worker", daemon=True).start()
threading.Thread(target=wait_for_input, name="input", daemon=True).start()
loop = asyncio.new_event_loop()
task = loop.create_task(serve(fault in ("blocked", "both")))
print("ready", flush=True)
with contextlib.suppress(asyncio.CancelledError):
    loop.run_until_complete(task)
