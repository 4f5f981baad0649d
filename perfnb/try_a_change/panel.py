"""The panel: choose a change, see its estimate at once, try it on the live app, keep it or undo it.

It works by mouse and by keyboard. What it shows stands in outputs of the cell, so that a headless run and an export
show the same facts; each trial, and what was kept or undone, is on the timeline.
"""

import contextlib
import threading
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from perfnb.errors import PerfnbError
from perfnb.estimates import Parameter, Prediction
from perfnb.estimates import predict as predicted
from perfnb.finding import Finding
from perfnb.knobs import Knob, reverted
from perfnb.knobs import change as set_knob
from perfnb.knobs.postgres import RoleSetting
from perfnb.trials import Plan, TrialResult, pairs_needed, run_trial
from perfnb.trials.measure import METRICS
from perfnb.trials.shown import distribution, durations, plans_of, result_piece, setting, trials_of
from perfnb.try_a_change.choices import Choice, choices
from perfnb.try_a_change.database import NO_DSN, Told, require_dsn
from perfnb.try_a_change.live import Live, NotLive
from perfnb.try_a_change.shown import gains_piece, headline, prediction_piece
from perfnb.widgets.chart import Missing
from perfnb.widgets.html import Piece, live, render
from perfnb.widgets.keyboard import with_keys

if TYPE_CHECKING:
    from perfnb.incident import Incident

MOST_ESTIMATED = 6
"""Changes whose estimates are listed; the rest are worked out when they are chosen."""

BLOCK_S = 4.0
SPREAD = 0.15
"""By how much pairs are taken to vary (standard deviation of the log ratio) before anything was measured: blocks of a few
seconds vary by 5 to 17 % (research on comparisons), those of ``bench/trials.py --demo`` by 10 %."""

TRIALS_SO_FAR = "No trial yet. “Try it” sends requests to the live app, with and without the change."


class TryAChange:
    """The panel for ``incident``; remedies of ``findings`` come first, ``primary`` is the metric a trial is about."""

    def __init__(
        self, incident: "Incident", findings: Iterable[Finding], *, primary: str = "request_duration_ms"
    ) -> None:
        self.incident = incident
        self.primary = primary
        self.choices = choices(incident.snapshot, incident.target, findings)
        self.chosen = self.choices[0]
        self.given: dict[str, Any] = {}
        self.result: TrialResult | None = next(reversed(trials_of(incident.recording)), None)
        self.is_accepted = False
        self._stop = threading.Event()
        self._kept: tuple[Knob, ...] = ()

    @cached_property
    def live(self) -> Live | NotLive:
        """Return how changes reach the target, or why they can't."""
        return Live.of(self.incident)

    def estimate(self) -> Piece:
        """Return the estimate of what is chosen, as it is set."""
        try:
            prediction = self._prediction()
        except PerfnbError as error:
            return Missing(f"No estimate: {error}")
        if prediction is None:
            what = "of the database" if self.chosen.way else "of the app"
            return Missing(f"Nothing estimates what a setting {what} does: try it.")
        return prediction_piece(self.chosen.title, prediction)

    def overview(self) -> Piece:
        """Return the changes that fit what was found, with what each would have saved."""
        fitting = [each for each in self.choices if each.causes][:MOST_ESTIMATED]
        if not fitting:
            return Missing(
                "Nothing was found that one of these changes would mend; each can be estimated all the same."
            )
        return gains_piece(self._gain(each) for each in fitting)

    def trial(self) -> Piece:
        """Return what the last trial of this panel found."""
        return result_piece(self.result) if self.result else Missing(TRIALS_SO_FAR)

    def _gain(self, choice: Choice) -> dict[str, str]:
        try:
            told = headline(predicted(self.incident.snapshot, choice.name))
        except PerfnbError as error:
            told = f"not measured: {error.hint or error.message}"
        can = "no: it is a change of the app" if not choice.knob else "yes" if self._is_there(choice) else "not now"
        parameters = choice.change.parameters if choice.change else choice.parameters
        setting = ", ".join(f"{each.title} {each.default}" for each in parameters if each.default is not None)
        return {"change": choice.title, "remedy for": ", ".join(choice.causes), "setting": setting,
                "estimate": told, "can be tried here": can}  # fmt: skip

    def _is_there(self, choice: Choice) -> bool:
        return bool(self.incident.target.dsn) if choice.way else isinstance(self.live, Live)

    def _prediction(self) -> Prediction | None:
        if self.chosen.change is None:
            return None
        return predicted(self.incident.snapshot, self.chosen.name, **self.chosen.estimated(self.given))

    def _known_prediction(self) -> Prediction | None:
        """Return the estimate of what is chosen; None where there is none."""
        with contextlib.suppress(PerfnbError):
            return self._prediction()
        return None

    def _ipython_display_(self) -> None:
        from IPython.display import display

        from perfnb.try_a_change.controls import Controls

        display(self.overview())
        controls = Controls(self)
        display(self.bundle(with_keys(controls.box)), raw=True)
        controls.show(
            display(self.estimate(), display_id=True),
            display(self.trial(), display_id=True),
            display(self.compared(), display_id=True),
        )

    def bundle(self, box: Any) -> dict[str, Any]:
        """Return the live controls and their static twin, as one output."""
        names = [each.title for each in self.choices]
        twin = render("chooser", title="Changes", names=names, chosen=self.chosen.title)
        said = str(self.live) if isinstance(self.live, NotLive) else ""
        html = live(twin + (render("said", said=said) if said else ""))
        return {**box._repr_mimebundle_(), "text/html": html, "text/plain": f"Changes: {', '.join(names)}. {said}"}

    def choose(self, name: str) -> tuple[Parameter, ...]:
        """Choose a change; returns what it can be set to."""
        self.chosen = next(each for each in self.choices if each.name == name)
        self.given = {each.name: each.default for each in self.chosen.parameters}
        self.is_accepted = False
        return self.chosen.parameters

    def why_not(self) -> str:
        """Return why what is chosen can't be tried now; nothing where it can."""
        if not self.chosen.knob:
            return "perfnb can't do this change from outside: make it in the app, or as a setting of the app"
        if self.chosen.way:
            return "" if self.incident.target.dsn else f"Estimates only: {NO_DSN}"
        if isinstance(self.live, NotLive):
            return str(self.live)
        try:
            return "" if self._value() is not None else "it needs a value first"
        except PerfnbError as error:
            return str(error)

    def plan(self, pairs: int, seconds: float = BLOCK_S) -> Plan:
        """Return the plan of a trial that takes at most ``pairs`` pairs."""
        looks = tuple(look for look in (6, 10, 16, 24, 40) if look <= pairs)
        return Plan(looks=looks, alpha=0.05 / len(looks), primary=self._primary(), seconds=seconds)

    def pairs_wanted(self, plan: Plan) -> int | None:
        """Return how many pairs find the smallest change that is estimated; None where nothing is, or none would.

        Pairs are taken to vary as in the last trial of the same metric, else by 15 %.
        """
        prediction = self._known_prediction()
        effect = prediction.effect(plan.primary) if prediction else None
        if effect is None or effect.before <= 0:
            return None
        spread = SPREAD
        if self.result and any(each.name == plan.primary for each in self.result.metrics):
            spread = self.result[plan.primary].sd
        return pairs_needed(
            1 - max(effect.low, effect.high) / effect.before, spread, alpha=plan.alpha, margin=plan.margin
        )

    def cost(self, *, to_keep: bool = False) -> str:
        """Return what must be said yes to (``is_accepted``) before it is tried, or kept; empty where nothing must."""
        return self.chosen.way.cost(self._dsn, self.given, to_keep=to_keep) if self.chosen.way else ""

    def run(self, plan: Plan, rate_per_s: float, tell: Any) -> TrialResult:
        """Try what is chosen and return what came of it; ``stop`` ends it. Everything is undone by then.

        A change of the database is tried on one statement: ``plan`` and ``rate_per_s`` are for requests to the app.
        """
        self._stop.clear()
        prediction = self._known_prediction()
        told = headline(prediction) if prediction else "nothing is estimated"
        self.incident.recording.add_event("mark", f"to be tried: {self.chosen.title} ({told})")
        if self.chosen.way:
            self.result = self.chosen.way.run(self._dsn, self.given, self._told(tell))
            return self.result
        assert isinstance(self.live, Live)
        self.result = run_trial(
            self.incident.recording,
            self.live.knob(self.chosen.knob),
            self._value(),
            self.live.workload(rate_per_s),
            plan,
            prediction=prediction,
            progress=tell,
            stop=self._stop,
            label=self.live.label,
        )
        return self.result

    def stop(self) -> None:
        """End the trial that runs."""
        self._stop.set()

    def keep(self, tell: Any = lambda told: None) -> str:
        """Set what is chosen and leave it so; says what was done."""
        if self.chosen.way:
            return self._keep_in_database(tell)
        assert isinstance(self.live, Live)
        made = set_knob(self.incident.recording, self.live.knob(self.chosen.knob), self._value())
        made.keep()
        return f"{self.chosen.title}: set, and it stays until it is undone here or by perfnb revert."

    def _keep_in_database(self, tell: Any) -> str:
        assert self.chosen.way is not None
        self._stop.clear()
        turned = self.chosen.way.knobs(self._dsn, self.given, self._told(tell))
        for knob, value in turned:
            set_knob(self.incident.recording, knob, value).keep()
        self._kept = tuple(knob for knob, _ in turned)
        told = [knob.aftermath() if isinstance(knob, RoleSetting) else f"{knob.title} is built" for knob in self._kept]
        if not told:
            return "New sessions have it so already."
        return f"{'; '.join(told)}. It stays until it is undone here or by perfnb revert."

    def idle_sessions(self) -> int:
        """Return how many idle sessions have not heard of a setting that was kept."""
        return sum(knob.idle_sessions() for knob in self._kept[:1] if isinstance(knob, RoleSetting))

    def end_idle_sessions(self) -> str:
        """End idle sessions, so that the app's pool opens new ones with what was kept; says how many."""
        ended = sum(knob.end_idle_sessions() for knob in self._kept[:1] if isinstance(knob, RoleSetting))
        return f"{ended} idle sessions were ended; the app's pool opens new ones."

    @property
    def _dsn(self) -> str:
        return require_dsn(self.incident.target.dsn)

    def _told(self, tell: Any) -> Told:
        return Told(tell, self._stop, self.is_accepted, self._known_prediction())

    def undo(self) -> str:
        """Undo whatever was set and not undone, kept changes too; says what was done."""
        done = reverted(self.incident.recording, kept=True)
        return "; ".join(map(str, done)) or "Nothing is set that could be undone."

    def compared(self) -> Any:
        """Return how the requests of both arms are distributed."""
        if self.result is None:
            return Missing("After a trial, how long its requests took in each arm is drawn here.")
        if self.result.statement:
            return plans_of(self.result) or Missing("The trial has not the statement's plans in both arms.")
        frame = durations(self.incident.recording, self.result.trial)
        if frame.empty:
            return Missing("No request of the trial was answered.")
        return distribution(frame, f"How long requests took in the trial of {setting(self.result.value)}")

    def _value(self) -> Any:
        assert isinstance(self.live, Live)
        prediction = self._known_prediction()
        return self.chosen.value(prediction.setting if prediction else self.given, self.live.now(self.chosen.knob))

    def _primary(self) -> str:
        """Return the metric a trial is about: this panel's, or the one the change is estimated to move most."""
        prediction = self._known_prediction()
        moved = {
            each.metric: abs(1 - min(each.low, each.high) / each.before)
            for each in (prediction.effects if prediction else ())
            if each.metric in METRICS and each.before > 0
        }
        return self.primary if not moved or moved.get(self.primary) else max(moved, key=lambda metric: moved[metric])
