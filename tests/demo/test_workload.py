import asyncio
import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from aiohttp import web

from perfnb.demo.workload import Habits, Request, Tally, requests, run, send_all


def test_the_same_seed_gives_the_same_requests() -> None:
    assert list(requests(Habits(), 20, 1)) == list(requests(Habits(), 20, 1))
    assert list(requests(Habits(), 20, 1)) != list(requests(Habits(), 20, 2))


@pytest.mark.parametrize("rate", [1.0, 3.5, 10.0])
def test_requests_come_at_the_rate_and_end_in_time(rate: float) -> None:
    found = list(requests(Habits(rate=rate), 60, 1))
    assert len(found) == pytest.approx(60 * rate, rel=0.2)
    assert all(0 < one.at_s < other.at_s < 60 for one, other in pairwise(found))


def asked(habits: Habits) -> list[Request]:
    return list(requests(habits, 120, 5))


def repeated_share(found: list[Request]) -> float:
    counts = Counter(one.body["message"] for one in found if one.path == "/chat" and "session_id" not in one.body)
    return 1 - len(counts) / sum(counts.values())


def test_ordinary_users_hardly_repeat_themselves() -> None:
    assert repeated_share(asked(Habits())) < 0.1


def test_users_who_repeat_themselves_do_so() -> None:
    assert repeated_share(asked(Habits(repeat_share=0.8, session_share=0.1))) > 0.7


@pytest.mark.parametrize(("path", "share"), [("/chat", 0.92), ("/agent", 0.05), ("/ingest", 0.03)])
def test_each_kind_of_request_has_its_share(path: str, share: float) -> None:
    found = asked(Habits())
    assert sum(one.path == path for one in found) / len(found) == pytest.approx(share, abs=0.05)


def test_a_conversation_has_a_few_turns_that_go_on_from_another() -> None:
    turns = [one for one in asked(replace(Habits(), session_share=0.9)) if one.path == "/chat"]
    sessions = Counter(one.body.get("session_id") for one in turns)
    assert len(sessions) == 9  # eight customers and those who ask once
    assert min(sessions.values()) >= 4


@pytest.mark.parametrize(("documents", "unlike"), [(4, 4), (100, 10)])
def test_a_wiki_sends_its_documents_again(documents: int, unlike: int) -> None:
    found = asked(replace(Habits(), sync_share=0.5, sync_documents=documents))
    sent = Counter(one.body["title"] for one in found if one.body.get("module") == "wiki")
    assert sum(sent.values()) > 100
    assert len(sent) >= unlike if documents > 4 else len(sent) == unlike


async def against(handler: object, wanted: list[Request], patience_s: float) -> Tally:
    app = web.Application()
    app.add_routes([web.post("/chat", handler)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    tally = Tally()
    try:
        await send_all(f"http://127.0.0.1:{runner.addresses[0][1]}", wanted, patience_s, tally)
    finally:
        await runner.cleanup()
    return tally


def test_slow_answers_hold_nothing_up() -> None:
    arrived = []

    async def slow(request: web.Request) -> web.Response:
        arrived.append((await request.json())["n"])
        while len(arrived) < 5:  # nobody is answered before all have come
            await asyncio.sleep(0.01)
        return web.Response()

    wanted = [Request(0.02 * n, "/chat", {"n": n}) for n in range(5)]
    tally = asyncio.run(against(slow, wanted, 30))
    assert sorted(arrived) == [0, 1, 2, 3, 4]
    assert tally.outcomes == {"200": 5}


def test_users_lose_patience_and_failures_are_counted() -> None:
    async def handle(request: web.Request) -> web.Response:
        n = (await request.json())["n"]
        if n == 0:
            await asyncio.sleep(30)
        if n == 1 and request.transport:
            request.transport.abort()
        return web.Response(status=502)

    wanted = [Request(0, "/chat", {"n": n}) for n in range(3)]
    tally = asyncio.run(against(handle, wanted, 0.5))
    assert tally.outcomes == {"gave up": 1, "ServerDisconnectedError": 1, "502": 1}
    assert tally.as_dict()["sent"] == 3


def test_progress_is_reported_as_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(run("http://127.0.0.1:1", 1.3, Habits(rate=5), 1))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["progress"]["sent"] > 0
    assert set(lines[0]["progress"]["outcomes"]) == {"ClientConnectorError"}
