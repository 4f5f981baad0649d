"""What a tuning found: every setting that was measured, the pick for each filter, and what was not measured."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from perfnb.tuner.intervals import Estimate, mean, worst
from perfnb.tuner.measuring import Search
from perfnb.tuner.setting import Setting

LEAST_FOR_P95 = 20
CERTAIN = Estimate(1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Point:
    """One setting under one filter, on the queries it was chosen on or on those held back.

    Attributes:
        filter: "all rows", or the filter's title …
        selectivity: … and the part of the rows that meets it.
        candidate: The index it was measured with; empty for the table as it is.
        part: ``choosing`` or ``held back``.
        queries: That were searched with it.
        recall: Mean over the queries, with its 95 % interval.
        recall_worst5: Mean over the worst 5 % of the queries, with its bootstrap interval.
        p95_ms: None for fewer than 20 queries.
        rows: Mean number of rows returned …
        missing: … and the part of the searches that returned fewer than there are.
        used: The index in the plan, where the engine tells.
    """

    filter: str
    selectivity: float
    candidate: str
    setting: str
    parameter: str | None
    value: int | None
    family: str
    part: str
    queries: int
    recall: float
    recall_low: float
    recall_high: float
    recall_worst5: float
    recall_worst5_low: float
    recall_worst5_high: float
    p50_ms: float | None
    p95_ms: float | None
    rows: float
    missing: float
    used: str

    @classmethod
    def of(
        cls, where: "Where", setting: Setting, part: str, made: Sequence[Search], used: str, has_latency: bool
    ) -> Self | None:
        """Return what ``made`` searches tell; None where no query has a neighbour."""
        recalls = [each.recall for each in made if each.recall is not None]
        if not recalls:
            return None
        average, low = (CERTAIN, CERTAIN) if setting.is_exact else (mean(recalls), worst(recalls))
        taken = [each.ms for each in made]
        return cls(
            filter=where.filter, selectivity=where.selectivity, candidate=where.candidate, setting=str(setting),
            parameter=setting.parameter, value=setting.value, family=setting.family, part=part, queries=len(recalls),
            recall=average.value, recall_low=average.low, recall_high=average.high,
            recall_worst5=low.value, recall_worst5_low=low.low, recall_worst5_high=low.high,
            p50_ms=float(np.median(taken)) if has_latency else None,
            p95_ms=float(np.quantile(taken, 0.95)) if has_latency and len(taken) >= LEAST_FOR_P95 else None,
            rows=float(np.mean([each.rows for each in made])),
            missing=float(np.mean([each.missing for each in made])), used=used,
        )  # fmt: skip


@dataclass(frozen=True)
class Where:
    """Which rows are searched, by which index."""

    filter: str = "all rows"
    selectivity: float = 1.0
    candidate: str = ""


@dataclass(frozen=True)
class Pick:
    """The cheapest setting that meets the target under one filter.

    Attributes:
        settings: To be set, by name; empty for the exact scan, which needs no index.
        is_met: The mean recall on held-back queries is at least the target.
        is_proven: On the queries it was chosen on, the target lies below the interval (95 % sure, one-sided).
        why: In words, with what was compared.
    """

    filter: str
    candidate: str
    setting: str
    settings: Mapping[str, Any]
    is_met: bool
    is_proven: bool
    point: Point
    why: str

    def __str__(self) -> str:
        beside = f"{self.filter}, {self.candidate}" if self.candidate else self.filter
        return f"{beside}: {self.setting}; {self.why}"


@dataclass(frozen=True)
class Candidate:
    """An index that was built on a copy of the rows: what it costs, and how to make it on the table itself."""

    name: str
    title: str
    ddl: str
    copied_rows: int
    build_s: float
    bytes: int


@dataclass(frozen=True)
class Tuning:
    """The result of :func:`perfnb.tuner.tune`.

    Attributes:
        described: The table or collection, as :class:`~perfnb.tuner.engines.base.Description` tells it.
        queries: Where they came from, in words.
        choosing: Number of queries to choose on …
        held_back: … and to verify on.
        picks: One for each filter, and for each candidate index.
        advice: What else would help, in words, with where it comes from.
        not_measured: What was left out and why.
        searches: Made with settings …
        exact_searches: … and for the exact answers.
        grid: Searches, exact ones too, that measuring every setting on every query would have taken.
        ended: ``done``, or why it ended before.
    """

    described: Mapping[str, Any]
    k: int
    target: float
    queries: str
    choosing: int
    held_back: int
    points: tuple[Point, ...]
    picks: tuple[Pick, ...]
    candidates: tuple[Candidate, ...]
    advice: tuple[str, ...]
    not_measured: tuple[str, ...]
    searches: int
    exact_searches: int
    grid: int
    seconds: float
    ended: str = "done"

    @property
    def pick(self) -> Pick | None:
        """Return the pick for all rows as the table is; None where none could be made."""
        return next((each for each in self.picks if each.filter == "all rows" and not each.candidate), None)

    @property
    def share_of_grid(self) -> float:
        """Return the searches made as a part of the full grid's."""
        return (self.searches + self.exact_searches) / self.grid if self.grid else 0.0

    @property
    def frame(self) -> pd.DataFrame:
        """Return every point: a row for each setting, filter and part of the queries."""
        return pd.DataFrame([asdict(each) for each in self.points], columns=list(Point.__dataclass_fields__))

    @property
    def picked(self) -> pd.DataFrame:
        """Return the picks: filter, candidate, setting, recall with its interval, p50, p95, and why."""
        shown = ("recall", "recall_low", "recall_high", "recall_worst5", "p50_ms", "p95_ms", "rows")
        rows = [
            {"filter": each.filter, "candidate": each.candidate, "setting": each.setting}
            | {name: getattr(each.point, name) for name in shown}
            | {"is_met": each.is_met, "is_proven": each.is_proven, "why": each.why}
            for each in self.picks
        ]
        return pd.DataFrame(rows, columns=["filter", "candidate", "setting", *shown, "is_met", "is_proven", "why"])

    @property
    def headline(self) -> str:
        """Return one line: what was tuned and what to set."""
        found = (
            f"set {self.pick.setting}"
            if self.pick and self.pick.settings
            else "no index needed"
            if self.pick
            else self.ended
        )
        return f"{self.described['name']}: {found} for a recall of {self.target:g}"

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON takes it; it is the body of a ``tuning`` event."""
        return {"schema": 1, **asdict(self)}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """Return what :meth:`as_dict` gave, JSON or not."""
        fields = {name: value for name, value in told.items() if name != "schema"}
        fields["points"] = tuple(Point(**each) for each in told["points"])
        fields["candidates"] = tuple(Candidate(**each) for each in told["candidates"])
        fields["picks"] = tuple(Pick(**{**each, "point": Point(**each["point"])}) for each in told["picks"])
        return cls(**{**fields, "advice": tuple(told["advice"]), "not_measured": tuple(told["not_measured"])})

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from perfnb.tuner.shown import tuning_piece

        return tuning_piece(self)._repr_mimebundle_()

    def __str__(self) -> str:
        about = f"  {self.choosing} queries to choose on, {self.held_back} held back: {self.queries}"
        made = self.searches + self.exact_searches
        cost = f"  {made:,} searches in {self.seconds:.0f} s, {self.share_of_grid:.0%} of a full grid's {self.grid:,}; {self.ended}"
        lines = [self.headline, about, cost, *(f"  {each}" for each in self.picks)]
        lines += [f"  advice: {each}" for each in self.advice]
        return "\n".join([*lines, *(f"  not measured: {each}" for each in self.not_measured)])
