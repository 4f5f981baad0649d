"""The choice for one filter: race within each family, verify on held-back queries, take the cheapest that holds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from perfnb.tuner.engines.base import NO_INDEX, Engine, Filter, Question
from perfnb.tuner.intervals import mean, reaches
from perfnb.tuner.measuring import Ended, Measuring, OverBudget, Pace
from perfnb.tuner.race import FIRST_LOOK, HOPE_Z, can_prove, cheapest
from perfnb.tuner.setting import EXACT, Family, Setting
from perfnb.tuner.tuning import Pick, Point, Where

PART_OF_GRID = 1 / 3
ALIKE = 1.05
"""Latencies within a twentieth are alike; of these the simpler way, which comes first, is taken."""
EXACT_IS_AS_GOOD = 1.1
"""An exact scan that takes at most a tenth longer is preferred: its recall is 1, and it needs no index."""


@dataclass(frozen=True)
class Split:
    """How many queries to choose on, and how many to verify on."""

    choosing: int
    held_back: int

    @property
    def verify(self) -> range:
        """Return the places of the held-back queries, which come last."""
        return range(self.choosing, self.choosing + self.held_back)


@dataclass
class Finalist:
    """The least value of a family that is enough on the queries it was chosen on."""

    family: Family
    place: int
    is_proven: bool

    @property
    def setting(self) -> Setting:
        """Return it as it is set."""
        return self.family[self.place]


@dataclass
class Choice:
    """What came of one filter, as far as it went."""

    points: list[Point] = field(default_factory=list)
    pick: Pick | None = None
    notes: list[str] = field(default_factory=list)
    grid: int = 0


def grid_of(families: Sequence[Family], split: Split, *, has_exact: bool = True) -> int:
    """Return the searches of a full grid: each setting on all choosing queries, the pick on those held back, the truth."""
    settings = sum(len(family) for family in families)
    return settings * split.choosing + split.held_back * bool(settings) + (split.choosing + split.held_back) * has_exact


class Choosing:
    """Choose the setting for one filter; :meth:`choice` tells what is known at any time."""

    def __init__(
        self,
        engine: Engine,
        questions: Sequence[Question],
        split: Split,
        pace: Pace,
        *,
        k: int,
        target: float,
        condition: Filter | None = None,
        candidate: str = "",
        part_of_grid: float = PART_OF_GRID,
        seed: int = 0,
    ) -> None:
        self._engine = engine
        self._split, self._pace, self._target = split, pace, target
        self._measuring = Measuring(engine, questions, k, condition, pace, seed)
        self._families = engine.families(self._measuring.limit, condition)
        self._where = Where(
            condition.title if condition else "all rows", condition.selectivity if condition else 1.0, candidate
        )
        self._has_latency = not engine.describe().no_latency
        self._part_of_grid = part_of_grid
        self._grid = grid_of(self._families, split)
        self._notes: list[str] = []
        self._pick: Pick | None = None

    def run(self) -> None:
        """Measure until the pick is made; raises Ended where it is ended before."""
        self._families = tuple(used for family in self._families if len(used := self._used(family)))
        self._grid = grid_of(self._families, self._split)
        self._pace.most = self._pace.made + self._budget
        self._warm_up()
        try:
            finalists = [found for family in self._families if (found := self._finalist(family))]
            self._measure_current()
        finally:
            self._pace.most = float("inf")
        finalists = [found for each in finalists if (found := self._verified(each))]
        self._pick = self._picked(finalists)

    @property
    def _budget(self) -> float:
        """Return the searches allowed for choosing: what verifying takes is kept; never less than two looks at all."""
        verifying = 2 * self._split.held_back
        return max(2 * self._split.choosing, int(self._grid * self._part_of_grid) - verifying)

    def _used(self, family: Family) -> Family:
        """Return the values with which the index is used at all: beyond some, the planner finds a scan cheaper."""
        used = tuple(
            value for place, value in enumerate(family.values) if self._measuring.uses(family[place]) != NO_INDEX
        )
        if len(used) < len(family):
            left = f"from {family.parameter} = {family.values[len(used)]} on" if used else "whatever is set"
            self._notes.append(f"{self._where.filter}: the planner leaves the index {left} and scans")
        return replace(family, values=used)

    def _warm_up(self) -> None:
        """Let caches fill; what is searched here is counted, and its time is not used."""
        if self._families:
            self._measuring.warm_up(self._families[0][0], self._split.verify[:3])

    def _finalist(self, family: Family) -> Finalist | None:
        proves = can_prove(self._target, self._split.choosing)
        try:
            place, _ = cheapest(family, self._target, self._measuring.recalls, self._split.choosing)
        except OverBudget:
            proves = False
            place = self._likely_place(family)
            self._notes.append(
                f"{self._where.filter}, {family.name}: a third of the full grid's searches was used up, so what is likely decided"
            )
        if place == len(family):
            return self._unproven(family)
        return Finalist(family, place, proves)

    def _unproven(self, family: Family) -> Finalist | None:
        """Return the least value that is likely to reach the target though that is not proven."""
        place = self._likely_place(family)
        return Finalist(family, place, False) if place < len(family) else None

    def _likely_place(self, family: Family) -> int:
        """Return the least value whose mean is a standard error above the target; else the least whose mean reaches it."""
        known = {place: self._known(setting) for place, setting in enumerate(family.settings())}
        enough = {place: recalls for place, recalls in known.items() if len(recalls) >= FIRST_LOOK}
        likely = (place for place, recalls in enough.items() if mean(recalls, HOPE_Z).low >= self._target)
        by_mean = (place for place, recalls in enough.items() if reaches(recalls, self._target))
        return next(likely, next(by_mean, len(family)))

    def _known(self, setting: Setting) -> list[float]:
        made = self._measuring.made.get(setting, {})
        return [each.recall for each in made.values() if each.recall is not None]

    def _measure_current(self) -> None:
        now = self._engine.current(self._measuring.limit)
        if now is not None and self._families:
            same = Setting(self._families[0].name, now.parameter, now.value, self._families[0].fixed)
            try:
                self._measuring.recalls(same, 2 * FIRST_LOOK)
            except OverBudget:
                self._notes.append(f"{self._where.filter}: the setting in effect now was not measured in full")

    def _verified(self, found: Finalist) -> Finalist | None:
        """Return the finalist that holds on held-back queries, which may be the next step up."""
        steps = 0
        while found.place < len(found.family):
            self._measuring.measure([found.setting, EXACT], self._split.verify)
            if reaches(self._held_back(found.setting), self._target):
                if steps:
                    self._notes.append(
                        f"{self._where.filter}: the held-back queries asked for {steps} step more, so they took part in the choice"
                    )
                return found
            found, steps = Finalist(found.family, found.place + 1, False), steps + 1
        return None

    def _held_back(self, setting: Setting) -> list[float]:
        made = self._measuring.made[setting]
        recalls = (made[at].recall for at in self._split.verify if at in made)
        return [each for each in recalls if each is not None]

    def _picked(self, finalists: Sequence[Finalist]) -> Pick | None:
        self._measuring.measure([each.setting for each in finalists] or [EXACT], self._split.verify)
        known = {each.setting: each for each in finalists}
        points = {setting: point for setting in known if (point := self._point(setting, "held back"))}
        exact = self._point(EXACT, "held back") if self._has_latency else None
        least = min((self._cost(each) for each in points.values()), default=0.0)
        best = next((each for each in points if self._cost(points[each]) <= ALIKE * least), None)
        if best is None or (exact and _ms(exact) <= EXACT_IS_AS_GOOD * _ms(points[best])):
            return self._exact_pick(exact, points.get(best) if best else None)
        return self._index_pick(known[best], points[best], exact)

    def _cost(self, point: Point) -> float:
        return _ms(point) if self._has_latency else float(point.value or 0)

    def _exact_pick(self, exact: Point | None, other: Point | None) -> Pick | None:
        if exact is None:
            why = f"no setting reaches {self._target:.2f}" if self._families else "the index has nothing to set"
            self._notes.append(f"{self._where.filter}: {why}")
            return None
        if not self._families:
            why = "no vector index is used, so there is nothing to tune"
        elif other:
            why = f"{other.setting} takes {_ms(other):.2f} ms and is no faster"
        else:
            why = f"no setting of the index reaches {self._target:.2f}"
        return self._made(EXACT, exact, is_proven=True, why=f"{why}; an exact scan takes {_ms(exact):.2f} ms")

    def _index_pick(self, found: Finalist, point: Point, exact: Point | None) -> Pick:
        sure = "" if found.is_proven else f", too few queries to be sure of {self._target:.2f}"
        why = f"recall {point.recall:.3f} ({point.recall_low:.3f} to {point.recall_high:.3f}) on held-back queries{sure}, {point.recall_worst5:.2f} on their worst 5 %"
        if self._has_latency:
            why += f", {_ms(point):.2f} ms at the median"
        if exact:
            why += f"; an exact scan takes {_ms(exact):.2f} ms"
        return self._made(found.setting, point, is_proven=found.is_proven, why=why)

    def _made(self, setting: Setting, point: Point, *, is_proven: bool, why: str) -> Pick:
        is_met = reaches([point.recall], self._target)
        where = self._where
        return Pick(where.filter, where.candidate, str(setting), setting.values, is_met, is_proven, point, why)

    def _point(self, setting: Setting, part: str) -> Point | None:
        made = self._measuring.made.get(setting, {})
        verify = self._split.verify
        chosen = [made[at] for at in sorted(made) if (at in verify) == (part == "held back")]
        used = self._measuring.used.get(setting, "")
        return Point.of(self._where, setting, part, chosen, used, self._has_latency)

    def _points(self) -> Iterator[Point]:
        for setting in sorted(self._measuring.made, key=lambda each: (each.family, each.value or 0)):
            for part in ("choosing", "held back"):
                if point := self._point(setting, part):
                    yield point

    def choice(self) -> Choice:
        """Return what is known by now."""
        if number := self._measuring.neighbourless:
            self._notes.append(
                f"{self._where.filter}: {number} queries have no neighbour that meets the filter and are left out"
            )
        return Choice(list(self._points()), self._pick, list(dict.fromkeys(self._notes)), self._grid)


def _ms(point: Point) -> float:
    return point.p50_ms if point.p50_ms is not None else 0.0


__all__ = ["Choice", "Choosing", "Ended", "Split", "grid_of"]
