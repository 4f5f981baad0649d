"""What the worker processes of the LLM proxy and the front do: a pass-through and a recorder, until told to stop."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from perfnb.recording.recording import Recording
from perfnb.sources.traffic.llm_traffic import provider_of
from perfnb.sources.traffic.passthrough import CAPTURE_BYTES, PassThrough, base_url
from perfnb.sources.traffic.policies.arms import State
from perfnb.sources.traffic.recorder_link import RecorderLink
from perfnb.sources.worker import REPORT_EVERY_S

FRONT_CAPTURE_BYTES = 2 * 2**20
"""Of a request to the app or its answer; the front looks for a first content and an error, not for every word."""


async def run(settings: Mapping[str, Any], report: Callable[[dict[str, Any]], None], stop: asyncio.Event) -> None:
    """Pass traffic on and record it until ``stop``; settings are recording, name, kind (llm or http), base, host, port."""
    is_llm = settings["kind"] == "llm"
    source = provider_of(base_url(settings["base"]).host or "") if is_llm else "front"
    link = RecorderLink([settings["recording"], settings["kind"], source], name=settings["name"])
    capture = CAPTURE_BYTES if is_llm else FRONT_CAPTURE_BYTES
    server = PassThrough(settings["base"], link.send, keeps_host=not is_llm, capture_bytes=capture)
    await server.start(settings["host"], settings["port"])
    await link.start()
    has_control = is_llm and settings.get("has_control", True)
    async with _controlled(server, link, settings, source) if has_control else contextlib.nullcontext():
        await _serve(server, link, settings, report, stop)
    await server.stop()
    await link.close()
    report({"counters": {**link.counters, "open": 0}})


async def _serve(
    server: PassThrough,
    link: RecorderLink,
    settings: Mapping[str, Any],
    report: Callable[[dict[str, Any]], None],
    stop: asyncio.Event,
) -> None:
    host = f"[{settings['host']}]" if ":" in settings["host"] else settings["host"]
    ready = {"origin": f"http://{host}:{server.port}", "port": server.port, "pid": os.getpid(), "recorder": link.pid}
    report({"ready": ready, "counters": {**link.counters, "open": 0}})
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), REPORT_EVERY_S)
        report({"counters": {**link.counters, "open": server.open_exchanges}})


@asynccontextmanager
async def _controlled(
    server: PassThrough, link: RecorderLink, settings: Mapping[str, Any], provider: str
) -> AsyncIterator[None]:
    """Let other processes set policies; each change of them is on the timeline."""
    from perfnb.sources.traffic.control import Control
    from perfnb.sources.traffic.policies.engine import Engine

    recording = Path(settings["recording"])
    engine = Engine(server, link.add_event, secret=Recording.open(recording).key, provider=provider)

    def apply(state: State) -> None:
        before = engine.state
        engine.set(state)
        if (state.slots, state.trial) == (before.slots, before.trial):
            return  # only a trial's mark on the calls, which changes with each of its blocks
        link.add_event("knob", f"LLM proxy: {state}", {"knob": "llm", "did": "state", "state": state.shown()})

    control = Control(recording, apply)
    await control.start()
    try:
        yield
    finally:
        await control.stop()
