"""Tune a vector search on the user's own rows and queries: the cheapest setting that meets a recall target."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from perfnb.errors import PerfnbError, WrongUse
from perfnb.recording import Recording
from perfnb.tuner.advice import advice
from perfnb.tuner.choosing import Choice, Choosing, Split
from perfnb.tuner.engines.base import SELECTIVITIES, Engine, Filter, Question, as_percent
from perfnb.tuner.measuring import Ended, Pace
from perfnb.tuner.questions import CHOOSING, HELD_BACK, NOT_RECORDED, questions
from perfnb.tuner.statement import statement_advice
from perfnb.tuner.tuning import Candidate, Tuning

QUIET_S = 2.0


@dataclass(frozen=True)
class TuningProgress:
    """How far a tuning is: what is measured now, the searches made, and the seconds since it began."""

    text: str
    searches: int
    seconds: float


Tell = Callable[[TuningProgress], None]


def tune(
    engine: Engine,
    queries: Any = None,
    *,
    k: int = 10,
    target: float = 0.95,
    filters: Sequence[Any] = (),
    filter_column: str | None = None,
    selectivities: Sequence[float] = SELECTIVITIES,
    candidates: Sequence[str] = (),
    statement: str | None = None,
    choosing: int = CHOOSING,
    held_back: int = HELD_BACK,
    limit_s: float | None = None,
    progress: Tell | None = None,
    stop: threading.Event | None = None,
    recording: Recording | None = None,
    seed: int = 0,
) -> Tuning:
    """Return what each setting's recall@k and latency are, and the cheapest that meets ``target`` on held-back queries.

    ``queries`` are vectors or a file of them; without, rows of the table are drawn, and the result says so. ``filters``
    are the engine's own conditions (a WHERE clause on Postgres); ``filter_column`` makes some that 10 %, 1 % and 0.1 %
    of the rows meet. Nothing is written, unless ``candidates`` are named: those indexes are built on a temporary copy
    (see :data:`perfnb.tuner.candidates.CANDIDATES`). ``stop``, Ctrl-C and ``limit_s`` end it and keep what was measured.
    A ``statement`` of the app's (Postgres) is read for what keeps it from the index. With a ``recording`` the result is put on its timeline. Raises WrongUse, NotReachable or NotPermitted where it can't
    begin.
    """
    _check(k, target)
    found, split, told = questions(engine, queries, choosing=choosing, held_back=held_back, seed=seed)
    conduct = _Conduct(engine, found, split, k=k, target=target, seed=seed, pace=_pace(progress, stop, limit_s))
    conduct.run(lambda: _filters(conduct, engine, k, filters, filter_column, selectivities), candidates, filter_column)
    tuning = conduct.tuning(told, statement, is_sampled=queries is None)
    if recording is not None:
        recording.add_event("tuning", tuning.headline, tuning.as_dict())
    return tuning


def _check(k: int, target: float) -> None:
    if k < 1:
        raise WrongUse(f"k is {k}", hint="the number of rows a search asks for, like 10")
    if not 0 < target < 1:
        raise WrongUse(f"a recall target of {target} makes no sense", hint="above 0 and below 1, like 0.95")


def _pace(
    progress: Tell | None,
    stop: threading.Event | None,
    limit_s: float | None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Pace:
    began = clock()
    tell, said = progress or _line(), [began]

    def now_and_then(text: str, searches: int) -> None:
        now = clock()
        if now - began > QUIET_S and now - said[0] > QUIET_S / 4:
            said[0] = now
            tell(TuningProgress(text, searches, now - began))

    deadline = began + limit_s if limit_s else float("inf")
    return Pace(stop or threading.Event(), deadline, now_and_then, clock)


def _line() -> Tell:
    from perfnb.widgets.progress import Progress

    line = Progress("tuning", 0)
    return lambda told: line.say(f"tuning, {told.searches:,} searches in {told.seconds:.0f} s: {told.text}")


class _Conduct:
    """A tuning under way."""

    def __init__(
        self, engine: Engine, found: Sequence[Question], split: Split, *, k: int, target: float, seed: int, pace: Pace
    ) -> None:
        self.engine, self.pace = engine, pace
        self.not_measured: list[str] = []
        self._questions, self._split = found, split
        self._k, self._target, self._seed = k, target, seed
        self._choices: list[Choice] = []
        self._candidates: list[Candidate] = []
        self._began = time.monotonic()
        self._ended = "done"

    def run(self, filters: Callable[[], list[Filter]], candidates: Sequence[str], column: str | None) -> None:
        """Measure all rows, each filter, then each candidate; ends early where it is told to, or the engine fails."""
        try:
            self._choose(self.engine, None)
            made = filters()
            for each in made:
                self._choose(self.engine, each)
            if candidates:
                self._measure_candidates(candidates, made, column)
        except Ended as ended:
            self._ended = ended.why
        except KeyboardInterrupt:
            self._ended = "interrupted"
        except PerfnbError as error:
            if not self._choices:
                raise
            self._ended = str(error)

    def _choose(self, engine: Engine, condition: Filter | None, *, candidate: str = "") -> None:
        choosing = Choosing(
            engine, self._questions, self._split, self.pace,
            k=self._k, target=self._target, condition=condition, candidate=candidate, seed=self._seed,
        )  # fmt: skip
        try:
            choosing.run()
        finally:
            self._choices.append(choosing.choice())

    def _measure_candidates(self, names: Sequence[str], filters: Sequence[Filter], column: str | None) -> None:
        from perfnb.tuner.candidates import measured_candidates

        def choose(engine: Engine, condition: Filter | None, candidate: Candidate) -> None:
            if candidate not in self._candidates:
                self._candidates.append(candidate)
            self._choose(engine, condition, candidate=candidate.name)

        self.not_measured += measured_candidates(self.engine, names, filters, column, choose, seed=self._seed)

    def tuning(self, told: str, statement: str | None, *, is_sampled: bool) -> Tuning:
        """Return what is known by now."""
        picks = tuple(choice.pick for choice in self._choices if choice.pick)
        points = tuple(point for choice in self._choices for point in choice.points)
        described = self.engine.describe()
        told_of_it = statement_advice(statement, described, self._k) if statement else []
        left_out = [NOT_RECORDED] if is_sampled else []
        left_out += [note for choice in self._choices for note in choice.notes]
        left_out += [f"latency: {described.no_latency}"] if described.no_latency else []
        return Tuning(
            described=described.as_dict(), k=self._k, target=self._target, queries=told,
            choosing=self._split.choosing, held_back=self._split.held_back, points=points, picks=picks,
            candidates=tuple(self._candidates), advice=(*told_of_it, *advice(described, points, picks, self._k, self._candidates)),
            not_measured=(*left_out, *self.not_measured), searches=self.pace.searches,
            exact_searches=self.pace.exact_searches, grid=sum(choice.grid for choice in self._choices),
            seconds=time.monotonic() - self._began, ended=self._ended,
        )  # fmt: skip


def _filters(
    conduct: _Conduct, engine: Engine, k: int, given: Sequence[Any], column: str | None, selectivities: Sequence[float]
) -> list[Filter]:
    """Return the filters to measure; those that too few rows meet are told and left out."""
    made = [engine.filtered(each) for each in given]
    made = [each.titled(f"{each.title} ({place})") if len(made) > 1 else each for place, each in enumerate(made, 1)]
    if column:
        found = engine.filters(column, selectivities)
        made += found
        titles = {each.title for each in found}
        missing = [part for each in selectivities if f"{column} on {(part := as_percent(each))}" not in titles]
        if missing:
            conduct.not_measured.append(f"filters: no values of {column} make {', '.join(missing)} of the rows")
    for each in made:
        if each.rows < k:
            conduct.not_measured.append(f"{each.title}: {each.rows} rows meet it, fewer than the {k} asked for")
    return [each for each in made if each.rows >= k]


__all__ = ["Tuning", "TuningProgress", "tune"]
