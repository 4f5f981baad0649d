"""What a trial found, in words and as data: each metric with its interval, next to what was predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, Self

from perfnb.finding import Estimate
from perfnb.trials.judge import Outcome
from perfnb.trials.measure import KNOWN
from perfnb.trials.statistics import Comparison

_SAID = {
    "better": "better",
    "worse": "worse",
    "no practical change": "no practical change",
    "undecided": "undecided",
    "withheld": "verdict withheld",
    "aborted": "aborted",
    "stopped": "stopped",
    "estimated": "the planner's estimate, not measured",
}


class Predicts(Protocol):
    """A prediction: what a change was estimated to do to each metric."""

    @property
    def effects(self) -> Sequence[Estimate]:
        """Return the estimates."""


@dataclass(frozen=True)
class MetricResult:
    """One metric: ``a`` and ``b`` are its typical values without and with the change; less is better.

    ``predicted_low`` and ``predicted_high`` are the predicted ratios B / A; None where nothing was predicted.
    """

    name: str
    title: str
    unit: str
    a: float
    b: float
    pairs: int
    ratio: float
    low: float
    high: float
    sd: float
    p: float
    p_sign_flip: float
    verdict: str
    more_pairs: int | None = None
    predicted_low: float | None = None
    predicted_high: float | None = None

    @classmethod
    def of(cls, name: str, a: float, b: float, compared: Comparison) -> Self:
        """Return what was measured of a metric."""
        metric = KNOWN[name]
        return cls(name=name, title=metric.title, unit=metric.unit, a=a, b=b, **asdict(compared))

    def beside(self, prediction: Predicts | None) -> "MetricResult":
        """Return the result with what was predicted for this metric."""
        for effect in prediction.effects if prediction else ():
            if effect.metric == self.name and effect.before > 0:
                low, high = sorted((effect.low / effect.before, effect.high / effect.before))
                return replace(self, predicted_low=low, predicted_high=high)
        return self

    @property
    def agrees(self) -> bool | None:
        """Tell whether what was measured and what was predicted overlap; None where nothing was predicted."""
        if self.predicted_low is None or self.predicted_high is None:
            return None
        return self.low <= self.predicted_high and self.predicted_low <= self.high

    def __str__(self) -> str:
        digits = KNOWN[self.name].digits if self.name in KNOWN else 3
        values = f"{self.a:.{digits}f} → {self.b:.{digits}f} {self.unit}"
        text = f"{self.title}: {values} ({self.ratio - 1:+.1%}, {self.low - 1:+.1%} to {self.high - 1:+.1%}): {self.verdict}"
        if self.predicted_low is None or self.predicted_high is None:
            return text
        return f"{text}; predicted {self.predicted_low - 1:+.1%} to {self.predicted_high - 1:+.1%}"


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial.

    Attributes:
        trial: Its id, as in the arms of requests and calls (``id/A``).
        outcome: better, worse, no practical change, undecided (why says how many pairs more), withheld (the machine,
            the load generator or the environment would be judged), aborted (by the guard or an error), stopped, or
            estimated (by the planner: nothing was measured).
        before: The knob's value in arm A …
        value: … and in arm B.
        mode: ``pairs`` of blocks one after the other, or ``split`` by trace with both arms at once; of one statement:
            ``session`` (settings of a transaction, in turns), ``rolled back`` (an index, in a transaction) or
            ``hypothetical`` (an index that only the planner sees).
        confidence: Of the intervals.
        pairs: How many pairs count …
        void_pairs: … and how many did not, because the load generator was late.
        was_undone: Whether the knob is back at what it was.
        worst_late_ms: The load generator's worst lateness (99th percentile of a block), part of every latency.
        notes: What a reader should know: assumptions, repeated requests, what is missing.
        statement: The statement that was tried, without literals; empty for a trial of requests.
        plans: Its plans by arm, as EXPLAIN (FORMAT JSON) has them, without literals.
    """

    trial: str
    knob: str
    title: str
    before: Any
    value: Any
    mode: str
    outcome: Outcome
    why: str
    primary: str
    confidence: float
    margin: float
    pairs: int
    void_pairs: int
    requests: int
    failed: int
    spent_usd: float | None
    started_ns: int
    ended_ns: int
    was_undone: bool
    worst_late_ms: float
    metrics: tuple[MetricResult, ...] = ()
    notes: tuple[str, ...] = ()
    statement: str = ""
    plans: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> MetricResult:
        """Return one metric's result; raises KeyError where it was not measured."""
        return {each.name: each for each in self.metrics}[metric]

    @property
    def headline(self) -> str:
        """Return one line: the knob, its values and the outcome."""
        found = {each.name: each for each in self.metrics}.get(self.primary)
        if found is None or self.outcome in ("aborted", "stopped", "estimated"):
            return f"{self.title}: {_SAID[self.outcome]}, {self.why}"
        return f"{self.title}: {_SAID[self.outcome]}, {found.title} {found.ratio - 1:+.1%}"

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON takes it; it is the body of a ``trial`` event."""
        return {
            "schema": 1,
            **asdict(self),
            "metrics": [asdict(each) for each in self.metrics],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """Return what :meth:`as_dict` gave."""
        fields = {name: value for name, value in told.items() if name != "schema"}
        fields["metrics"] = tuple(MetricResult(**each) for each in told["metrics"])
        return cls(**{**fields, "notes": tuple(told["notes"])})

    def __str__(self) -> str:
        lines = [
            self.headline,
            f"  {self.why}",
            f"  {self.pairs} pairs, {self.requests} {'runs' if self.statement else 'requests'}, {self._seconds:.0f} s",
            *([f"  {self.statement}"] if self.statement else []),
        ]
        lines += [f"  {'*' if each.name == self.primary else ' '} {each}" for each in self.metrics]
        if not self.was_undone:
            lines.append("  the change could NOT be undone: perfnb revert RECORDING")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    @property
    def _seconds(self) -> float:
        return (self.ended_ns - self.started_ns) / 1e9
