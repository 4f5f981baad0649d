"""The demo stack: provider, Postgres, app and users, each in a process that dies with this one."""

import json
import os
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psycopg

from perfnb.demo import corpus, database
from perfnb.demo.faults import Fault, merged, named
from perfnb.demo.keeper import Child, Keeper
from perfnb.demo.network import scaled
from perfnb.demo.postgres import Postgres
from perfnb.demo.questions import conversation
from perfnb.demo.workload import SESSIONS, Habits, Request, requests
from perfnb.errors import NotReachable

READY_TIMEOUT_S = 30.0
PAST_MESSAGES = 60
_ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+)")
_NOT_PASSED_ON = ("OPENAI_", "OTEL_", "DESK_", "PERFNB_", "PG", "DATABASE_URL")


class Stack:
    """The parts of the demo, started one by one so that perfnb can stand between them; leaving stops all of them.

    ``faults`` are names of causes. Logs go into ``out``. Everything the provider takes is divided by ``time_scale``.
    """

    def __init__(self, out: Path, *, faults: Iterable[str] = (), time_scale: float = 1, seed: int = 0) -> None:
        self.out = out
        self.faults: tuple[Fault, ...] = named(faults)
        self._time_scale = time_scale
        self._seed = seed
        self._stack = ExitStack()
        self._provider_root = ""
        self._provider_url = ""
        self._dsn = ""
        self._app: Keeper | None = None

    def __enter__(self) -> Self:
        self.out.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop what was started, last first."""
        self._stack.close()

    @property
    def app_pid(self) -> int:
        """Return the app's process."""
        return self._app.pid if self._app else 0

    @property
    def control_url(self) -> str:
        """Return the provider's own address, past any slow network: ``/_control`` and ``/_bill`` are there."""
        return self._provider_root

    def start_provider(self) -> str:
        """Start the simulated provider; returns its base URL, which ends in ``/v1``."""
        conditions = {} if self._begins_at else merged(fault.provider for fault in self.faults)
        options = ["--seed", str(self._seed), "--time-scale", str(self._time_scale)]
        options += ["--conditions", json.dumps(conditions)]
        _, self._provider_root = self._serve("provider", [sys.executable, "-m", "perfnb.demo.provider", *options])
        way = merged(fault.network for fault in self.faults)
        self._provider_url = f"{self._relayed(way) if way else self._provider_root}/v1"
        return self._provider_url

    def _relayed(self, way: Mapping[str, float]) -> str:
        address = self._provider_root.removeprefix("http://")
        options = ["--to", address, "--way", json.dumps(scaled(way, self._time_scale)), "--seed", str(self._seed)]
        return self._serve("network", [sys.executable, "-m", "perfnb.demo.network", *options])[1]

    def start_postgres(self, fill: Callable[[str], None] | None = None) -> str:
        """Start Postgres with the corpus and some past conversations in it; returns its DSN.

        For an app of another kind ``fill`` makes what it needs, faults of its own included.
        """
        server = Postgres(self.out / "postgres.log", settings=self._database.get("settings"))
        if fill is not None:
            self._dsn = self._stack.enter_context(server).dsn
            fill(self._dsn)
            return self._dsn
        with ThreadPoolExecutor(1) as beside:
            filling = beside.submit(corpus.embedded, f"{self._provider_root}/v1")
            self._dsn = self._stack.enter_context(server).dsn
            corpus.fill(self._dsn, filling.result())
        self.add_conversations(1, SESSIONS)
        database.change(self._dsn, self._database.get("sql", ()))
        return self._dsn

    @property
    def dsn(self) -> str:
        """Return how the database is reached; empty where there is none."""
        return self._dsn

    @property
    def _database(self) -> Mapping[str, Any]:
        return merged(fault.database for fault in self.faults)

    def add_conversations(self, first: int, last: int) -> None:
        """Give the customers of these numbers a past of sixty messages each."""
        _add_conversations(self._dsn, range(first, last + 1))

    def start_app(
        self,
        *,
        openai_base_url: str | None = None,
        otlp_endpoint: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Start the app and return its URL; it calls ``openai_base_url`` (the provider's if None) for its models."""
        given = {
            "OPENAI_BASE_URL": openai_base_url or self._provider_url,
            "OPENAI_API_KEY": "simulated",
            "DATABASE_URL": self._dsn,
            "DESK_SETTINGS": json.dumps(merged(fault.app for fault in self.faults)),
            "DESK_RANKING_URL": f"{self._provider_root}/rerank",
            "DESK_TIME_SCALE": str(self._time_scale),
            "PORT": "0",
        }
        if otlp_endpoint:
            given |= {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp_endpoint, "OTEL_BSP_SCHEDULE_DELAY": "500"}
            given |= {"OTEL_SERVICE_NAME": "supportdesk"}
        command = [sys.executable, "-m", "perfnb.demo.app"]
        return self.start_command(command, given | dict(environment or {}))

    def start_command(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        """Start an app of another kind in the demo app's place; returns the address that its first lines name."""
        self._app, url = self._serve("app", command, environment)
        return url

    def start_workload(self, app_url: str, seconds: float, *, habits: Mapping[str, Any] | None = None) -> Keeper:
        """Send users to ``app_url`` for ``seconds``; their progress is in ``workload.log`` as JSON lines.

        ``habits`` are changed further by the faults' (:class:`perfnb.demo.workload.Habits`).
        """
        self.begin(seconds)
        options = ["--url", app_url, "--seconds", str(seconds), "--seed", str(self._seed)]
        options += ["--habits", json.dumps(self._habits(habits))]
        return self._start("workload", [sys.executable, "-m", "perfnb.demo.workload", *options])

    def run_workload(
        self,
        app_url: str,
        seconds: float,
        *,
        habits: Mapping[str, Any] | None = None,
        progress: Callable[[Mapping[str, Any]], None] = lambda report: None,
    ) -> dict[str, Any]:
        """Send users for ``seconds`` and wait for the last answer; returns what came of the requests.

        ``progress`` is given the counts so far about once a second.
        """
        users = self.start_workload(app_url, seconds, habits=habits)
        while not users.wait(1):
            progress(_last_report(users.child.log))
        return _summary(users)

    def planned(self, seconds: float, *, habits: Mapping[str, Any] | None = None, day: int = 0) -> list[Request]:
        """Return what the users would send within ``seconds``, for whoever sends it by other means; each day differs."""
        return list(requests(Habits(**self._habits(habits)), seconds, self._seed + day))

    def patience_s(self, habits: Mapping[str, Any] | None = None) -> float:
        """Return how long the users wait for an answer, for whoever sends their requests by other means."""
        return Habits(**self._habits(habits)).patience_s

    def _habits(self, habits: Mapping[str, Any] | None) -> dict[str, Any]:
        return {**(habits or {}), **merged(fault.workload for fault in self.faults)}

    def begin(self, seconds: float) -> None:
        """Begin a run of ``seconds``: for faults that set in part-way through, and for those of others' work beside it.

        :meth:`start_workload` does it; whoever sends requests by other means does it before the first.
        """
        if jobs := self._database.get("jobs"):
            told = {"DATABASE_URL": self._dsn, "DESK_JOBS": json.dumps(jobs)}
            self._start("jobs", [sys.executable, "-m", "perfnb.demo.database"], told)
        if self._begins_at:
            conditions = merged(fault.provider for fault in self.faults)
            self.set_conditions(conditions | {"slow_after_s": self._begins_at * seconds})

    def set_conditions(self, conditions: Mapping[str, Any]) -> None:
        """Change the provider's conditions while it runs."""
        body = json.dumps(dict(conditions)).encode()
        request = urllib.request.Request(f"{self._provider_root}/_control", data=body)
        urllib.request.urlopen(request, timeout=10).close()

    def bill(self) -> dict[str, Any]:
        """Return the provider's own books."""
        with urllib.request.urlopen(f"{self._provider_root}/_bill", timeout=10) as response:
            books: dict[str, Any] = json.load(response)
        return books

    @property
    def _begins_at(self) -> float:
        return max((fault.begins_at for fault in self.faults), default=0)

    def _serve(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> tuple[Keeper, str]:
        keeper = self._start(name, command, environment)
        return keeper, _address(keeper)

    def _start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Keeper:
        log = self.out / f"{name}.log"
        log.unlink(missing_ok=True)
        child = Child(name, command, log, _clean_environment() | dict(environment or {}))
        return self._stack.enter_context(Keeper(child))


def _clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)}
    return kept | {"PYTHONUNBUFFERED": "1"}


def _address(keeper: Keeper) -> str:
    """Return the address a server says it listens at, once it does."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while keeper.is_alive and time.monotonic() < deadline:
        if keeper.child.log.exists() and (found := _ADDRESS.search(keeper.child.log.read_text(errors="replace"))):
            return found[1]
        time.sleep(0.05)
    ended = "ended" if not keeper.is_alive else f"did not listen within {READY_TIMEOUT_S:.0f} s"
    hint = f"its log is {keeper.child.log}"
    raise NotReachable(f"the demo's {keeper.child.name} {ended}:\n{keeper.last_lines()}", hint=hint)


def _add_conversations(dsn: str, numbers: Iterable[int]) -> None:
    with psycopg.connect(dsn) as connection:
        for number in numbers:
            session = f"customer-{number}"
            connection.execute("INSERT INTO sessions (id) VALUES (%s)", (session,))
            rows = [(session, role, content) for role, content in conversation(number, PAST_MESSAGES)]
            connection.cursor().executemany(
                "INSERT INTO messages (session_id, role, content) VALUES (%s, %s, %s)", rows
            )


def _last_report(log: Path) -> dict[str, Any]:
    lines = [line for line in log.read_text().splitlines() if line.startswith('{"progress"')] if log.exists() else []
    report: dict[str, Any] = json.loads(lines[-1])["progress"] if lines else {}
    return report


def _summary(users: Keeper) -> dict[str, Any]:
    last = users.last_lines(1)
    if not last.startswith('{"summary"'):
        raise NotReachable(f"the demo's users ended early:\n{users.last_lines()}", hint=f"see {users.child.log}")
    summary: dict[str, Any] = json.loads(last)["summary"]
    return summary
