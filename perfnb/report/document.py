"""The postmortem: one HTML file that tells what happened, why, how it is known, and what to do."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from markupsafe import Markup

from perfnb.areas.costs import figures as cost_figures
from perfnb.areas.costs import spend
from perfnb.areas.slow import figures, stages
from perfnb.checklist import Checklist, run
from perfnb.errors import NotMeasured, WrongUse
from perfnb.finding import Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.report import summary
from perfnb.report.page import Page, as_html, chart_figure, environment
from perfnb.report.prompts import CONTENT_ASKED_FOR, Prompts
from perfnb.report.redaction import Redactor
from perfnb.report.sanitise import clean
from perfnb.report.surroundings import prices, surroundings
from perfnb.report.tables import without_content
from perfnb.target import Target
from perfnb.trials.shown import result_piece, trials_of
from perfnb.widgets import cards, wording
from perfnb.widgets.chart import Chart, Drawing, Drawn, Shown
from perfnb.widgets.tiles import assumed, impact_tiles, money_tiles

_PLACE = '<hr class="chart-{}">'


def postmortem(
    recording_path: Path | str,
    out: Path | str,
    *,
    title: str | None = None,
    with_content: bool = False,
    objectives: Objectives | None = None,
) -> Path:
    """Write the postmortem of a recording to ``out`` and return its path.

    Prompt texts are left out unless ``with_content``. Raises BadRecording where there is no recording and WrongUse
    where ``out`` can't be written.
    """
    with Recording.open(recording_path) as recording:
        html = as_postmortem(recording, objectives or Objectives.load(), title=title, with_content=with_content)
    return write(html, Path(out))


def as_postmortem(
    recording: Recording, objectives: Objectives, *, title: str | None = None, with_content: bool = False
) -> str:
    """Return the postmortem of ``recording`` as HTML."""
    redactor = redactor_for(recording, with_content=with_content)
    checklist = run(recording, objectives)
    charts = _Charts(recording, objectives)
    body = environment().get_template("postmortem.html.j2").render(
        overview=(overview := overview_of(recording)),
        summary=summary.summary(overview, checklist, objectives, recording.window, money := money_of(recording)),
        tiles=cards.tiles_piece(impact_tiles(overview, objectives)).html,
        impact=[charts.place(name, figures) for name in ("requests_over_time", "where_time_goes")],
        money=cards.tiles_piece(money_tiles(money)).html if money else "",
        assumed=assumed(money),
        prices=prices(recording),
        spend=charts.place("spend_by_model", cost_figures),
        timeline=cards.timeline_piece(_entries(recording)).html,
        in_flight=charts.place("in_flight", figures),
        findings=_cards(checklist, charts),
        actions=summary.actions(checklist.findings),
        trials=_trials(recording),
        needs=summary.needs(checklist.not_measured),
        checklist=cards.checklist_piece(checklist).html,
        thresholds=summary.thresholds(objectives),
        surroundings=surroundings(recording),
        simulated=_is_simulated(recording),
    )  # fmt: skip
    safe = without_content(clean(body, redactor.text), redactor)
    page = Page(
        redactor.text(title or f"Postmortem: {recording.name}"),
        charts.put_into(safe, redactor),
        badge="simulated" if _is_simulated(recording) else "",
        facts=tuple(map(redactor.text, _facts(recording))),
    )
    return as_html(page, redactor)


def redactor_for(recording: Recording, *, with_content: bool = False) -> Redactor:
    """Return a redactor that knows the recording's texts, this process's secrets, and those in ``perfnb.toml``."""
    prompts = CONTENT_ASKED_FOR if with_content else Prompts.recorded_in(recording)
    target = Target.load()
    environment = {**os.environ, **({"PERFNB_DSN": target.dsn} if target.dsn else {})}
    for number, request in enumerate(target.requests):
        environment |= {f"{number} {name.replace('-', '_')}": value for name, value in request.headers.items()}
    return Redactor.here(prompts=prompts, environment=environment)


def write(html: str, out: Path) -> Path:
    """Write ``html`` to ``out`` by atomic rename; raises WrongUse where that is not possible."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f".{out.name}.partial")
        partial.write_text(html, encoding="utf-8")
        partial.rename(out)
    except OSError as error:
        raise WrongUse(f"{out} can't be written: {error.strerror}", hint="name another file with -o") from None
    return out


class _Charts:
    """Charts by their place in the body: drawn once, put in after everything around them was made safe."""

    def __init__(self, recording: Recording, objectives: Objectives) -> None:
        self._recording = recording
        self._objectives = objectives
        self._drawn: list[Chart] = []
        self._names: set[str] = set()

    def place(self, name: str, module: Any) -> Markup:
        """Return what stands for the figure ``name`` of ``module``: nothing where it was drawn before or is missing."""
        figure = getattr(module, name, None)
        if not isinstance(figure, Drawn) or name in self._names:
            return Markup("")
        self._names.add(name)
        return self._put(figure.of(self._recording, self._objectives))

    def put_into(self, body: Markup, redactor: Redactor) -> Markup:
        """Return ``body`` with the charts in their places."""
        for number, chart in enumerate(self._drawn):
            figure = redactor.data(chart.as_json(), keys=False)
            twin = without_content(clean(chart.twin, redactor.text), redactor)
            body = body.replace(Markup(_PLACE.format(number)), chart_figure(figure, redactor.text(chart.alt), twin))
        return Markup(body)

    def _put(self, shown: Shown) -> Markup:
        if isinstance(shown, Chart):
            self._drawn.append(shown)
            return Markup(_PLACE.format(len(self._drawn) - 1))
        return shown.html if isinstance(shown, Drawing) else Markup("")


def _cards(checklist: Checklist, charts: _Charts) -> list[Markup]:
    return [cards.finding_card(finding, figure=_figure(finding, charts)) for finding in checklist.findings]


def _figure(finding: Finding, charts: _Charts) -> Markup:
    try:
        module = import_module(f"perfnb.areas.{finding.area}.figures")
    except ModuleNotFoundError:  # a check of another package: its rows are shown
        return Markup("")
    return charts.place(finding.figure, module)


def overview_of(recording: Recording) -> dict[str, float]:
    """Return requests, percentiles and counts of ``recording``; nothing where they were not measured."""
    try:
        return {str(name): float(value) for name, value in stages.overview(recording).iloc[0].items()}
    except NotMeasured:
        return {}


def money_of(recording: Recording) -> dict[str, Any]:
    """Return the money of ``recording`` at a glance; nothing where no model call was recorded."""
    try:
        return {str(name): value for name, value in spend.overview(recording).iloc[0].items()}
    except NotMeasured:
        return {}


def _entries(recording: Recording) -> list[cards.Entry]:
    """Return the timeline between the first and the last thing observed, these included."""
    window = recording.window
    events = cards.entries_of(recording.query("SELECT time, kind, title FROM events ORDER BY time LIMIT 500"))
    return [
        cards.Entry(window.start, "window", "First observation"),
        *events,
        cards.Entry(window.end, "window", "Last observation"),
    ]


def _trials(recording: Recording) -> list[Markup]:
    return [result_piece(trial).html for trial in trials_of(recording)]


def _facts(recording: Recording) -> tuple[str, ...]:
    window = recording.window
    observed = f"{wording.moment(window.start)} to {wording.clock(window.end)} UTC"
    return (observed, f"{wording.duration(window.seconds * 1000)} observed", recording.path.name)


def _is_simulated(recording: Recording) -> bool:
    return bool(recording.manifest.get("simulated"))
