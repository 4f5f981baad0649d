"""The pool calculator: what is known of the demand for connections, with sliders for what is not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from perfnb.areas.database.pools import PoolAdvice, PoolDemand, guides, pool_advice
from perfnb.widgets import wording
from perfnb.widgets.html import Piece, live, render
from perfnb.widgets.keyboard import with_keys
from perfnb.widgets.table import Table

if TYPE_CHECKING:
    import ipywidgets


@dataclass(frozen=True)
class Slider:
    """One number that can be tried: its argument of :func:`pool_advice`, in words, and the range it can have."""

    name: str
    title: str
    least: float
    most: float
    step: float


SLIDERS = (
    Slider("arrival_per_s", "requests a second", 0.1, 500, 0.1),
    Slider("hold_ms", "ms a request keeps a connection", 0.1, 20_000, 0.1),
    Slider("outside_ms", "of them waiting for something else", 0, 20_000, 0.1),
    Slider("processes", "processes", 1, 64, 1),
    Slider("pool_size", "connections in each one's pool", 1, 200, 1),
    Slider("cores", "cores of the database server", 1, 128, 1),
)
WHOLE = ("processes", "pool_size", "cores")


class PoolCalculator:
    """How to size the pools, beginning with what ``demand`` measured; a page shows the answer for that alone."""

    def __init__(self, demand: PoolDemand) -> None:
        self.demand = demand
        self.given: dict[str, float] = {
            "arrival_per_s": demand.arrival_per_s, "hold_ms": demand.hold_ms, "outside_ms": demand.outside_ms,
            "processes": 1, "pool_size": max(1, demand.open_peak), "cores": 2,
        }  # fmt: skip

    @property
    def advice(self) -> PoolAdvice:
        """Return what follows from the numbers that are set."""
        given: dict[str, Any] = {
            name: int(value) if name in WHOLE else value for name, value in self.given.items() if name != "outside_ms"
        }
        return pool_advice(
            given.pop("arrival_per_s"),
            given.pop("hold_ms"),
            outside_ms=min(self.given["outside_ms"], self.given["hold_ms"]),
            max_connections=self.demand.max_connections or 100,
            reserved=self.demand.reserved,
            others=self.demand.others,
            **given,
        )

    @property
    def answer(self) -> Piece:
        """Return the advice in words, beside what the usual guides would set."""
        advice = self.advice
        said = f"{advice.verdict.capitalize()}: {'; '.join(advice.reasons)}."
        processes = int(self.given["processes"])
        beside = Table(guides(processes, advice.needed_released, advice.server_takes), "What the guides' pools come to")
        return Piece(Markup(render("said", said=said) + beside.html), f"{said}\n{beside.text}")

    def _ipython_display_(self) -> None:
        from IPython.display import display

        def again() -> None:
            answers.update(self.answer)

        display(self.bundle(with_keys(self._controls(again))), raw=True)
        answers: Any = display(self.answer, display_id=True)

    def bundle(self, controls: Any) -> dict[str, Any]:
        """Return the live ``controls`` and their static twin, as one output."""
        told = ", ".join(f"{each.title} {wording.number(self.given[each.name])}" for each in SLIDERS)
        twin = render("said", said=f"Reckoned for: {told}.")
        return {**controls._repr_mimebundle_(), "text/html": live(twin), "text/plain": f"Reckoned for: {told}."}

    def _controls(self, changed: Any) -> "ipywidgets.VBox":
        import ipywidgets

        made = []
        for each in SLIDERS:
            kind = ipywidgets.BoundedIntText if each.name in WHOLE else ipywidgets.BoundedFloatText
            value = min(max(self.given[each.name], each.least), each.most)
            number = int(value) if each.name in WHOLE else round(value, 2)
            control = kind(value=number, min=each.least, max=each.most, step=each.step, description=each.title)
            control.layout.width, control.style.description_width = "min(100%, 30rem)", "18rem"
            control.observe(self._setter(each.name, changed), names="value")
            made.append(control)
        return ipywidgets.VBox(made)

    def _setter(self, name: str, changed: Any) -> Any:
        def change(told: Mapping[str, Any]) -> None:
            self.given[name] = told["new"]
            changed()

        return change
