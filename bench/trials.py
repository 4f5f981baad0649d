"""How often a trial of a change that changes nothing gets a verdict, and how soon a trial's load begins.

Claims: at most 5 % false verdicts over 200 pairs or more; a run of load begins within 0.5 s. One and the same app is
run as A and as B; its blocks are then judged as many trials would have: from each start in turn, at the planned looks.
Beside it the usual way on the same requests: as many blocks before as after, all requests pooled, Mann-Whitney at 5 %.
200 pairs take about 10 minutes; ``--slower 0.1`` makes B's answers take a tenth longer and asks how soon that is found.
``--demo`` runs A against A on the demo stack instead, both arms at once through the LLM proxy (about 15 minutes);
``--demo --slower 0.1`` makes the demo's provider a tenth slower in B, in turns, and runs one whole trial as it is
planned by default; with ``--neighbour`` two busy processes join on the same machine half-way through its pairs.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from scipy.stats import mannwhitneyu

from perfnb import incident
from perfnb.demo.stack import Stack
from perfnb.load import Block, Entry, Generator, Workload, fresh_trace_id
from perfnb.recording import Recording
from perfnb.staging import staged
from perfnb.target import Request
from perfnb.trials import Plan, TrialProgress, run_trial
from perfnb.trials.judge import judge
from perfnb.trials.measure import Evidence, ratios
from perfnb.try_a_change.live import Live

CLAIM_FALSE, CLAIM_START_S = 0.05, 0.5
MEDIAN_S, SPREAD = 0.04, 0.15
DEMO_RATE = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0, help="measured part of a block")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--slower", type=float, default=0.0, help="part by which B is slower; 0 is A against A")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.add_argument("--demo", action="store_true", help="A against A on the demo stack")
    parser.add_argument(
        "--neighbour", action="store_true", help="with --demo: something else takes the machine half-way"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    if options.demo and (options.slower or options.neighbour):
        result = tried_on_demo(options.slower, neighbour=options.neighbour)
        print(json.dumps(result, indent=2))
        return
    if options.demo:
        result = measured_on_demo(options.pairs, options.seconds, min(options.rate, DEMO_RATE))
    else:
        result = measured(options.pairs, options.seconds, options.rate, options.slower)
    print(json.dumps(result) if options.format == "json" else as_text(result))


def as_text(result: dict[str, Any]) -> str:
    lines = (
        []
        if result["start_s"] is None
        else [
            f"load begins within {result['start_s']:.2f} s (claim: {CLAIM_START_S} s), between blocks {result['next_s']:.3f} s"
        ]
    )
    lines += [
        f"{result['pairs']} pairs, {result['void']} void; log ratios of the median vary by {result['sd']:.1%}",
    ]
    for name, outcomes in result["outcomes"].items():
        lines.append(f"{name}: {outcomes}")
    if not result["slower"]:
        pooled = "" if result["pooled"] is None else f"; before and after, pooled: {result['pooled']:.0%}"
        lines.append(f"false verdicts: {result['false']:.1%} (claim: {CLAIM_FALSE:.0%}){pooled}")
    else:
        lines.append(f"pairs until it was found: {result['needed']}")
    return "\n".join(lines)


def measured(pairs: int, seconds: float, rate: float, slower: float) -> dict[str, Any]:
    plan = Plan(looks=(pairs,), alpha=0.05, seconds=seconds, warm_up_s=0.2, settle_s=0.02, most_void=pairs)
    with tempfile.TemporaryDirectory() as folder, app() as url:
        recording = Recording.create(Path(folder) / "bench.perfnb")
        workload = Workload(tuple(Request(f"{url}/ask", json={"seed": seed}) for seed in range(500)), rate)
        start_s, next_s = begun(recording, workload)
        result = run_trial(recording, _Slower(url), slower, workload, plan, changing=_changing)
        evidence = Evidence(recording.path, result.trial)
        numbers = _pairs(recording, result.trial)
        d = ratios(evidence.blocks(), numbers)
        times = _times(recording, result.trial)
        evidence.close()
        recording.close()
    return _result(d, slower, result.void_pairs) | {
        "start_s": start_s, "next_s": next_s, "pooled": _pooled(times, numbers),
    }  # fmt: skip


def measured_on_demo(pairs: int, seconds: float, rate: float) -> dict[str, Any]:
    """Set nothing in either arm of the proxy, with the demo's own cache off, so that every request reaches a model."""
    plan = Plan(looks=(pairs,), alpha=0.05, seconds=seconds, warm_up_s=0.3, settle_s=0.02, most_void=pairs)
    with tempfile.TemporaryDirectory() as folder, staged(Path(folder) / "demo.perfnb", time_scale=4) as stage:
        stage.demo.run_workload(stage.users_url, 3)
        opened = incident.open(Path(folder) / "demo.perfnb")
        live = Live.of(opened)
        assert isinstance(live, Live), live
        live.knob("desk").set({"enable_caching": False})
        result = run_trial(opened.recording, live.knob("llm"), {}, live.workload(rate), plan)
        assert result.mode == "split", result
        evidence = Evidence(opened.recording.path, result.trial)
        blocks = evidence.blocks()
        d = ratios(blocks, [(number, number) for number in sorted({number for number, _ in blocks})])
        evidence.close()
    return _result(d, 0.0, result.void_pairs) | {"start_s": None, "next_s": None, "pooled": None}


def tried_on_demo(slower: float, *, neighbour: bool, seconds: float = 8.0, rate: float = 6.0) -> dict[str, Any]:
    """Run one trial of a provider that is slower by the part ``slower``; return its verdict and what there was to find.

    With ``neighbour`` two busy processes take the machine's cores from the fifth pair on.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
        staged(Path(folder) / "demo.perfnb", time_scale=2) as stage,
    ):
        stage.demo.run_workload(stage.users_url, 3)
        opened = incident.open(Path(folder) / "demo.perfnb")
        live = Live.of(opened)
        assert isinstance(live, Live), live
        live.knob("desk").set({"enable_caching": False})

        def progress(told: TrialProgress) -> None:
            if neighbour and told.pair >= 5 and not joined:
                joined.extend(stack.enter_context(_busy()) for _ in range(2))

        joined: list[int] = []
        knob = _SlowerProvider(stage.demo)
        result = run_trial(
            opened.recording,
            knob,
            slower,
            live.workload(rate),
            Plan(seconds=seconds),
            changing=_changing,
            progress=progress,
        )
    found = next(each for each in result.metrics if each.name == result.primary)
    return {
        "planted": slower, "neighbour": bool(joined), "outcome": result.outcome, "pairs": result.pairs,
        "void": result.void_pairs, "measured": [found.low - 1, found.ratio - 1, found.high - 1],
    }  # fmt: skip


@contextlib.contextmanager
def _busy() -> Iterator[int]:
    """Keep a core busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: sum(range(10000))"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def _result(d: dict[str, list[float]], slower: float, void: int) -> dict[str, Any]:
    """Return what trials that began at each pair in turn would have said of the log ratios ``d``."""
    outcomes = {name: _outcomes(d, name) for name in ("request_duration_ms", "request_duration_p95_ms")}
    decided = [each for found in outcomes.values() for each in found]
    return {
        "pairs": len(d["request_duration_ms"]),
        "void": void,
        "sd": statistics.stdev(d["request_duration_ms"]),
        "slower": slower,
        "outcomes": {name: _counted([outcome for outcome, _ in found]) for name, found in outcomes.items()},
        "false": sum(outcome in ("better", "worse") for outcome, _ in decided) / max(1, len(decided)),
        "needed": sorted(pairs for outcome, pairs in outcomes["request_duration_ms"] if outcome == "worse"),
    }


def begun(recording: Recording, workload: Workload, rounds: int = 5) -> tuple[float, float]:
    """Return how long it takes until a first block of one request is over, and a next one; medians."""
    first, following = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        with Generator(recording.path, workload) as generator:
            generator.run(_single(0))
            first.append(time.perf_counter() - began - MEDIAN_S)
            began = time.perf_counter()
            generator.run(_single(1))
            following.append(time.perf_counter() - began - MEDIAN_S)
    return statistics.median(first), statistics.median(following)


def _single(number: int) -> Block:
    return Block(number, (Entry(0.0, 0, "warm-up", fresh_trace_id()),))


def _pairs(recording: Recording, trial: str) -> list[tuple[int, int]]:
    """Return block numbers of A and B, pair by pair, void ones included; a pair is two blocks in a row."""
    frame = recording.query(
        "SELECT block, any_value(arm) AS arm FROM http_requests WHERE split_part(arm, '/', 1) = $trial GROUP BY block",
        {"trial": trial},
    )
    arms = {int(row.block): row.arm[-1] for row in frame.itertuples()}
    return [(n, n + 1) if arms[n] == "A" else (n + 1, n) for n in sorted(arms)[::2] if n + 1 in arms]


def _times(recording: Recording, trial: str) -> dict[int, list[float]]:
    frame = recording.query(
        "SELECT block, duration_ms FROM http_requests WHERE phase = 'measure' AND split_part(arm, '/', 1) = $trial",
        {"trial": trial},
    )
    return {int(block): list(rows) for block, rows in frame.groupby("block")["duration_ms"]}


def _outcomes(d: dict[str, list[float]], primary: str, *, step: int = 4) -> list[tuple[str, int]]:
    """Return what trials that began at every fourth pair would have said, and how many pairs they took."""
    plan, found = Plan(primary=primary), []
    for start in range(0, max(1, len(d[primary]) - plan.most_pairs + 1), step):
        for look in plan.looks:
            judgement = judge({primary: d[primary][start : start + look]}, plan)
            if judgement.is_final:
                break
        found.append((judgement.outcome, look))
    return found


def _pooled(times: dict[int, list[float]], pairs: Sequence[tuple[int, int]], *, side: int = 8) -> float:
    """Return how often ``side`` blocks before and as many after differ, by Mann-Whitney on their requests."""
    blocks = sorted(number for pair in pairs for number in pair)
    said = []
    for start in range(0, len(blocks) - 2 * side + 1, 4):
        before, after = (
            [ms for number in blocks[begin : begin + side] for ms in times[number]] for begin in (start, start + side)
        )
        said.append(mannwhitneyu(before, after).pvalue < 0.05)
    return sum(said) / max(1, len(said))


def _counted(outcomes: Sequence[str]) -> dict[str, int]:
    return {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}


class _Slower:
    """The part by which the app's answers take longer."""

    name = title = "slower"

    def __init__(self, url: str) -> None:
        self._url = url

    def current(self) -> float:
        return 0.0

    def set(self, value: float) -> None:
        urllib.request.urlopen(f"{self._url}/slower", json.dumps(value).encode(), timeout=10).close()

    def undo(self) -> None:
        self.set(0.0)


class _SlowerProvider:
    """The part by which everything the demo's provider does takes longer."""

    name = title = "slower provider"

    def __init__(self, demo: Stack) -> None:
        self._demo = demo

    def current(self) -> float:
        return 0.0

    def set(self, value: float) -> None:
        self._demo.set_conditions({"slow_factor": 1 + value})

    def undo(self) -> None:
        self.set(0.0)


@contextlib.contextmanager
def _changing(_: Recording, knob: Any, value: float) -> Iterator[None]:
    knob.set(value)
    try:
        yield
    finally:
        knob.undo()


@contextlib.contextmanager
def app() -> Iterator[str]:
    """Run the app in a process of its own."""
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


async def serve() -> None:
    """Be the app: each question takes its own time, log-normal around 40 ms, and one in thirty far longer."""
    slower = [0.0]

    async def ask(request: web.Request) -> web.Response:
        rng = random.Random((await request.json())["seed"])
        seconds = MEDIAN_S * rng.lognormvariate(0, 0.5) * random.lognormvariate(0, SPREAD)
        if random.random() < 0.03:
            seconds *= 3
        await asyncio.sleep(seconds * (1 + slower[0]))
        return web.json_response({"answer": "yes"})

    async def change(request: web.Request) -> web.Response:
        slower[0] = await request.json()
        return web.json_response(slower)

    served = web.Application()
    served.router.add_post("/ask", ask)
    served.router.add_post("/slower", change)
    runner = web.AppRunner(served)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
