from pathlib import Path

import pytest
from builders import MS, START, Row, answer, call, every, recording, request

from perfnb.areas.slow.hotspots import above_loop, culprit, frames, hot_functions
from perfnb.errors import NotMeasured
from perfnb.finding import Finding

LOOP = "<module> (serve.py:3);Runner.run (python3.11/asyncio/runners.py:118);BaseEventLoop.run_forever (python3.11/asyncio/base_events.py:607);BaseEventLoop._run_once (python3.11/asyncio/base_events.py:1910)"
IDLE = f"{LOOP};EpollSelector.select (python3.11/selectors.py:468)"
UVLOOP_IDLE = "<module> (serve.py:3);Server.run (site-packages/uvicorn/server.py:61);Runner.run (python3.11/asyncio/runners.py:118)"
BUSY = f"{LOOP};Handle._run (python3.11/asyncio/events.py:80);chat (desk/app.py:40);fetch (desk/search.py:12);SSLSocket.read (python3.11/ssl.py:1100)"
UVLOOP_BUSY = f"{UVLOOP_IDLE};chat (desk/app.py:40);fetch (desk/search.py:12)"
THREAD = "run (threading.py:975);_worker (concurrent/futures/thread.py:83);clean (desk/text.py:9)"
ANYIO_WORKER = "Thread._bootstrap (python3.11/threading.py:1002);Thread._bootstrap_inner (python3.11/threading.py:1045);WorkerThread.run (site-packages/anyio/_backends/_asyncio.py:1113)"
ANYIO_IDLE = f"{ANYIO_WORKER};Queue.get (python3.11/queue.py:171);Condition.wait (python3.11/threading.py:327)"
ANYIO_BUSY = f"{ANYIO_WORKER};ask (desk/app.py:31);SSLSocket.read (python3.11/ssl.py:1100)"
WORKING = BUSY.rpartition(";")[0] + ";loads (python3.11/json/__init__.py:346)"  # as BUSY, with no call that waits


def test_frames_are_read() -> None:
    last = frames(BUSY)[-2]
    assert (last.function, last.file, last.line, last.is_library) == ("fetch", "desk/search.py", 12, False)
    assert frames("no form at all")[0].function == "no form at all"


@pytest.mark.parametrize(
    ("stack", "doing"),
    [
        (IDLE, ()),
        (UVLOOP_IDLE, ()),
        (BUSY, ("chat", "fetch", "SSLSocket.read")),
        (UVLOOP_BUSY, ("chat", "fetch")),
        (THREAD, None),
        (ANYIO_IDLE, None),
        (ANYIO_BUSY, None),
    ],
)
def test_what_stands_above_the_loop(stack: str, doing: tuple[str, ...] | None) -> None:
    above = above_loop(frames(stack))
    assert (None if above is None else tuple(frame.function for frame in above)) == doing


def test_the_culprit_is_the_apps_own_frame() -> None:
    assert str(culprit(frames(BUSY))) == "fetch (desk/search.py:12)"


def looks(pattern: str, busy: str = BUSY) -> list[Row]:
    """Return a look every 150 ms: ``x`` finds the loop busy, ``.`` idle."""
    kinds = {"x": busy, ".": IDLE}
    return [
        {"time": START + n * 150 * MS, "pid": 7, "thread": "MainThread", "stack": kinds[mark], "samples": 1,
         "on_cpu": True, "mode": "dump"}
        for n, mark in enumerate(pattern)
    ]  # fmt: skip


ALWAYS = [request(0, 60_000)]


@pytest.mark.parametrize(
    ("pattern", "requests", "found"),
    [
        ("xxxx....xxxx....", ALWAYS, True),
        ("x.x.x.x.x.x.x.x.", ALWAYS, False),  # busy, but never twice in a row
        ("xx" + "." * 12, ALWAYS, False),  # a seventh of the time
        ("xxx" + "." * 18, ALWAYS, False),
        ("xxx" + "." * 16, ALWAYS, True),
        ("................", ALWAYS, False),
        ("xxxxxxxx........", [request(1500, 60_000)], False),  # while nobody waited
    ],
)
def test_blocked_event_loop(tmp_path: Path, pattern: str, requests: list[Row], found: bool) -> None:
    assert (
        isinstance(answer(tmp_path, "blocked-event-loop", stacks=looks(pattern, WORKING), requests=requests), Finding)
        is found
    )


@pytest.mark.parametrize(
    ("blocked", "busy", "idle", "found"),
    [(80, 0, 400, True), (70, 0, 400, False), (0, 300, 400, False), (71, 0, 400, True), (19, 0, 80, False)],
)
def test_a_callback_off_the_processor_holds_the_loop(
    tmp_path: Path, blocked: int, busy: int, idle: int, found: bool
) -> None:
    rows = profile((WORKING, blocked, False), (WORKING, busy, True), (IDLE, idle, False))
    assert isinstance(answer(tmp_path, "blocked-event-loop", stacks=rows, requests=ALWAYS), Finding) is found


def profile(*kinds: tuple[str, int, bool]) -> list[Row]:
    """Return the samples of one profile: stack, how many, whether on the processor."""
    return [
        {"time": START, "pid": 7, "thread": "MainThread", "stack": stack, "samples": count, "on_cpu": on,
         "mode": "profile", "period_ms": 20.0}
        for stack, count, on in kinds
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stack", "waiting", "found"),
    [
        (BUSY, 30, True),  # a read that the loop stands in for 3 % of the time
        (BUSY, 29, False),
        (WORKING, 30, False),  # the like of it, off the processor by chance
    ],
)
def test_a_call_that_only_waits_is_blamed_sooner(tmp_path: Path, stack: str, waiting: int, found: bool) -> None:
    rows = profile((stack, waiting, False), (IDLE, 1000 - waiting, False))
    assert isinstance(answer(tmp_path, "blocked-event-loop", stacks=rows, requests=ALWAYS), Finding) is found


def test_waits_for_the_interpreter_lock_are_everywhere_and_no_place_is_blamed(tmp_path: Path) -> None:
    rows = profile(*((WORKING.replace("fetch", f"step{n}"), 20, False) for n in range(10)))
    assert not isinstance(answer(tmp_path, "blocked-event-loop", stacks=rows, requests=ALWAYS), Finding)


def test_the_line_that_holds_the_loop_is_named(tmp_path: Path) -> None:
    finding = answer(tmp_path, "blocked-event-loop", stacks=looks("xxxxxxxx"), requests=ALWAYS)
    assert isinstance(finding, Finding)
    assert "fetch (desk/search.py:12)" in finding.title
    assert "SSLSocket.read (python3.11/ssl.py:1100)" in finding.evidence[1]


@pytest.mark.parametrize(
    ("lag_ms", "late", "found"), [(900, 6, True), (900, 2, False), (200, 6, False), (250, 6, True)]
)
def test_light_requests_answered_late_tell_too(tmp_path: Path, lag_ms: float, late: int, found: bool) -> None:
    rows = [request(n * 2000, 1500, source="probe") for n in range(10)]
    rows += [
        request(n * 2000 + 300, lag_ms if n < late else 4, source="probe", phase="lag", route="/health")
        for n in range(10)
    ]
    assert isinstance(answer(tmp_path, "blocked-event-loop", requests=rows), Finding) is found


def test_without_stacks_and_probe_nothing_is_claimed(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "blocked-event-loop", requests=ALWAYS)
    with pytest.raises(NotMeasured):
        answer(tmp_path / "b", "python-hot-spot", requests=ALWAYS)


def samples(hot: int, other: int, idle: int) -> list[Row]:
    """Return a profile of 10 ms samples with so many in the app's text cleaning, elsewhere, and idle."""
    kinds = [
        (THREAD, hot, True),
        (f"{LOOP};Handle._run (python3.11/asyncio/events.py:80);send (site-packages/aiohttp/web.py:3)", other, True),
        (IDLE, idle, False),
    ]
    return [
        {"time": START, "pid": 7, "thread": f"t{n}", "stack": stack, "samples": count, "on_cpu": on, "mode": "profile", "period_ms": 10.0}
        for n, (stack, count, on) in enumerate(kinds)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("hot", "other", "found"),
    [(800, 100, True), (100, 800, False), (30, 20, False), (450, 450, True), (340, 550, False)],
)
def test_python_hot_spot(tmp_path: Path, hot: int, other: int, found: bool) -> None:
    rows = every(1000, 10, lambda at: request(at, 900), lambda at: call(at + 500, 300))
    split = {"requests": [r for r in rows if "call_id" not in r], "calls": [r for r in rows if "call_id" in r]}
    assert isinstance(answer(tmp_path, "python-hot-spot", stacks=samples(hot, other, 1000), **split), Finding) is found


def test_hot_functions_count_each_sample_once(tmp_path: Path) -> None:
    frame = hot_functions(recording(tmp_path, stacks=samples(700, 300, 50)))
    assert frame["cpu_s"].sum() == pytest.approx(10)
    assert frame.iloc[0]["where"] == "clean (desk/text.py)"


@pytest.mark.parametrize(
    ("busy", "blamed"),
    [(89, "blocked-event-loop"), (90, "python-hot-spot")],
)
def test_a_loop_that_waits_for_the_interpreter_lock_is_the_hot_spots_consequence(
    tmp_path: Path, busy: int, blamed: str
) -> None:
    """Threads compute, the loop gets the lock seldom, and requests queue: 60 s each for 50 ms of processor time."""
    rows = profile((WORKING, 40, False), (IDLE, 60, False))
    rows += [row | {"thread": "worker"} for row in profile((THREAD, busy, True), (THREAD, 100 - busy, False))]
    made = {"stacks": rows, "requests": [request(n * 20, 60_000) for n in range(100)]}
    found = {
        cause
        for cause in ("blocked-event-loop", "python-hot-spot")
        if isinstance(answer(tmp_path / cause, cause, **made), Finding)
    }
    assert found == {blamed}
