"""What the first and the last notebook show: what works here, findings of every area, notes, the export."""

from pathlib import Path
from typing import Any

from perfnb.areas.cells import Answers
from perfnb.incident import Incident
from perfnb.widgets import cards, wording
from perfnb.widgets.html import Piece, render
from perfnb.widgets.next_steps import next_steps_piece
from perfnb.widgets.table import Table

EVERY_AREA = Answers()
LIVE_ONLY = "Notes are typed into the open notebook; they stand on the timeline."


def doctor(incident: Incident) -> Piece:
    """Return what works on this machine and what each missing thing needs."""
    import pandas as pd

    from perfnb.doctor import examine

    found = examine(incident.target)
    rows = [{"source": one.source, "works": one.works, "found": one.found, "needs": one.needs or "–"} for one in found]
    working = sum(one.works for one in found)
    return Table(pd.DataFrame(rows), f"{working} of {len(found)} sources of evidence work here")


def findings_by_area(incident: Incident) -> Piece:
    """Return every cause that is present, in any area, the largest share first; the findings are published as data."""
    import pandas as pd

    answers = EVERY_AREA.of(incident)
    rows = [
        {
            "area": one.area,
            "cause": one.cause,
            "severity": one.severity,
            "share": one.share,
            "usd_per_day": one.usd_per_day,
            "what": one.title,
        }
        for one in answers.findings
    ]
    columns = ["area", "cause", "severity", "share", "usd_per_day", "what"]
    piece = Table(pd.DataFrame(rows, columns=columns).astype({"usd_per_day": float}), cards.tally(answers))
    piece.data = {cards.FINDINGS_MIME: answers.as_dict(incident.snapshot)}
    return piece


def where_next(incident: Incident) -> Piece:
    """Return the notebooks to open, by the areas of what was found."""
    further = {finding.cause: finding.area for finding in incident.findings}
    return next_steps_piece(incident.findings, further)


def timeline(incident: Incident) -> Piece:
    """Return what happened when, notes included."""
    return cards.timeline_piece(cards.entries_of(incident.timeline()))


class Notes:
    """A line to type into, beside the timeline; in an export the timeline alone."""

    def __init__(self, incident: Incident) -> None:
        self.incident = incident

    def _ipython_display_(self) -> None:
        import ipywidgets
        from IPython.display import display

        line = ipywidgets.Text(placeholder="what you saw or did, then press Enter", continuous_update=False)
        line.layout.width = "min(100%, 40rem)"
        bundle = {**line._repr_mimebundle_(), "text/html": f"<p>{LIVE_ONLY}</p>", "text/plain": LIVE_ONLY}
        display(bundle, raw=True)
        shown = display(timeline(self.incident), display_id=True)

        def add(change: Any) -> None:
            if change["new"].strip():
                self.incident.note(change["new"])
                line.value = ""
                shown.update(timeline(self.incident))

        line.observe(add, names="value")


def notes(incident: Incident) -> Notes:
    """Return a line for notes that go onto the timeline."""
    return Notes(incident)


def summary(incident: Incident) -> Piece:
    """Return what happened in one paragraph, as the postmortem begins."""
    from perfnb.report.document import money_of, overview_of
    from perfnb.report.summary import summary as sentences

    recording = incident.snapshot
    text = sentences(
        overview_of(recording), EVERY_AREA.of(incident), incident.objectives, recording.window, money_of(recording)
    )
    return Piece(render("said", said=text), text)


def export(incident: Incident, out: str | Path = "postmortem.html", *, title: str | None = None) -> Piece:
    """Write the postmortem to ``out`` and say where it is and how large."""
    from perfnb.report import postmortem

    path = postmortem(incident.recording.path, Path(out), title=title, objectives=incident.objectives)
    said = f"Written: {path} ({wording.size(path.stat().st_size)}), one file that needs no network."
    return Piece(render("said", said=said), said)
