"""From runs of a statement in two arms to what a trial found: time, blocks and rows, each with its interval."""

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from perfnb.plans import compare as compare_plans
from perfnb.plans import plan_of
from perfnb.recording import Recording
from perfnb.trials.database.statement import Run, Statement, kept_plan
from perfnb.trials.judge import Outcome
from perfnb.trials.result import MetricResult, Predicts, TrialResult
from perfnb.trials.statistics import Comparison, compare, log_ratios

if TYPE_CHECKING:
    import pandas as pd

PRIMARY = "statement_ms"
ROWS = "statement_rows"
ALPHA = 0.05
MARGIN = 0.05
"""Changes of a statement's time below this part are of no practical use; runs on a quiet server vary by as much."""
ROWS_MARGIN = 0.01
LEAST_PAIRS = 3
COLUMNS = ("arm", "turn", "values", "ms", "rows", "blocks", "temp_blocks")

Pairs = Sequence[tuple[Run, Run]]


@dataclass(frozen=True)
class StatementTrial:
    """What came of trying a change on one statement.

    Attributes:
        result: What stands on the timeline.
        frame: One row per run: arm, turn, values (which set), ms, rows, blocks, temp_blocks.
    """

    result: TrialResult
    frame: "pd.DataFrame" = field(compare=False, repr=False)

    @property
    def verdict(self) -> Outcome:
        """Return better, worse, no practical change, undecided, estimated …"""
        return self.result.outcome

    @property
    def words(self) -> str:
        """Return what was found, in lines of text."""
        return str(self.result)

    def __str__(self) -> str:
        return self.words


@dataclass
class Tried:
    """A trial under way: what is tried, and when it began."""

    recording: Recording
    statement: Statement
    knob: str
    title: str
    mode: str
    before: Any
    value: Any
    trial: str = field(default_factory=lambda: secrets.token_hex(4))
    started_ns: int = field(default_factory=time.time_ns)

    def ended(
        self,
        runs: Sequence[Run],
        outcome: Outcome,
        why: str,
        *,
        pairs: int = 0,
        metrics: tuple[MetricResult, ...] = (),
        notes: Sequence[str] = (),
        prediction: Predicts | None = None,
        plans: Mapping[str, Any] | None = None,
        primary: str = PRIMARY,
    ) -> StatementTrial:
        """Return what came of it and put it on the timeline."""
        result = TrialResult(
            trial=self.trial, knob=self.knob, title=self.title, before=self.before, value=self.value, mode=self.mode,
            outcome=outcome, why=why, primary=primary, confidence=1 - ALPHA, margin=MARGIN, pairs=pairs, void_pairs=0,
            requests=len(runs), failed=0, spent_usd=None, started_ns=self.started_ns, ended_ns=time.time_ns(),
            was_undone=True, worst_late_ms=0.0, metrics=tuple(each.beside(prediction) for each in metrics),
            notes=(*_changes(plans or {}), *notes, *self._values_note()), statement=self.statement.shown,
            plans={arm: kept_plan(plan) for arm, plan in (plans or {}).items()},
        )  # fmt: skip
        self.recording.add_event("trial", result.headline, result.as_dict())
        return StatementTrial(result, frame_of(runs))

    def judged(
        self,
        runs: Sequence[Run],
        pairs: Pairs,
        *,
        notes: Sequence[str] = (),
        prediction: Predicts | None = None,
        drift: float = 0.0,
    ) -> StatementTrial:
        """Return the verdict on ``pairs`` (A, B), and put it on the timeline.

        ``drift`` is by how much (log) runs of one arm differ between before and after; it widens the interval.
        """
        plans = _plans(pairs)
        if len(pairs) < LEAST_PAIRS:
            why = f"only {len(pairs)} pairs of runs came about in the time allowed"
            return self.ended(runs, "undecided", why, pairs=len(pairs), notes=notes, plans=plans)
        timed = _widened(compare(_d(pairs, lambda run: run.ms), alpha=ALPHA, margin=MARGIN), drift)
        metrics = [MetricResult.of(PRIMARY, *_levels(pairs, lambda run: run.ms), timed), *_blocks(pairs)]
        outcome: Outcome = timed.verdict
        why, primary = _why(timed), PRIMARY
        if (rows := _rows(pairs)) is not None:
            metrics.append(rows)
            outcome = "better" if rows.verdict == "better" else "worse"
            primary = ROWS
            why = f"it returns {rows.b:.1f} rows instead of {rows.a:.1f}, in {timed.ratio:.2g} times the time"
        return self.ended(
            runs, outcome, why, pairs=len(pairs), metrics=tuple(metrics), prediction=prediction,
            notes=(*_temporary(pairs), *notes), plans=plans, primary=primary,
        )  # fmt: skip

    def _values_note(self) -> tuple[str, ...]:
        if self.statement.are_sampled:
            return (f"values of the parameters were taken from the tables, {len(self.statement.values)} sets of them",)
        return ()


def frame_of(runs: Sequence[Run]) -> "pd.DataFrame":
    """Return one row per run."""
    import pandas as pd

    return pd.DataFrame([[getattr(run, name) for name in COLUMNS] for run in runs], columns=list(COLUMNS))


def drift_of(before: Sequence[Run], after: Sequence[Run]) -> float:
    """Return by how much (mean log ratio) the same runs took longer or shorter afterwards."""
    d = log_ratios([(a.ms, b.ms) for a, b in zip(before, after, strict=False)])
    return abs(sum(d) / len(d)) if d else 0.0


def between(before: Run, after: Run) -> Run:
    """Return the run that lies between two of one arm: their geometric mean, so that a steady drift cancels out."""
    return replace(before, ms=math.sqrt(before.ms * after.ms))


def _d(pairs: Pairs, of: Callable[[Run], float]) -> list[float]:
    return log_ratios([(of(a), of(b)) for a, b in pairs])


def _levels(pairs: Pairs, of: Callable[[Run], float]) -> tuple[float, float]:
    """Return the geometric means of both arms."""
    sides = ([of(a) for a, _ in pairs], [of(b) for _, b in pairs])
    a, b = (math.exp(sum(map(math.log, side)) / len(side)) for side in sides)
    return a, b


def _widened(found: Comparison, drift: float) -> Comparison:
    half = math.exp(drift / 2)
    low, high = found.low / half, found.high * half
    is_sure = not low <= 1 <= high
    verdict = found.verdict if is_sure or found.verdict not in ("better", "worse") else "undecided"
    return replace(found, low=low, high=high, verdict=verdict)


def _why(found: Comparison) -> str:
    sure = f"{1 - ALPHA:.0%} interval {found.low - 1:+.1%} to {found.high - 1:+.1%} in {found.pairs} pairs of runs"
    match found.verdict:
        case "no practical change":
            return f"any change of its time is within {MARGIN:.0%}: {sure}"
        case "undecided":
            return sure
    return (
        f"{1 / found.ratio:.3g} times as fast: {sure}"
        if found.ratio < 1
        else f"{found.ratio:.3g} times as slow: {sure}"
    )


def _blocks(pairs: Pairs) -> list[MetricResult]:
    if not all(run.blocks > 0 for pair in pairs for run in pair):
        return []
    found = compare(_d(pairs, lambda run: run.blocks), alpha=ALPHA, margin=MARGIN)
    return [MetricResult.of("statement_blocks", *_levels(pairs, lambda run: run.blocks), found)]


def _rows(pairs: Pairs) -> MetricResult | None:
    """Return how many rows come back, where the change makes a difference; none at all counts as half a row."""
    a, b = (sum(run.rows for run in side) / len(pairs) for side in zip(*pairs, strict=True))
    if abs(b - a) <= ROWS_MARGIN * max(a, b):
        return None
    d = [math.log(max(two.rows, 0.5) / max(one.rows, 0.5)) for one, two in pairs]
    found = compare(d, alpha=ALPHA, margin=ROWS_MARGIN)
    verdict = "better" if b > a else "worse"
    return replace(MetricResult.of(ROWS, a, b, found), verdict=verdict, more_pairs=None)


def _temporary(pairs: Pairs) -> list[str]:
    a, b = (sum(run.temp_blocks for run in side) / len(pairs) for side in zip(*pairs, strict=True))
    return [f"blocks written to or read from temporary files: {a:,.0f} without, {b:,.0f} with"] if a or b else []


def _plans(pairs: Pairs) -> dict[str, Any]:
    return {} if not pairs else {"A": pairs[-1][0].plan, "B": pairs[-1][1].plan}


def _changes(plans: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what changed in the plan, a sentence each; times and blocks stand in the metrics."""
    if len(plans) < 2:
        return ()
    found = compare_plans(plan_of(kept_plan(plans["A"])), plan_of(kept_plan(plans["B"]))).changes
    return tuple(
        f"plan: {each}" for each in found if not each.startswith(("it takes", "it touches", "nothing changed"))
    )
