"""The panel's live controls: what is chosen, its values, and the buttons; work runs beside them, so that Stop is heard."""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from perfnb.errors import PerfnbError
from perfnb.estimates import Parameter
from perfnb.trials import TrialProgress
from perfnb.try_a_change.choices import Choice
from perfnb.try_a_change.shown import said_of
from perfnb.widgets import wording
from perfnb.widgets.html import status

if TYPE_CHECKING:
    from perfnb.try_a_change.panel import TryAChange

WIDTH = "min(100%, 44rem)"
PAIRS = {"6 pairs": 6, "10 pairs": 10, "16 pairs": 16, "24 pairs": 24, "40 pairs": 40}
LABEL = {"description_width": "14rem"}


class Controls:
    """Widgets for ``panel``; :meth:`show` is given the displays that hold estimate, result and chart."""

    def __init__(self, panel: "TryAChange") -> None:
        import ipywidgets as w

        self._panel = panel
        self._shown: tuple[Any, Any, Any] | None = None
        self._is_running = False
        self._asked_to_keep = False
        options = [(_listed(each), each.name) for each in panel.choices]
        layout = w.Layout(width=WIDTH)
        self.change = w.Dropdown(options=options, description="Change", layout=layout, style=LABEL)
        self.values = w.VBox()
        self.rate = w.BoundedFloatText(
            value=2, min=0.1, max=200, step=0.5, description="Requests a second", layout=layout, style=LABEL
        )
        self.pairs = w.Dropdown(options=PAIRS, value=10, description="At most", layout=layout, style=LABEL)
        self.try_it = w.Button(description="Try it", icon="play", button_style="primary")
        self.stop = w.Button(description="Stop", icon="stop", disabled=True)
        self.keep = w.Button(description="Keep", icon="check", disabled=True)
        self.undo = w.Button(description="Undo", icon="undo")
        self.accept = w.Checkbox(
            value=False, description="Yes, do it at this cost", indent=False, layout=w.Layout(display="none")
        )
        self.end_idle = w.Button(description="End idle sessions", icon="refresh", layout=w.Layout(display="none"))
        self.said = w.HTML()
        self.done = w.IntProgress(min=0, max=10, layout=w.Layout(width=WIDTH, visibility="hidden"))
        buttons = w.HBox([self.try_it, self.stop, self.keep, self.undo, self.end_idle])
        rows = [self.change, self.values, self.rate, self.pairs, self.accept, buttons, self.done, self.said]
        self.box = w.VBox(rows)
        self.change.observe(lambda told: self._choose(told["new"]), names="value")
        for told in (self.rate, self.pairs):
            told.observe(lambda _: self._ready(), names="value")
        self.accept.observe(lambda told: self._accepted(told["new"]), names="value")
        self.try_it.on_click(lambda _: self._start())
        self.stop.on_click(lambda _: self._end())
        self.keep.on_click(lambda _: self._start_keeping())
        self.end_idle.on_click(lambda _: self._do(self._panel.end_idle_sessions))
        self.undo.on_click(lambda _: self._do(self._panel.undo))
        self._choose(panel.choices[0].name)

    def show(self, estimate: Any, trial: Any, chart: Any) -> None:
        """Say where estimate, trial and chart are shown."""
        self._shown = (estimate, trial, chart)

    def _choose(self, name: str) -> None:
        self.values.children = tuple(self._value(each) for each in self._panel.choose(name))
        self.keep.disabled = True
        for each in (self.rate, self.pairs):
            each.layout.display = "none" if self._panel.chosen.way else ""
        self.end_idle.layout.display = "none"
        self._update()

    def _value(self, parameter: Parameter) -> Any:
        widget = value_widget(parameter)
        widget.observe(lambda told: self._set(parameter.name, told["new"]), names="value")
        return widget

    def _set(self, name: str, value: Any) -> None:
        self._panel.given[name] = value
        self._update()

    def _update(self) -> None:
        self.accept.value, self.accept.layout.display = False, "none"
        if self._shown:
            self._shown[0].update(self._panel.estimate())
        self._ready()

    def _ready(self) -> None:
        """Say what a trial would take, or why there can be none."""
        why_not = self._panel.why_not()
        self.try_it.disabled = bool(why_not) or self._is_running
        if why_not:
            self._say(why_not)
            return
        if self._panel.chosen.way:
            self._say("A trial runs the one statement some times, in transactions that are rolled back.")
            return
        plan = self._panel.plan(self.pairs.value)
        least, most = (wording.duration(1000 * plan.expected_s(pairs)) for pairs in (plan.looks[0], plan.most_pairs))
        requests = round(2 * self.rate.value * (plan.seconds + plan.warm_up_s))
        wanted = self._panel.pairs_wanted(plan)
        needs = f" About {wanted} pairs would find what is estimated." if wanted else ""
        self._say(
            f"A trial takes {least} to {most}, with {requests} requests to the app in each pair, and undoes the change.{needs}"
        )

    def _start(self) -> None:
        plan, rate = self._panel.plan(self.pairs.value), self.rate.value
        self._running(True)
        self.done.max, self.done.value = plan.most_pairs, 0
        self._say("The trial begins.")
        threading.Thread(target=self._run, args=(plan, rate), daemon=True).start()

    def _start_keeping(self) -> None:
        if not self._panel.chosen.way:
            self._do(self._panel.keep)
            return
        self._running(True)
        self.keep.disabled = True
        self._say("It is being set.")
        threading.Thread(target=self._keep_in_database, daemon=True).start()

    def _keep_in_database(self) -> None:
        """Keep it, once its cost was said yes to; then offer to end idle sessions that have not heard of it."""
        try:
            if not self._must_ask(to_keep=True):
                self._say(self._panel.keep(self._tell))
                self.end_idle.layout.display = "" if self._panel.idle_sessions() else "none"
        except PerfnbError as error:
            self._say(f"Not kept: {error}")
        finally:
            self._running(False)
            self.keep.disabled = False

    def _must_ask(self, *, to_keep: bool = False) -> bool:
        """Tell what it costs and return True where that was not said yes to yet."""
        if self._panel.is_accepted and self._asked_to_keep == to_keep:
            return False
        cost = self._panel.cost(to_keep=to_keep)
        if cost:
            self._asked_to_keep = to_keep
            self.accept.value, self.accept.layout.display = False, ""
            button = "Keep" if to_keep else "Try it"
            self._say(f"{cost} Nothing is done yet: tick “{self.accept.description}” and press {button} again.")
        return bool(cost)

    def _accepted(self, is_accepted: bool) -> None:
        self._panel.is_accepted = is_accepted

    def _run(self, plan: Any, rate: float) -> None:
        try:
            if self._must_ask():
                return
            result = self._panel.run(plan, rate, self._tell)
            self._say(result.headline)
            self.keep.disabled = False
        except PerfnbError as error:
            self._say(f"No trial: {error}")
        finally:
            self._running(False)
            if self._shown:
                self._shown[1].update(self._panel.trial())
                self._shown[2].update(self._panel.compared())

    def _tell(self, told: TrialProgress) -> None:
        self.done.max = max(1, told.of)
        self.done.value = min(told.pair, self.done.max)
        self._say(told.text if self._panel.chosen.way else said_of(told))

    def _end(self) -> None:
        self.stop.disabled = True
        self._say("Stopping; the change is being undone.")
        self._panel.stop()

    def _running(self, is_running: bool) -> None:
        self._is_running = is_running
        for each in (self.change, self.rate, self.pairs, self.accept, self.try_it, self.undo, *self.values.children):
            each.disabled = is_running
        self.stop.disabled = not is_running
        self.done.layout.visibility = "visible" if is_running else "hidden"

    def _do(self, work: Callable[[], str]) -> None:
        try:
            self._say(work())
        except PerfnbError as error:
            self._say(str(error))

    def _say(self, text: str) -> None:
        self.said.value = status(text)


def _listed(choice: Choice) -> str:
    return f"{choice.title} (for {', '.join(choice.causes)})" if choice.causes else choice.title


def value_widget(parameter: Parameter) -> Any:
    """Return the widget a parameter is set with: a slider, a choice or a line of text."""
    import ipywidgets as w

    title = f"{parameter.title} ({parameter.unit})" if parameter.unit else parameter.title
    common: Mapping[str, Any] = {"description": title.capitalize(), "layout": w.Layout(width=WIDTH), "style": LABEL}
    if parameter.choices:
        return w.Dropdown(options=parameter.choices, value=parameter.default, **common)
    if parameter.low is None:
        return w.Text(value=parameter.default or "", continuous_update=False, **common)
    whole = all(value is None or float(value).is_integer() for value in (parameter.low, parameter.high, parameter.step))
    kind = w.IntSlider if whole else w.FloatSlider
    cast = int if whole else float
    return kind(
        value=cast(parameter.low if parameter.default is None else parameter.default),
        min=cast(parameter.low), max=cast(parameter.high or parameter.low), step=cast(parameter.step or 1),
        continuous_update=False, **common,
    )  # fmt: skip
