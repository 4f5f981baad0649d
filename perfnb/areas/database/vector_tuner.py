"""The vector tuner as a panel: choose a column and a recall target, watch it measure, stop it, see what is enough."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfnb.areas.database.names import plain
from perfnb.areas.database.vector_stores import collections, vector_columns
from perfnb.attribution.objects import objects
from perfnb.errors import NotMeasured, PerfnbError, WrongUse
from perfnb.estimates import Parameter
from perfnb.try_a_change.controls import WIDTH, value_widget
from perfnb.try_a_change.database import NO_DSN, require_dsn
from perfnb.tuner import Tuning, TuningProgress, tune
from perfnb.tuner.candidates import CANDIDATES
from perfnb.tuner.engines.base import Engine
from perfnb.tuner.figures import curve
from perfnb.tuner.recorded import tunings
from perfnb.tuner.shown import tuning_piece
from perfnb.widgets import wording
from perfnb.widgets.chart import Missing, Shown
from perfnb.widgets.html import Piece, live, render, status
from perfnb.widgets.keyboard import with_keys

if TYPE_CHECKING:
    from perfnb.incident import Incident

NOT_YET = "Recall is not known yet: choose what to tune and press Tune, or call perfnb.tuner.tune."
NO_FILTER = "no filter"
NO_OTHERS, OTHERS = "no", "on a temporary copy of 20,000 rows at most"

# Types whose values part the rows into groups, as a filter does.
_FILTERABLE = ("int", "smallint", "bigint", "numeric", "text", "character varying", "uuid", "boolean", "date")


class VectorTuner:
    """The panel for ``incident``: what can be tuned is every vector column of its database, on the rows as they are."""

    def __init__(self, incident: "Incident") -> None:
        self.incident = incident
        columns = _columns(incident)
        self.places = {f"{plain(each['table'])}.{each['column']}": each for each in columns}
        self.given: dict[str, Any] = {}
        self.choose(next(iter(self.places), ""))
        self._stop = threading.Event()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Return what can be set, for the column that is chosen."""
        return (
            Parameter("place", "vectors", self.given["place"], choices=tuple(self.places)),
            Parameter("k", "rows a search asks for", 10, low=1, high=200, step=1),
            Parameter("target", "recall wanted", 0.95, low=0.8, high=0.99, step=0.01),
            Parameter("filter_column", "filter on", NO_FILTER, choices=(NO_FILTER, *self._filters())),
            Parameter("queries", "file of query vectors (.npy, .json)", ""),
            Parameter("candidates", "other indexes too", NO_OTHERS, choices=(NO_OTHERS, OTHERS)),
            Parameter("limit_s", "end after", 300, "s", low=10, high=3600, step=10),
        )

    def choose(self, place: str) -> None:
        """Choose a column; all else is set to what it is by default."""
        self.given = {"place": place}
        self.given |= {each.name: each.default for each in self.parameters}

    def why_not(self) -> str:
        """Return why nothing can be tuned here; nothing where it can."""
        if not self.places:
            return "No column of vectors was seen in a Postgres of this recording."
        return "" if self.incident.target.dsn else f"Not tuned: {NO_DSN}"

    def cost(self) -> str:
        """Return what tuning does to the server."""
        rows = float(self.places[self.given["place"]]["rows"] or 0)
        copy = ", then builds indexes on a temporary copy, which goes with the session" if self._candidates() else ""
        return (
            f"It only reads, one search at a time{copy}. The exact answers take up to 400 scans of all "
            f"{wording.number(rows)} rows; what was measured until {self.given['limit_s']:g} s, or Stop, is kept."
        )

    def run(self, tell: Any = None) -> Tuning:
        """Tune what is chosen, put it on the timeline and return it; ``tell`` gets each :class:`TuningProgress`."""
        self._stop.clear()
        given = self.given
        with self._engine() as engine:
            return tune(
                engine,
                self._queries(),
                k=int(given["k"]),
                target=float(given["target"]),
                filter_column=None if given["filter_column"] == NO_FILTER else given["filter_column"],
                candidates=self._candidates(),
                limit_s=float(given["limit_s"]),
                progress=tell,
                stop=self._stop,
                recording=self.incident.recording,
            )

    def stop(self) -> None:
        """End the tuning that runs; what it measured is kept."""
        self._stop.set()

    def result(self) -> Piece:
        """Return the last tuning on the timeline, or that there is none."""
        try:
            return tuning_piece(tunings(self.incident.recording)[-1])
        except NotMeasured:
            return Missing(NOT_YET)

    def chart(self) -> Shown:
        """Return recall against latency of the last tuning: under the filter that was asked for, else of all rows."""
        try:
            last = tunings(self.incident.recording)[-1]
        except NotMeasured:
            return Missing("After a tuning, recall against latency is drawn here.")
        if not last.points:
            return Missing("The last tuning ended before it had measured a setting.")
        return curve(last, last.points[0].filter)

    def _engine(self) -> Any:
        from perfnb.tuner import PgvectorTable

        if not self.places:
            raise WrongUse("there is no column of vectors", hint="record the database: perfnb record --dsn DSN")
        place = self.places[self.given["place"]]
        engine: Engine = PgvectorTable(require_dsn(self.incident.target.dsn), place["table"], place["column"])
        return engine

    def _queries(self) -> Path | None:
        path = str(self.given["queries"]).strip()
        return Path(path).expanduser() if path else None

    def _candidates(self) -> tuple[str, ...]:
        if self.given["candidates"] != OTHERS:
            return ()
        filtered = self.given["filter_column"] != NO_FILTER
        return tuple(name for name in CANDIDATES if filtered or name not in ("partial", "filter index"))

    def _filters(self) -> tuple[str, ...]:
        place = self.places.get(self.given["place"])
        return _filterable(self.incident, str(place["table"])) if place else ()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        controls = _Controls(self)
        display(self.bundle(with_keys(controls.box)), raw=True)
        controls.show(display(self.result(), display_id=True), display(self.chart(), display_id=True))

    def bundle(self, box: Any) -> dict[str, Any]:
        """Return the live controls and their static twin, as one output."""
        told = f"Vectors that can be tuned: {', '.join(self.places) or 'none'}. {self.why_not() or self.cost()}"
        others = collections(self.incident.snapshot)["name"].unique()
        if len(others):
            told += f" Collections of vector stores ({', '.join(others)}) are tuned by perfnb.tuner.tune."
        return {**box._repr_mimebundle_(), "text/html": live(render("said", said=told)), "text/plain": told}


class _Controls:
    """Widgets for ``panel``; the tuning runs beside them, so that Stop is heard."""

    def __init__(self, panel: VectorTuner) -> None:
        import ipywidgets as w

        self._panel = panel
        self._shown: tuple[Any, Any] | None = None
        self.values = w.VBox()
        self.tune = w.Button(description="Tune", icon="play", button_style="primary")
        self.stop = w.Button(description="Stop", icon="stop", disabled=True)
        self.said = w.HTML(layout=w.Layout(width=WIDTH))
        self.box = w.VBox([self.values, w.HBox([self.tune, self.stop]), self.said])
        self.tune.on_click(lambda _: self._start())
        self.stop.on_click(lambda _: self._end())
        self._rebuild()

    def show(self, result: Any, chart: Any) -> None:
        """Say where result and chart are shown."""
        self._shown = (result, chart)

    def _rebuild(self) -> None:
        self.values.children = tuple(self._value(each) for each in self._panel.parameters) if self._panel.places else ()
        self._ready()

    def _value(self, parameter: Parameter) -> Any:
        widget = value_widget(parameter)
        widget.observe(lambda told: self._set(parameter.name, told["new"]), names="value")
        return widget

    def _set(self, name: str, value: Any) -> None:
        if name == "place":
            self._panel.choose(value)
            self._rebuild()
            return
        self._panel.given[name] = value
        self._ready()

    def _ready(self) -> None:
        why_not = self._panel.why_not()
        self.tune.disabled = bool(why_not)
        self._say(why_not or self._panel.cost())

    def _start(self) -> None:
        self._running(True)
        self._say("Tuning begins.")
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._say(self._panel.run(self._tell).headline)
            if self._shown:
                self._shown[0].update(self._panel.result())
                self._shown[1].update(self._panel.chart())
        except PerfnbError as error:
            self._say(f"Not tuned: {error}")
        finally:
            self._running(False)

    def _tell(self, told: TuningProgress) -> None:
        self._say(f"{told.searches:,} searches in {told.seconds:.0f} s: {told.text}")

    def _end(self) -> None:
        self.stop.disabled = True
        self._say("Stopping; what was measured is kept.")
        self._panel.stop()

    def _running(self, is_running: bool) -> None:
        for each in (self.tune, *self.values.children):
            each.disabled = is_running
        self.stop.disabled = not is_running

    def _say(self, text: str) -> None:
        self.said.value = status(text)


def _columns(incident: "Incident") -> list[dict[Any, Any]]:
    try:
        return list(vector_columns(incident.snapshot).to_dict("records"))
    except NotMeasured:
        return []


def _filterable(incident: "Incident", table: str) -> tuple[str, ...]:
    """Return the columns of ``table`` whose values a filter may ask for."""
    found = objects(incident.snapshot, "column")
    names = found.loc[found["type"].astype(str).str.startswith(_FILTERABLE), "name"].astype(str)
    return tuple(sorted(name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == table))
