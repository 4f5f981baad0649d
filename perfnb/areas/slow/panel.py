"""What the notebook on slow responses shows: each function takes the incident and returns something a cell displays."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from perfnb.areas.slow import exemplars, figures, stages
from perfnb.attribution import timeline_of
from perfnb.checklist import Checklist, checks
from perfnb.errors import NotMeasured
from perfnb.widgets import cards, wording
from perfnb.widgets.chart import Chart, Drawn, Missing, Shown
from perfnb.widgets.choose import Chooser
from perfnb.widgets.html import Piece
from perfnb.widgets.next_steps import next_steps_piece
from perfnb.widgets.progress import Progress
from perfnb.widgets.tiles import impact_tiles

if TYPE_CHECKING:
    from perfnb.incident import Incident

AREA = "slow"

# What another notebook looks into further, by what was found here
FURTHER = {
    "no-response-cache": "costs", "cache-misses": "costs", "large-context": "costs", "too-many-documents": "costs",
    "long-history": "costs", "slow-model": "costs", "deep-reasoning": "agents", "sequential-calls": "agents",
    "retry-amplification": "agents", "dominant-stage": "database", "slow-processing": "memory",
    "blocked-event-loop": "memory", "python-hot-spot": "memory",
}  # fmt: skip


def overview(incident: "Incident") -> Piece:
    """Return requests, percentiles, first words and calls at a glance, each against its objective."""
    try:
        row = stages.overview(incident.recording).iloc[0].astype(float).to_dict()
    except NotMeasured as missing:
        return Missing(f"Not measured. It needs {missing.hint}")
    tiles = impact_tiles(row, incident.objectives)
    return cards.tiles_piece(tiles) if tiles else Missing(f"Not measured. It needs {stages.HOW_TO_SEE_REQUESTS}")


def _shows(figure: Drawn) -> "Callable[[Incident], Shown]":
    """Return a panel that draws ``figure`` from the incident's recording."""

    def panel(incident: "Incident") -> Shown:
        return figure.of(incident.recording, incident.objectives)

    panel.__doc__ = figure.__doc__
    panel.__name__ = figure.__name__
    return panel


requests_over_time = _shows(figures.requests_over_time)
where_time_goes = _shows(figures.where_time_goes)
percentiles = _shows(figures.percentiles)
first_token_and_total = _shows(figures.first_token_and_total)
latency_by_tokens = _shows(figures.latency_by_tokens)
in_flight = _shows(figures.in_flight)
sequences = _shows(figures.sequences)
attempts_over_time = _shows(figures.attempts_over_time)
speed_by_model = _shows(figures.speed_by_model)
flame = _shows(figures.flame)


def waterfall(incident: "Incident") -> Chooser | Missing:
    """Return the waterfall of the slowest request, with a choice of the next slowest."""
    try:
        slowest = exemplars.slowest(incident.recording)
    except NotMeasured as missing:
        return Missing(f"Not measured. It needs {missing.hint}")
    names = {
        f"{place}. {route or 'request'}, {wording.duration(ms)} ({request_id[:12]})": request_id
        for place, (request_id, route, ms) in enumerate(
            zip(slowest["request_id"], slowest["route"], slowest["duration_ms"], strict=True), 1
        )
    }
    about = {request_id: name.partition(" (")[0] for name, request_id in names.items()}

    def draw(request_id: str) -> Chart:
        return figures.waterfall(timeline_of(incident.recording, request_id), about=about[request_id])

    return Chooser("Slowest requests", names, draw)


def checklist(incident: "Incident") -> Piece:
    """Return every cause of this area with its answer, and publish the findings as data beside it."""
    answers = _answers(incident)
    return cards.checklist_piece(answers, answers.as_dict(incident.recording))


def findings(incident: "Incident") -> Piece:
    """Return the causes that are present, each with evidence, remedy and figure."""
    return cards.findings_piece(_answers(incident).findings)


def named(incident: "Incident") -> str:
    """Return the causes that are present, one a line, with severity and share: for a terminal or a test."""
    lines = [f"{f.cause:<22} {f.severity:<9} {wording.percent(f.share)}" for f in _answers(incident).findings]
    return "\n".join(lines) or "no cause found"


def next_steps(incident: "Incident") -> Piece:
    """Return which notebooks to open next, by what was found."""
    return next_steps_piece(_answers(incident).findings, FURTHER)


def _answers(incident: "Incident") -> Checklist:
    with Progress("Looking for causes", len(checks(AREA))) as progress:
        return incident.checklist(AREA, progress=progress)
