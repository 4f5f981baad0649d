"""Settings tried on one statement: runs with and without them in turns, each in a transaction that is rolled back.

What is set is read back in the same transaction: a setting that did not take effect is an error, not a result.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from perfnb.errors import NotReachable, WrongUse
from perfnb.knobs.postgres.server import Connection, connect, set_local, told, transaction
from perfnb.knobs.postgres.settings import checked, effective, require_allowed
from perfnb.recording import Recording
from perfnb.trials.database.outcome import LEAST_PAIRS, StatementTrial, Tried
from perfnb.trials.database.statement import Run, Statement, measured, reading_only, stoppable
from perfnb.trials.design import orders
from perfnb.trials.result import Predicts
from perfnb.trials.run import Tell, TrialProgress

MODE = "session"
PAIRS = 10
MOST_S = 60.0
STATEMENT_TIMEOUT_S = 20.0
EXECUTOR = "the time is the executor's: sending rows to the app is not part of it"
RECALL = "whether the rows are the nearest ones is not measured here: the vector tuner does that"
CONFINED = "only the statement's own transactions had the setting"


def try_settings(
    recording: Recording,
    dsn: str,
    statement: Statement,
    settings: Mapping[str, Any],
    *,
    pairs: int = PAIRS,
    most_s: float = MOST_S,
    statement_timeout_s: float = STATEMENT_TIMEOUT_S,
    seed: int = 0,
    prediction: Predicts | None = None,
    progress: Tell = lambda told: None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> StatementTrial:
    """Return whether ``statement`` is faster, or returns more rows, under ``settings``: work_mem, hnsw.ef_search …

    Nothing is changed for any other session. ``stop`` and Ctrl-C end it. Raises WrongUse for a setting or a statement
    the server does not take, NotPermitted, NotReachable.
    """
    if not settings:
        raise WrongUse("no setting is given", hint='like {"work_mem": "64MB"}')
    stop = stop or threading.Event()
    with connect(dsn) as connection, stoppable(connection, stop):
        texts = {name: checked(connection, name, given) for name, given in settings.items()}
        before, value = _read_back(connection, texts)
        title = f"{', '.join(texts)} for one statement"
        tried = Tried(recording, statement, f"postgres.{next(iter(texts))}", title, MODE, before, value)
        turns = _Turns(connection, statement, texts, value, statement_timeout_s)
        try:
            for turn, order in enumerate(_orders(pairs, seed)):
                progress(TrialProgress(tried.trial, turn + 1, pairs, f"the statement, {_in_words(order)}"))
                turns.run(turn, order)
                if turn + 1 >= LEAST_PAIRS and clock() - turns.begun > most_s:
                    break
        except (NotReachable, KeyboardInterrupt) as error:
            is_stopped = stop.is_set() or isinstance(error, KeyboardInterrupt)
            return tried.ended(turns.runs, "stopped" if is_stopped else "aborted", _reason(error, is_stopped))
    notes = [EXECUTOR, CONFINED, *([RECALL] if any(require_allowed(name).extension for name in texts) else [])]
    return tried.judged(turns.runs, turns.pairs, notes=notes, prediction=prediction)


class _Turns:
    """Runs of both arms; each set of values is run once unmeasured in both, so that all is warm."""

    def __init__(
        self,
        connection: Connection,
        statement: Statement,
        texts: Mapping[str, str],
        value: Mapping[str, str],
        timeout_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runs: list[Run] = []
        self.pairs: list[tuple[Run, Run]] = []
        self.begun = clock()
        self._connection = connection
        self._statement = statement
        self._texts = {"A": {}, "B": dict(texts)}
        self._value = dict(value)
        self._timeout_s = timeout_s

    def run(self, turn: int, order: str) -> None:
        """Run both arms in ``order``."""
        if turn < len(self._statement.values):
            for arm in order:
                self._run(arm, turn)
        made = {arm: self._run(arm, turn) for arm in order}
        self.runs += made.values()
        self.pairs.append((made["A"], made["B"]))

    def _run(self, arm: str, turn: int) -> Run:
        connection = self._connection
        with transaction(connection, statement_timeout_s=self._timeout_s), reading_only(connection):
            for name, text in self._texts[arm].items():
                set_local(connection, name, text)
            run = measured(connection, self._statement, arm, turn)
            if arm == "B":
                self._require_in_effect(connection)
        return run

    def _require_in_effect(self, connection: Connection) -> None:
        for name, text in self._value.items():
            if (now := effective(connection, name)) != text:
                raise WrongUse(f"{name} is {now} in the transaction, not {text}", hint="the statement sets it itself")


def _read_back(connection: Connection, texts: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the settings hold without and with ``texts``, as the server tells them."""
    before = {name: effective(connection, name) for name in texts}
    with told(), transaction(connection):
        for name, text in texts.items():
            set_local(connection, name, text)
        value = {name: effective(connection, name) for name in texts}
    if value == before:
        raise WrongUse("the settings are what they are already", hint="choose other values")
    return before, value


def _orders(pairs: int, seed: int) -> Iterator[str]:
    return (order for order, _ in zip(orders(seed), range(max(pairs, LEAST_PAIRS)), strict=False))


def _in_words(order: str) -> str:
    return "without and with the setting" if order == "AB" else "with and without the setting"


def _reason(error: BaseException, is_stopped: bool) -> str:
    return "stopped on request" if is_stopped else str(error)
