"""What happened, in sentences for someone who was not there; pure functions over numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from perfnb.checklist import Checklist, catalogue
from perfnb.finding import Finding, Unmeasured
from perfnb.objectives import Objective, Objectives
from perfnb.recording import Window
from perfnb.widgets import wording
from perfnb.widgets.cards import gain, symptom, worth
from perfnb.widgets.tiles import Money, Overview, is_priced

EFFORTS = ("low", "medium", "high")


@dataclass(frozen=True)
class Action:
    """One thing to do."""

    remedy: str
    cause: str
    share: float
    symptom: str
    effort: str
    gain: str
    worth: str = ""


@dataclass(frozen=True)
class Need:
    """What evidence is missing and which causes it would let judge."""

    needs: str
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Threshold:
    """One objective as the report lists it; ``said`` names every source, with its value where they differ."""

    name: str
    meaning: str
    value: str
    said: str
    disputed: bool
    overridden: bool


def summary(
    overview: Overview, checklist: Checklist, objectives: Objectives, window: Window, money: Money | None = None
) -> str:
    """Return the whole story in one paragraph; ``money`` is a row of ``spend.overview`` where there were calls."""
    told = [*_load(overview, objectives, window), *_spent(money or {})]
    return " ".join([*told, *_causes(checklist.findings), *_coverage(checklist)])


def _load(overview: Overview, objectives: Objectives, window: Window) -> list[str]:
    span = f"{wording.moment(window.start)} to {wording.clock(window.end)} UTC"
    if not overview.get("requests"):
        return [f"Nothing that could be timed was recorded from {span}."]
    limit = objectives["request_p95_ms"]
    p95 = overview["p95_ms"]
    verdict = "misses" if limit.is_missed(p95) else "meets"
    failed = int(overview["failed"])
    return [
        f"From {span}, {wording.counted(int(overview['requests']), 'request')} came in"
        f" and {failed if failed else 'none'} failed.",
        f"Half were answered within {wording.duration(overview['p50_ms'])} and 19 of 20 within {wording.duration(p95)},"
        f" which {verdict} the objective of {wording.duration(float(limit.value))}.",
    ]


def _spent(money: Money) -> list[str]:
    count = int(money.get("unpriced_calls", 0))
    if not money.get("calls"):
        return []
    if not is_priced(money):
        return ["What the model calls cost is not known: none of them has a known price."]
    each = f", {wording.dollars(money['usd_per_request'])} per request" if money["requests"] else ""
    sentences = [f"The model calls cost {wording.dollars(money['cost_usd'])}{each}."]
    if money["assumption"]:
        rate = wording.duration(money["seconds"] * 1000)
        sentences.append(f"At the rate of these {rate} that is {wording.about_dollars(money['usd_per_day'])} a day.")
    if count:
        sentences.append(f"{wording.counted(count, 'call')} without a price {_is(count)} in no sum of dollars.")
    return sentences


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _causes(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return ["No cause was found among those that could be judged."]
    first, others = findings[0], [finding for finding in findings[1:] if finding.share > 0]
    sentences = [
        f"The largest cause: {_lowered(first.title)}; this explains {wording.percent(first.share)} of {symptom(first)}."
    ]
    if others:
        told = [f"{_lowered(one.title)} ({_share(one, first)})" for one in others[:3]]
        sentences.append(
            f"Also found: {'; '.join(told)}" + (f"; and {len(others) - 3} more." if len(others) > 3 else ".")
        )
    return sentences


def _share(finding: Finding, first: Finding) -> str:
    """Return a finding's share, with what it is a share of where that is something else than the first one's."""
    of = "" if symptom(finding) == symptom(first) else f" of {symptom(finding)}"
    return f"{wording.percent(finding.share)}{of}"


def _coverage(checklist: Checklist) -> list[str]:
    clear, missing = len(checklist.clear), len(checklist.not_measured)
    sentences = (
        [f"{wording.counted(clear, 'other cause')} {'was' if clear == 1 else 'were'} looked for and not found."]
        if clear
        else []
    )
    if missing:
        sentences.append(f"{wording.counted(missing, 'cause')} could not be judged from this recording.")
    return sentences


def actions(findings: Sequence[Finding]) -> list[Action]:
    """Return what to do, the largest share first and among equals the least effort."""
    ranked = sorted(findings, key=lambda finding: (-round(finding.share, 2), EFFORTS.index(finding.effort)))
    return [Action(f.remedy, f.cause, f.share, symptom(f), f.effort, gain(f), worth(f)) for f in ranked]


def needs(missing: Sequence[Unmeasured]) -> list[Need]:
    """Return what to record next time, grouped by evidence."""
    ordered = sorted(missing, key=lambda one: one.needs)
    groups = groupby(ordered, key=lambda one: one.needs)
    return [Need(evidence, tuple(meaning_of(one.cause) for one in group)) for evidence, group in groups]


def meaning_of(cause: str) -> str:
    """Return the cause's plain description from the catalogue, in lower case, or its name."""
    return _lowered(catalogue()[cause].meaning) if cause in catalogue() else cause


def thresholds(objectives: Objectives) -> list[Threshold]:
    """Return every objective with what its sources say."""
    return [_threshold(one) for one in objectives.values()]


def _threshold(one: Objective) -> Threshold:
    disputed = len({str(said.value) for said in one.said}) > 1
    said = [
        f"{said.seed}: {_value(said.value, one.unit)}{f' ({said.note})' if said.note else ''}"
        if disputed or said.note
        else said.seed
        for said in one.said
    ]
    return Threshold(
        one.name.replace("_", " "), one.meaning, _value(one.value, one.unit), "; ".join(said), disputed, one.overridden
    )


def _value(value: object, unit: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{value} {unit}".strip()
    return wording.quantity(value, unit)


def _lowered(sentence: str) -> str:
    """Return ``sentence`` to stand inside another: first letter small unless it starts a name, no full stop."""
    first = sentence.split(" ", 1)[0]
    plain = first[:1].isupper() and first[1:].islower()
    return (sentence[:1].lower() + sentence[1:] if plain else sentence).rstrip(".")
