"""Users of the demo app: an open loop of seeded, mostly distinct questions, in a process of its own.

``python -m perfnb.demo.workload --url http://127.0.0.1:8000 --seconds 20`` prints a JSON line a second and one with
``summary`` at the end. Requests are sent at their intended times, however long earlier ones take.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from perfnb.demo.questions import documents, follow_ups, openings

SESSIONS = 8


@dataclass(frozen=True)
class Habits:
    """What the users do; shares are of all requests, what is left are questions that stand alone.

    Attributes:
        rate: Requests a second.
        session_share: Turns of a conversation.
        agent_share: Requests to the agent.
        ingest_share: Documents uploaded.
        sync_share: Documents that a wiki sends again whenever it looks for changes …
        sync_documents: … of which it has this many.
        repeat_share: Part of the questions that stand alone which repeat one of ``favourites``.
        patience_s: A user gives up after this long.
        path: Where questions go; an app of another kind than the demo's has no agent and takes no documents.
        question_field: What the question is called in a request's body …
        session_field: … and the conversation.
    """

    rate: float = 3.5
    session_share: float = 0.45
    agent_share: float = 0.05
    ingest_share: float = 0.03
    sync_share: float = 0
    sync_documents: int = 4
    repeat_share: float = 0.08
    favourites: int = 4
    patience_s: float = 30
    path: str = "/chat"
    question_field: str = "message"
    session_field: str = "session_id"


@dataclass(frozen=True)
class Request:
    """One request and when it is meant to be sent, in seconds from the start."""

    at_s: float
    path: str
    body: Mapping[str, Any]


@dataclass
class Tally:
    """What came of the requests so far."""

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    durations_ms: list[float] = field(default_factory=list)
    late_ms: float = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the counts and the times to the last byte."""
        times = sorted(self.durations_ms)
        return {
            "sent": self.sent,
            "outcomes": dict(self.outcomes),
            "median_ms": round(statistics.median(times), 1) if times else None,
            "p95_ms": round(times[int(len(times) * 0.95)], 1) if times else None,
            "worst_lateness_ms": round(self.late_ms, 1),
        }


def requests(habits: Habits, seconds: float, seed: int) -> Iterator[Request]:
    """Yield what is sent within ``seconds``; the same seed gives the same requests at the same times."""
    rng = random.Random(f"requests {seed}")
    fresh, more = openings(seed), follow_ups(seed)
    favourites = [next(fresh) for _ in range(habits.favourites)]
    turns: Counter[str] = Counter()
    synced = itertools.cycle(documents()[: habits.sync_documents])
    at_s = 0.0
    while (at_s := at_s + rng.gammavariate(4, 1 / (4 * habits.rate))) < seconds:
        kind = _kind(habits, rng)
        if kind == "turn":
            session = f"customer-{sum(turns.values()) % SESSIONS + 1}"
            turns[session] += 1
            asked = next(fresh) if turns[session] % 4 == 1 else next(more)
            yield Request(at_s, habits.path, {habits.question_field: asked, habits.session_field: session})
        elif kind == "agent":
            yield Request(
                at_s, "/agent", {"message": next(fresh), "session_id": f"customer-{rng.randint(1, SESSIONS)}"}
            )
        elif kind == "sync":
            title, body = next(synced)
            yield Request(at_s, "/ingest", {"title": title, "body": body, "module": "wiki"})
        elif kind == "ingest":
            note = f"{next(fresh)}\n\nThis was asked often; the answer belongs into the notes of the desk."
            yield Request(at_s, "/ingest", {"title": f"Note {at_s:.3f}", "body": note})
        else:
            is_repeat = rng.random() < habits.repeat_share
            asked = rng.choice(favourites) if is_repeat else next(fresh)
            yield Request(at_s, habits.path, {habits.question_field: asked})


def _kind(habits: Habits, rng: random.Random) -> str:
    weights = (habits.session_share, habits.agent_share, habits.ingest_share, habits.sync_share)
    return rng.choices(("turn", "agent", "ingest", "sync", "single"), (*weights, max(0.0, 1 - sum(weights))))[0]


async def send_all(url: str, wanted: Sequence[Request], patience_s: float, tally: Tally) -> None:
    """Send each request at its time and wait for all answers."""
    timeout = aiohttp.ClientTimeout(total=patience_s)
    async with aiohttp.ClientSession(url, timeout=timeout) as session, asyncio.TaskGroup() as group:
        started = time.perf_counter()
        for request in wanted:
            await asyncio.sleep(max(0, started + request.at_s - time.perf_counter()))
            tally.late_ms = max(tally.late_ms, (time.perf_counter() - started - request.at_s) * 1000)
            tally.sent += 1
            group.create_task(_send(session, request, tally))


async def _send(session: aiohttp.ClientSession, request: Request, tally: Tally) -> None:
    started = time.perf_counter()
    try:
        async with session.post(request.path, json=request.body) as response:
            await response.read()
            tally.outcomes[str(response.status)] += 1
            tally.durations_ms.append((time.perf_counter() - started) * 1000)
    except TimeoutError:
        tally.outcomes["gave up"] += 1
    except aiohttp.ClientError as error:
        tally.outcomes[type(error).__name__] += 1


async def _report(tally: Tally, every_s: float = 1) -> None:
    while True:
        await asyncio.sleep(every_s)
        print(json.dumps({"progress": tally.as_dict()}), flush=True)


async def run(url: str, seconds: float, habits: Habits, seed: int) -> Tally:
    """Send the workload, report progress, return what came of it; ends within ``seconds`` and one user's patience."""
    tally = Tally()
    wanted = list(requests(habits, seconds, seed))
    reporting = asyncio.create_task(_report(tally))
    await send_all(url, wanted, habits.patience_s, tally)
    reporting.cancel()
    return tally


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--habits", type=json.loads, default={})
    given = parser.parse_args()
    habits = replace(Habits(), **given.habits)
    tally = asyncio.run(run(given.url, given.seconds, habits, given.seed))
    print(json.dumps({"summary": tally.as_dict()}), flush=True)


if __name__ == "__main__":
    main()
