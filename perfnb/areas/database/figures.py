"""The figures of the area database: each draws the frame of one measure."""

from textwrap import wrap
from typing import Any

import pandas as pd

from perfnb.areas.database import locks, maintenance
from perfnb.areas.database.buffers import cache_over_time as cache_readings
from perfnb.areas.database.names import headlines, plain
from perfnb.areas.database.workload import brief
from perfnb.areas.database.workload import top_statements as leading
from perfnb.attribution import sessions
from perfnb.tuner.figures import recall_curve
from perfnb.widgets import theme, wording
from perfnb.widgets.chart import Chart, drawn_from
from perfnb.widgets.draw import canvas, label, labels, limit_line, rows_height

__all__ = [
    "cache_over_time", "connections_over_time", "recall_curve", "statements_by", "statements_per_request", "table_sizes",
    "top_statements", "waits_by_event",
]  # fmt: skip

MOST_ROWS = 12
GOOD_RATIO = 0.9

# Sessions by what they do; the same colour for the same state in every figure
STATES = (
    ("active", "running a statement", theme.BLUE),
    ("in_open_transaction", "idle in a transaction", theme.VERMILION),
    ("idle", "idle", theme.GREY),
)

COLUMNS = ("calls", "total_exec_time_ms", "mean_exec_time_ms", "share", "rows_per_call", "calls_per_request")

# What a ranking of statements is by: the column drawn, its axis, and the words of the title
RANKINGS = {
    "total": ("total_exec_time_ms", "time in all (ms)", "Statements by time in all"),
    "mean": ("mean_exec_time_ms", "mean time (ms)", "Statements by mean time"),
    "requests": ("calls_per_request", "calls per request", "Statements by calls per request"),
    "rows": ("rows_per_call", "rows per call", "Statements by rows per call"),
    "spill": (
        "temp_bytes_per_call",
        "written to temporary files per call (bytes)",
        "Statements by what they spill to disk",
    ),
    "io": ("blocks_read", "blocks read from outside shared buffers", "Statements by reads"),
}


def statements_by(frame: pd.DataFrame, by: str = "total") -> Chart:
    """Draw the statements that lead a ranking, most first."""
    column, axis, title = RANKINGS[by]
    shown = frame.head(MOST_ROWS).iloc[::-1]
    names = headlines(list(frame["statement"].head(MOST_ROWS)))[::-1]
    title = f"{title}: {label(names[-1])} leads"
    figure = canvas(title, axis, "", height=rows_height(len(shown)), from_zero=True)
    figure.add_bar(
        y=[label(name) for name in names], x=shown[column].astype(float), orientation="h", marker_color=theme.BLUE, showlegend=False,
        customdata=shown[["calls", "mean_exec_time_ms", "share"]].astype(float), hovertext=_wrapped(shown["statement"]),
        hovertemplate="%{hovertext}<br>%{customdata[0]:,.0f} calls, %{customdata[1]:.3g} ms each, %{customdata[2]:.0%} of"
        " the database's time<extra></extra>",
    )  # fmt: skip
    first = frame.iloc[0]
    alt = (
        f"{brief(first['statement'])} leads: {wording.counted(int(first['calls']), 'call')},"
        f" {wording.duration(first['mean_exec_time_ms'])} each, {wording.percent(first['share'])} of the database's time."
    )
    return Chart(figure, alt, frame[["statement", column, *(each for each in COLUMNS if each != column)]])


def _wrapped(texts: "pd.Series[Any]") -> list[str]:
    """Return statements in lines for a hover; plotly reads tags, so there are none but ours."""
    return ["<br>".join(wrap(label(brief(text, 500), 500), 90)) for text in texts]


@drawn_from(leading, empty="No statement ran while this was recorded.")
def top_statements(frame: pd.DataFrame) -> Chart:
    """Draw the statements with most time in all."""
    return statements_by(frame)


@drawn_from(lambda recording: leading(recording, "requests"), empty="No request ran a statement.")
def statements_per_request(frame: pd.DataFrame) -> Chart:
    """Draw the statements that a request runs most often."""
    return statements_by(frame, "requests")


@drawn_from(sessions.connections_over_time, empty="No session of the app was seen.")
def connections_over_time(frame: pd.DataFrame) -> Chart:
    """Draw the app's connections by what they do, beside requests and model calls under way."""
    held, most = frame["in_open_transaction"], int(frame["sessions"].max())
    title = f"Connections over time: at most {most}, {held.mean():.1f} of them idle in a transaction on average"
    figure = canvas(title, "time (UTC)", "connections", from_zero=True)
    for column, name, colour in STATES:
        figure.add_scatter(
            x=frame["time"], y=frame[column], name=name, stackgroup="sessions", mode="lines",
            line={"color": colour, "width": 0.5}, fillcolor=None if column == "idle" else colour,
            hovertemplate="%{y} " + name + "<extra></extra>",
        )  # fmt: skip
    for column, name, dash, colour in (
        ("calls_in_flight", "model calls under way", "dot", theme.PURPLE),
        ("requests_in_flight", "requests under way", "dash", theme.GREEN),
    ):
        figure.add_scatter(
            x=frame["time"], y=frame[column], name=name, mode="lines",
            line={"color": colour, "width": 2, "dash": dash}, hovertemplate="%{y} " + name + "<extra></extra>",
        )  # fmt: skip
    figure.update_layout(showlegend=True)
    alt = (
        f"Of {wording.counted(most, 'connection')} at most, {frame['active'].mean():.1f} ran a statement on average and {held.mean():.1f} sat"
        f" in an open transaction, while {frame['calls_in_flight'].mean():.1f} model calls were under way."
    )
    return Chart(figure, alt, frame)


@drawn_from(locks.waits_by_event, empty="No session was seen running a statement.")
def waits_by_event(frame: pd.DataFrame) -> Chart:
    """Draw what sessions that ran a statement were waiting for."""
    shown = frame.head(MOST_ROWS).iloc[::-1]
    kinds = shown["wait_event_type"].fillna("") + ": " + shown["wait_event"].fillna("")
    names = labels(kinds.where(shown["wait_event"].notna(), "nothing: on the processor"))
    first = frame.iloc[0]
    leads = (
        f"{first['wait_event_type']}: {first['wait_event']}"
        if pd.notna(first["wait_event"])
        else "nothing but the processor"
    )
    title = f"What active sessions wait for: {label(leads)}, {wording.percent(first['share'])} of the times"
    figure = canvas(title, "sessions at a moment, mean", "", height=rows_height(len(shown)), from_zero=True)
    figure.add_bar(y=names, x=shown["sessions"], orientation="h", marker_color=theme.ORANGE, showlegend=False)
    busy = f"{float(frame['sessions'].sum()):.2f}"
    said = "they were on the processor" if pd.isna(first["wait_event"]) else f"most waited for {leads}"
    return Chart(figure, f"{busy} sessions ran a statement at a moment, on average; {said}.", frame)


@drawn_from(cache_readings, empty="The server's counters were not read twice.")
def cache_over_time(frame: pd.DataFrame) -> Chart:
    """Draw which part of the blocks was found in shared buffers."""
    hit, read = float(frame["blocks_hit"].sum()), float(frame["blocks_read"].sum())
    ratio = hit / (hit + read) if hit + read else 1.0
    title = f"Shared buffers: {wording.percent(ratio)} of {wording.number(round(hit + read))} blocks were there"
    figure = canvas(title, "time (UTC)", "found in shared buffers (part)")
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    for name, rows in frame.groupby("database"):
        figure.add_scatter(
            x=rows["time"], y=rows["hit_ratio"].astype(float), mode="lines+markers", name=label(name),
            line={"color": theme.BLUE}, showlegend=False, hovertemplate="%{y:.1%}<extra></extra>",
        )  # fmt: skip
    limit_line(figure, GOOD_RATIO, "usual limit")
    return Chart(figure, f"{title}; what was not there came from the system's cache or the disk.", frame)


@drawn_from(maintenance.tables, empty="No table was seen.")
def table_sizes(frame: pd.DataFrame) -> Chart:
    """Draw the largest tables: rows, dead rows, indexes."""
    parts = pd.DataFrame(
        {
            "name": frame["name"].map(plain),
            "live": frame["heap_bytes"].fillna(0).astype(float) - frame["dead_bytes"],
            "dead": frame["dead_bytes"],
            "indexes": frame["index_bytes"].fillna(0).astype(float),
            "other": frame["toast_bytes"].fillna(0).astype(float),
        }
    )
    shown = parts.head(MOST_ROWS).iloc[::-1]
    first = frame.iloc[0]
    title = f"Largest tables: {label(plain(first['name']))} holds {wording.size(0 if pd.isna(first['bytes']) else int(first['bytes']))}"
    figure = canvas(title, "size (MiB)", "", height=rows_height(len(shown)), from_zero=True, barmode="stack")
    for column, name, colour in (
        ("live", "rows", theme.BLUE), ("dead", "dead rows", theme.VERMILION), ("indexes", "indexes", theme.ORANGE),
        ("other", "long values", theme.GREY),
    ):  # fmt: skip
        figure.add_bar(
            y=labels(shown["name"]), x=shown[column] / 2**20, name=name, orientation="h", marker_color=colour,
            hovertemplate="%{y}: %{x:.1f} MiB of " + name + "<extra></extra>",
        )  # fmt: skip
    figure.update_layout(showlegend=True)
    dead = float(parts["dead"].sum() / max(1.0, parts[["live", "dead"]].to_numpy().sum()))
    return Chart(figure, f"{title}; {wording.percent(dead)} of all tables' bytes are dead rows.", parts)
