"""What the notebook on slow responses shows: each function takes the incident and returns something a cell displays."""

from typing import TYPE_CHECKING

from perfnb.areas.cells import Answers, not_measured, shows
from perfnb.areas.slow import exemplars, figures, stages
from perfnb.attribution import timeline_of
from perfnb.errors import NotMeasured
from perfnb.widgets import cards, wording
from perfnb.widgets.chart import Chart, Missing
from perfnb.widgets.choose import Chooser
from perfnb.widgets.html import Piece
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


_answers = Answers(AREA, FURTHER)
checklist, findings, named, next_steps = _answers.checklist, _answers.findings, _answers.named, _answers.next_steps
try_a_change, recipes = _answers.try_a_change, _answers.recipes


def overview(incident: "Incident") -> Piece:
    """Return requests, percentiles, first words and calls at a glance, each against its objective."""
    try:
        row = stages.overview(incident.snapshot).iloc[0].astype(float).to_dict()
    except NotMeasured as missing:
        return not_measured(missing)
    tiles = impact_tiles(row, incident.objectives)
    return cards.tiles_piece(tiles) if tiles else Missing(f"Not measured. It needs {stages.HOW_TO_SEE_REQUESTS}")


requests_over_time = shows(figures.requests_over_time)
where_time_goes = shows(figures.where_time_goes)
percentiles = shows(figures.percentiles)
first_token_and_total = shows(figures.first_token_and_total)
latency_by_tokens = shows(figures.latency_by_tokens)
in_flight = shows(figures.in_flight)
sequences = shows(figures.sequences)
attempts_over_time = shows(figures.attempts_over_time)
speed_by_model = shows(figures.speed_by_model)
flame = shows(figures.flame)


def waterfall(incident: "Incident") -> Chooser | Missing:
    """Return the waterfall of the slowest request, with a choice of the next slowest."""
    try:
        slowest = exemplars.slowest(incident.snapshot)
    except NotMeasured as missing:
        return not_measured(missing)
    names = {
        f"{place}. {route or 'request'}, {wording.duration(ms)} ({request_id[:12]})": request_id
        for place, (request_id, route, ms) in enumerate(
            zip(slowest["request_id"], slowest["route"], slowest["duration_ms"], strict=True), 1
        )
    }
    about = {request_id: name.partition(" (")[0] for name, request_id in names.items()}

    def draw(request_id: str) -> Chart:
        return figures.waterfall(timeline_of(incident.snapshot, request_id), about=about[request_id])

    return Chooser("Slowest requests", names, draw)
