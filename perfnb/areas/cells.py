"""What the notebooks of all areas show alike: a figure, and the answers of the checklist in four forms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perfnb.checklist import Checklist, checks_felt_in
from perfnb.errors import NotMeasured
from perfnb.finding import Finding
from perfnb.try_a_change import TryAChange
from perfnb.widgets import cards, wording
from perfnb.widgets.chart import Drawn, Missing, Shown
from perfnb.widgets.html import Piece
from perfnb.widgets.next_steps import next_steps_piece
from perfnb.widgets.progress import Progress
from perfnb.widgets.recipes import recipes_piece

if TYPE_CHECKING:
    from perfnb.incident import Incident


def shows(figure: Drawn) -> "Callable[[Incident], Shown]":
    """Return a cell that draws ``figure`` from the incident's recording."""

    def cell(incident: "Incident") -> Shown:
        return figure.of(incident.snapshot, incident.objectives)

    cell.__doc__ = figure.__doc__
    cell.__name__ = figure.__name__
    return cell


def not_measured(missing: NotMeasured) -> Missing:
    """Return what is said in place of something whose evidence is not there."""
    return Missing(f"Not measured. It needs {missing.hint or missing.message}")


@dataclass(frozen=True)
class Answers:
    """The cells that show what the checklist of ``area``, or of all areas, answers.

    ``further`` names for a cause the area whose notebook goes on with it; ``judged_by`` is the metric a trial is about.
    """

    area: str | None = None
    further: Mapping[str, str] = field(default_factory=dict)
    judged_by: str = "request_duration_ms"

    def of(self, incident: "Incident") -> Checklist:
        """Return the answers, telling in the notebook how far the checks have come."""
        with Progress("Looking for causes", len(checks_felt_in(self.area))) as progress:
            return incident.checklist(self.area, progress=progress)

    def checklist(self, incident: "Incident") -> Piece:
        """Return every cause with its answer, and publish the findings as data beside it."""
        answers = self.of(incident)
        return cards.checklist_piece(answers, answers.as_dict(incident.snapshot))

    def findings(self, incident: "Incident") -> Piece:
        """Return the causes that are present, each with evidence, remedy and rows."""
        return cards.findings_piece(self.of(incident).findings)

    def named(self, incident: "Incident") -> str:
        """Return the causes that are present, one a line, with severity, share and dollars: for a terminal or a test."""
        return "\n".join(map(_line, self.of(incident).findings)) or "no cause found"

    def recipes(self, incident: "Incident") -> Piece:
        """Return short working code that mends what was found, folded."""
        return recipes_piece(self.of(incident).findings)

    def try_a_change(self, incident: "Incident") -> TryAChange:
        """Return the panel that estimates changes, those that fit the findings first, and tries them on the live app."""
        return TryAChange(incident, self.of(incident).findings, primary=self.judged_by)

    def next_steps(self, incident: "Incident") -> Piece:
        """Return which notebooks to open next, by what was found."""
        return next_steps_piece(self.of(incident).findings, self.further)


def _line(finding: Finding) -> str:
    line = f"{finding.cause:<22} {finding.severity:<9} {wording.percent(finding.share)}"
    if finding.symptom != "cost" or finding.usd_per_request is None:
        return line
    return f"{line:<40} {wording.dollars(finding.usd_per_request)} per request"
