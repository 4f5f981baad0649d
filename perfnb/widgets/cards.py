"""Findings, checklist, figures at a glance and timeline, as a notebook and a postmortem both show them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from perfnb.checklist import Checklist, catalogue
from perfnb.finding import SEVERITIES, Finding
from perfnb.objectives import Objective
from perfnb.widgets import wording
from perfnb.widgets.html import Piece, render
from perfnb.widgets.table import table

if TYPE_CHECKING:
    import pandas as pd

FINDINGS_MIME = "application/vnd.perfnb.findings+json"

MARKS = {"critical": "◆", "high": "▲", "medium": "●", "low": "○"}  # told by shape as well as by colour

SYMPTOMS = {
    "latency": "the users’ wait",
    "cost": "the spend",
    "dollars": "the spend",
    "memory": "the memory",
    "bytes": "the memory",
    "database": "the database’s time",
    "errors": "the failed requests",
}


@dataclass(frozen=True)
class Tile:
    """One figure at a glance; ``verdict`` compares it with its objective, ``note`` says more without judging."""

    name: str
    value: str
    verdict: str = ""
    missed: bool = False
    note: str = ""


@dataclass(frozen=True)
class Entry:
    """One line of the timeline."""

    time: int
    kind: str
    title: str


@dataclass(frozen=True)
class Answer:
    """One line of the checklist; ``status`` is found, clear or open."""

    status: str
    severity: str
    answer: str
    cause: str
    seen: str
    meaning: str


def finding_card(finding: Finding, *, figure: str = "") -> Markup:
    """Return one finding with its evidence, remedy and rows."""
    frame = finding.frame
    rows = table(frame, finding.title, most=20) if frame is not None and not frame.empty else Markup("")
    return render(
        "finding",
        finding=finding,
        mark=MARKS[finding.severity],
        symptom=symptom(finding),
        worth=worth(finding),
        gain=gain(finding),
        figure=figure,
        rows=rows,
    )


def findings_piece(findings: Sequence[Finding]) -> Piece:
    """Return the cards of ``findings``, or that there are none."""
    if not findings:
        said = "No cause was found among those that could be checked."
        return Piece(render("said", said=said), said)
    text = "\n".join(f"{f.cause}: {f.title} ({wording.percent(f.share)}, {f.severity})" for f in findings)
    return Piece(Markup("").join(finding_card(finding) for finding in findings), text)


def checklist_piece(checklist: Checklist, data: dict[str, Any] | None = None) -> Piece:
    """Return every cause looked for and the answer; ``data`` is published beside it for machines."""
    rows = answers(checklist)
    text = "\n".join(f"{row.answer:<14} {row.cause:<24} {row.seen}" for row in rows)
    html = render("checklist", caption=tally(checklist), rows=rows)
    return Piece(html, f"{tally(checklist)}\n{text}", {FINDINGS_MIME: data} if data is not None else None)


def answers(checklist: Checklist) -> list[Answer]:
    """Return the checklist line by line: found, clear, not measured."""
    found = [
        _answer("found", f.severity, f"{MARKS[f.severity]} {f.severity}", f.cause, f.title) for f in checklist.findings
    ]
    clear = [_answer("clear", "", "✓ clear", one.cause, one.examined) for one in checklist.clear]
    missing = [_answer("open", "", "not measured", one.cause, f"needs {one.needs}") for one in checklist.not_measured]
    return [*found, *clear, *missing]


def tally(checklist: Checklist) -> str:
    """Return how many causes were looked for and with what result."""
    parts = (checklist.findings, checklist.clear, checklist.not_measured)
    looked = sum(map(len, parts))
    found, clear, missing = map(len, parts)
    return f"{looked} causes: {found} found, {clear} clear, {missing} not measured"


def tiles_piece(tiles: Sequence[Tile]) -> Piece:
    """Return figures at a glance."""
    said = [(tile, ", ".join(filter(None, (tile.verdict, tile.note)))) for tile in tiles]
    text = "\n".join(f"{tile.name}: {tile.value}" + f" ({more})" * bool(more) for tile, more in said)
    return Piece(render("tiles", tiles=tiles), text)


def judged(name: str, value: float, objective: Objective) -> Tile:
    """Return a tile that says how ``value`` stands against ``objective``."""
    unit = objective.unit
    shown = wording.quantity(value, unit)
    if value != value:
        return Tile(name, "–")
    missed = objective.is_missed(value)
    limit = wording.quantity(float(objective.value), unit)
    verdict = (
        f"{objective.miss(value):.1f} × the objective of {limit}" if missed else f"within the objective of {limit}"
    )
    return Tile(name, shown, verdict, missed)


def timeline_piece(entries: Iterable[Entry]) -> Piece:
    """Return the timeline, oldest first."""
    listed = sorted(entries, key=lambda entry: entry.time)
    text = "\n".join(f"{wording.clock(entry.time)} {entry.kind}: {entry.title}" for entry in listed)
    return Piece(render("timeline", entries=listed), text or "Nothing is on the timeline yet.")


def entries_of(events: "pd.DataFrame") -> list[Entry]:
    """Return the rows of ``events`` as entries."""
    rows = zip(events["time"], events["kind"], events["title"], strict=True)
    return [Entry(int(time), str(kind), str(title)) for time, kind, title in rows]


def symptom(finding: Finding) -> str:
    """Return what a finding's share is a share of, in words."""
    return SYMPTOMS.get(finding.symptom, finding.symptom)


def gain(finding: Finding) -> str:
    """Return the estimate in words, or nothing."""
    if (estimate := finding.estimate) is None:
        return ""
    unit = next((unit for unit in wording.UNITS if estimate.metric.endswith(unit)), "")
    name = estimate.metric.removesuffix(f"_{unit}").replace("_", " ") + " cost" * (unit == "usd")
    low, high, before = (wording.quantity(value, unit) for value in (estimate.low, estimate.high, estimate.before))
    left_out = f" Not in it: {wording.listed(list(estimate.not_modelled))}." if estimate.not_modelled else ""
    return f"Estimated {name}: {low} to {high}, now {before}.{left_out}"


def worth(finding: Finding) -> str:
    """Return what the cause costs, in words, or nothing where it is not about money."""
    parts = [(finding.usd_per_day, "a day at this rate"), (finding.usd_per_request, "per request")]
    return ", ".join(f"{wording.about_dollars(usd)} {unit}" for usd, unit in parts if usd is not None)


def worst(findings: Sequence[Finding]) -> str:
    """Return the highest severity among ``findings``, or nothing."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index, default="")


def _answer(status: str, severity: str, answer: str, cause: str, seen: str) -> Answer:
    meaning = catalogue()[cause].meaning if cause in catalogue() else ""
    return Answer(status, severity, answer, cause, seen, meaning)
