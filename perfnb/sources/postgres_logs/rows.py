"""What the messages of a server's log tell: durations as spans, auto_explain's plans, temporary files and lock waits."""

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from perfnb.errors import WrongUse
from perfnb.plans import read_plan
from perfnb.sources.postgres.literals import plan_without_literals, without_literals
from perfnb.sources.postgres_logs.entries import Entry

SOURCE = "postgres_logs"
LONGEST_MS = 1e12
MOST_SESSIONS = 10_000
MOST_EVENTS = 200

Row = tuple[str, dict[str, Any]]
"""A table's name and a row of it."""

_DURATION = re.compile(
    r"duration: (?P<ms>[0-9.]+) ms(?:\s+(?:(?P<kind>statement|plan|parse|bind|execute|fastpath function call)"
    r"(?: (?P<name>[^:]*))?:\s*(?P<text>.*))?)?$",
    re.DOTALL,
)
_SAID = re.compile(r"(?:statement|execute [^:]*):\s*(?P<text>.*)", re.DOTALL)
_TEMPORARY = re.compile(r'temporary file: path ".*?", size (\d+)')
_LOCK = re.compile(
    r"process (?P<pid>\d+) (?P<outcome>still waiting for|acquired|avoided deadlock for) (?P<mode>\w+) on (?P<on>.*?)"
    r"(?: by rearranging queue order)? after (?P<ms>[0-9.]+) ms"
)
_HOLDERS = re.compile(r"Process(?:es)? holding the lock: ([\d, ]+)")
_MAINTENANCE = re.compile(r'automatic (?:aggressive )?(vacuum|analyze)[\w ()]* of table "([^"]+)"')
_ELAPSED = re.compile(r"elapsed: ([0-9.]+) s")
_CHECKPOINT = re.compile(r"checkpoint complete: wrote (\d+) buffers.*?total=([0-9.]+) s", re.DOTALL)
_ALARMING = (
    ("deadlock detected", "a deadlock: the server ended one of the transactions"),
    ("sorry, too many clients already", "a client was turned away: no connection was free"),
    ("remaining connection slots are reserved", "a client was turned away: no connection was free"),
    ("checkpoints are occurring too frequently", "checkpoints are occurring too frequently"),
    ("canceling statement due to statement timeout", "a statement ran into statement_timeout"),
    ("canceling statement due to lock timeout", "a statement ran into lock_timeout"),
)


class Messages:
    """Turns messages into rows; ``counters`` tell how many were of which kind.

    auto_explain tells a duration too, of the same execution as log_min_duration_statement does: a statement whose plan
    was logged becomes a span only where its session says no duration of its own right after.
    """

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self._said: OrderedDict[int | None, str] = OrderedDict()
        self._planned: dict[int | None, dict[str, Any]] = {}
        self._readers: tuple[Callable[[Entry], Iterator[Row] | None], ...] = (
            self._duration, self._statement, _temporary_file, _lock_wait, _maintenance, _checkpoint, self._alarm,
        )  # fmt: skip

    def rows(self, entry: Entry) -> Iterator[Row]:
        """Yield the rows that ``entry`` stands for; raises WrongUse where it holds a plan that can't be read."""
        for reader in self._readers:
            found = reader(entry)
            if found is not None:
                yield from found
                return
        self.counters["other"] += 1

    def left(self) -> Iterator[Row]:
        """Yield what waited for a later message."""
        yield from (("spans", row) for row in self._planned.values())
        self._planned.clear()

    def _duration(self, entry: Entry) -> Iterator[Row] | None:
        found = _DURATION.match(entry.message)
        if found is None:
            return None
        ms = float(found["ms"])
        if not ms < LONGEST_MS:
            raise WrongUse(f"a duration of {found['ms']} ms", hint="")
        if found["kind"] == "plan":
            return self._plan(entry, ms, found["text"])
        return self._timed(entry, ms, found["kind"] or "", found["text"])

    def _timed(self, entry: Entry, ms: float, kind: str, text: str | None) -> Iterator[Row]:
        statement = text if text is not None else self._said.pop(entry.pid, None)
        planned = self._planned.pop(entry.pid, None)
        if planned is not None and planned["statement"] != without_literals(statement or ""):
            yield "spans", planned
        if statement is None:
            self.counters["durations without a statement"] += 1
            return
        self.counters["durations"] += 1
        yield "spans", _span(entry, ms, statement, kind)

    def _plan(self, entry: Entry, ms: float, text: str) -> Iterator[Row]:
        plan = read_plan(text)
        self.counters["plans"] += 1
        if (earlier := self._planned.pop(entry.pid, None)) is not None:
            yield "spans", earlier
        document = {name: value for name, value in plan.document.items() if name != "Query Text"}
        yield (
            "plans",
            {
                "time": entry.time,
                "queryid": plan.queryid or (entry.queryid.strip("0") and entry.queryid) or None,
                "query": without_literals(plan.query) or None,
                "plan": plan_without_literals(document),
                "origin": "log",
                "duration_ms": ms,
            },
        )
        if plan.query:
            self._planned[entry.pid] = _span(entry, ms, plan.query, "plan")

    def _statement(self, entry: Entry) -> Iterator[Row] | None:
        """Keep a statement that log_statement wrote: log_duration tells its time in a message of its own."""
        found = _SAID.match(entry.message) if entry.level == "LOG" else None
        if found is None:
            return None
        self._said[entry.pid] = found["text"]
        if len(self._said) > MOST_SESSIONS:
            self._said.popitem(last=False)
        self.counters["statements"] += 1
        return iter(())

    def _alarm(self, entry: Entry) -> Iterator[Row] | None:
        title = next((title for words, title in _ALARMING if words in entry.message), None)
        if title is None:
            return None
        self.counters["alarms"] += 1
        if self.counters["alarms"] > MOST_EVENTS:
            return iter(())
        body = {"source": SOURCE, "pid": entry.pid, "database": entry.database, "statement": _told(entry.statement)}
        return iter([("events", {"time": entry.time, "kind": "alert", "title": title, "body": body})])


def _span(entry: Entry, ms: float, statement: str, kind: str) -> dict[str, Any]:
    """Return a statement as a span; the times to parse and to bind it are steps beside it."""
    text = without_literals(statement)
    verb = (re.match(r"\W*(\w+)", text) or ["", "statement"])[1].upper()
    attributes = {"pid": entry.pid, "user": entry.user, "application": entry.application, "queryid": entry.queryid}
    is_step = kind in ("parse", "bind")
    return {
        "name": f"{kind} {verb}" if is_step else verb,
        "kind": "INTERNAL",
        "service": entry.database or None,
        "operation": "step" if is_step else "database",
        "start_time": entry.time - round(ms * 1e6),
        "duration_ms": ms,
        "status": "OK",
        "statement": text,
        "source": "logs",
        "attributes": {name: value for name, value in attributes.items() if value},
    }


def _temporary_file(entry: Entry) -> Iterator[Row] | None:
    found = _TEMPORARY.match(entry.message)
    if found is None:
        return None
    return _sample(entry, "temp_file_bytes", float(found[1]), "bytes", statement=_told(entry.statement))


def _lock_wait(entry: Entry) -> Iterator[Row] | None:
    found = _LOCK.match(entry.message)
    if found is None:
        return None
    holders = _HOLDERS.search(entry.detail)
    told: dict[str, Any] = {
        "outcome": "acquired" if found["outcome"] == "acquired" else "waiting",
        "mode": found["mode"],
        "on": found["on"],
        "waiting_pid": int(found["pid"]),
        "holders": [int(each) for each in re.findall(r"\d+", holders[1])] if holders else [],
        "statement": _told(entry.statement),
    }
    return _sample(entry, "lock_wait_ms", float(found["ms"]), "ms", **told)


def _maintenance(entry: Entry) -> Iterator[Row] | None:
    found, elapsed = _MAINTENANCE.match(entry.message), _ELAPSED.search(entry.message)
    if found is None or elapsed is None:
        return None
    return _sample(entry, f"auto{found[1]}_ms", float(elapsed[1]) * 1000, "ms", f"table {found[2].partition('.')[2]}")


def _checkpoint(entry: Entry) -> Iterator[Row] | None:
    found = _CHECKPOINT.match(entry.message)
    if found is None:
        return None
    written = _sample(entry, "checkpoint_blocks_written", float(found[1]), "count", "server")
    return iter([*written, *_sample(entry, "checkpoint_ms", float(found[2]) * 1000, "ms", "server")])


def _sample(entry: Entry, metric: str, value: float, unit: str, entity: str = "", **told: Any) -> Iterator[Row]:
    about = entity or (f"database {entry.database}" if entry.database else "server")
    labels = {"pid": entry.pid, **told}
    yield (
        "samples",
        {
            "time": entry.time,
            "source": SOURCE,
            "entity": about,
            "metric": metric,
            "value": value,
            "unit": unit,
            "attributes": {name: each for name, each in labels.items() if each not in (None, "", [])},
        },
    )


def _told(statement: str) -> str:
    return without_literals(statement) if statement else ""
