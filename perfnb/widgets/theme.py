"""How charts look everywhere: colours that colour-blind readers tell apart, one slim template, no upload button."""

from typing import Any

PLOTLY_MIME = "application/vnd.plotly.v1+json"

# Okabe and Ito, https://jfly.uni-koeln.de/color/; yellow is left out, it vanishes on white
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
GREY = "#8A8A8A"
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE)

KINDS = {
    "model": BLUE,
    "embedding": SKY,
    "retrieval": GREEN,
    "database": PURPLE,
    "tool": ORANGE,
    "http": "#6B7A8F",
    "cache": "#7FC7AE",
    "agent": "#B79F00",
    "backoff": VERMILION,
    "app": "#B0B0B0",
}

# the darker colours, lighter on a dark page
ON_DARK = {BLUE: "#4AA3DF", SKY: "#A8DCF7", VERMILION: "#F5883E", PURPLE: "#DD9CBF", GREEN: "#2FBF95"}

CONFIG: dict[str, Any] = {
    "responsive": True,
    "displaylogo": False,
    # plotly.js 4 uploads the chart's data when its "Share chart" button is pressed
    "showSendToCloud": False,
    "plotlyServerURL": "",
}

# One grey that can be read on white and on JupyterLab's dark background; an export sets its own.
_INK, _GRID = "#7A7A7A", "rgba(128,128,128,0.25)"
_AXIS = {
    "gridcolor": _GRID,
    "zerolinecolor": _GRID,
    "linecolor": _GRID,
    "automargin": True,
    "title": {"standoff": 12, "font": {"size": 13}},
    "ticks": "outside",
    "ticklen": 6,
    "tickcolor": "rgba(0,0,0,0)",
}


def template(ink: str = _INK, grid: str = _GRID, surface: str = "rgba(0,0,0,0)", top: int = 72) -> dict[str, Any]:
    """Return the slim template charts share, as plain JSON, for text in ``ink`` on ``surface``."""
    axis = {**_AXIS, "gridcolor": grid, "zerolinecolor": grid, "linecolor": grid}
    return {
        "layout": {
            "colorway": list(COLOURS),
            "font": {"color": ink, "family": "system-ui, sans-serif", "size": 13},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "title": {"x": 0, "xref": "container", "xanchor": "left", "font": {"size": 15}, "pad": {"l": 4}},
            "margin": {"l": 60, "r": 24, "t": top, "b": 48},
            "xaxis": axis,
            "yaxis": axis,
            "legend": {"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0, "xanchor": "left"},
            "hoverlabel": {"align": "left"},
            "hovermode": "closest",
            "height": 380,
            "modebar": {"bgcolor": surface, "color": ink, "activecolor": BLUE},
        }
    }


def apply() -> None:
    """Set template and configuration for every plotly figure of this process, ours or not."""
    import plotly.graph_objects as go
    import plotly.io as pio

    pio.templates["perfnb"] = go.layout.Template(template())
    pio.templates.default = "perfnb"
    pio.renderers.default = "plotly_mimetype"
    for name in pio.renderers:
        renderer = pio.renderers[name]
        if hasattr(renderer, "config"):
            renderer.config = {**(renderer.config or {}), **CONFIG}
