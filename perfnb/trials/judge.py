"""The judgement at a look: the primary metric decides, others are corrected for being many, controls can withhold it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from perfnb.trials.design import Plan
from perfnb.trials.statistics import Comparison, compare, holm, p_of_t

Outcome = Literal["better", "worse", "no practical change", "undecided", "withheld", "aborted", "stopped", "estimated"]

LEAST_PAIRS = 3


@dataclass(frozen=True)
class Judgement:
    """What a look says: the outcome, why in one sentence, and each metric's comparison."""

    outcome: Outcome
    why: str
    comparisons: Mapping[str, Comparison]
    controls: Mapping[str, Comparison]

    @property
    def is_final(self) -> bool:
        """Tell whether the trial may end here."""
        return self.outcome != "undecided"


def judge(
    d: Mapping[str, Sequence[float]], plan: Plan, controls: Mapping[str, Sequence[float]] | None = None
) -> Judgement:
    """Return the judgement on the log ratios ``d`` of each metric, and on those of controls."""
    compared = {
        name: compare(values, alpha=plan.alpha, margin=0.0)
        for name, values in (controls or {}).items()
        if len(values) >= LEAST_PAIRS
    }
    comparisons = _comparisons(d, plan)
    moved = [name for name, control in compared.items() if control.has_moved]
    primary = comparisons.get(plan.primary)
    if primary is None:
        return Judgement("undecided", f"{plan.primary} was not measured in enough pairs", comparisons, compared)
    if moved:
        why = f"the environment moved: {', '.join(moved)}, which the change can't affect, changed with it"
        return Judgement("withheld", why, comparisons, compared)
    return Judgement(primary.verdict, _reason(primary, plan), comparisons, compared)


def _comparisons(d: Mapping[str, Sequence[float]], plan: Plan) -> dict[str, Comparison]:
    enough = {name: values for name, values in d.items() if len(values) >= LEAST_PAIRS}
    others = {name: p_of_t(values) for name, values in enough.items() if name != plan.primary}
    corrected = holm(others)
    found = {}
    for name, values in enough.items():
        allowed = None
        if name in others and corrected[name] > plan.alpha:
            allowed = 0.0  # not after correction
        found[name] = compare(values, alpha=plan.alpha, margin=plan.margin, p_allowed=allowed)
    return found


def _reason(primary: Comparison, plan: Plan) -> str:
    sure = f"{1 - plan.alpha:.0%} interval {primary.low - 1:+.1%} to {primary.high - 1:+.1%} in {primary.pairs} pairs"
    match primary.verdict:
        case "no practical change":
            return f"any change is within {plan.margin:.0%}: {sure}"
        case "undecided":
            more = primary.more_pairs
            return f"{sure}; " + (
                f"about {more} more pairs would decide" if more else "no number of pairs would decide"
            )
        case _:
            return f"{sure}; changes below {plan.margin:.0%} would not count"
