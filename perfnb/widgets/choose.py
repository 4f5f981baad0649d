"""Choose one of several and see it drawn: a live drop-down, and in an export the names and the first one."""

from collections.abc import Callable, Mapping
from typing import Any

from perfnb.widgets.chart import Chart
from perfnb.widgets.html import Piece, live, render
from perfnb.widgets.keyboard import with_keys

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


class Chooser:
    """``options`` (name to key) under ``title``; ``draw(key)`` makes what is shown of the one chosen."""

    def __init__(self, title: str, options: Mapping[str, str], draw: Callable[[str], Chart | Piece]) -> None:
        self.title = title
        self.options = dict(options)
        self.draw = draw
        self.key = next(iter(self.options.values()))

    @property
    def chart(self) -> Chart | Piece:
        """Return what is shown of the option that is chosen."""
        return self.draw(self.key)

    def _ipython_display_(self) -> None:
        import ipywidgets
        from IPython.display import display

        control = ipywidgets.Dropdown(options=list(self.options.items()), value=self.key, description=self.title)
        control.layout.width = "min(100%, 40rem)"
        control.style.description_width = "initial"
        display(self.bundle(with_keys(control)), raw=True)
        shown = display(self.chart, display_id=True)

        def choose(change: Mapping[str, Any]) -> None:
            self.key = change["new"]
            shown.update(self.chart)

        control.observe(choose, names="value")

    def bundle(self, control: Any) -> dict[str, Any]:
        """Return the live ``control`` and its static twin, as one output."""
        names = list(self.options)
        twin = render("chooser", title=self.title, names=names, chosen=self._name)
        text = f"{self.title}: {self._name} (of {len(names)})"
        return {**control._repr_mimebundle_(), "text/html": live(twin), "text/plain": text}

    @property
    def _name(self) -> str:
        return next(name for name, key in self.options.items() if key == self.key)
