"""The recall-latency curve of a tuning."""

import pandas as pd

from perfnb.tuner.recorded import points_of, tuned_points
from perfnb.tuner.tuning import Tuning
from perfnb.widgets import theme
from perfnb.widgets.chart import Chart, drawn_from
from perfnb.widgets.draw import canvas, colour_of, label, limit_line

NOW_AND_THEN = ("circle", "diamond", "square", "triangle-up", "cross", "x")


@drawn_from(tuned_points)
def recall_curve(frame: pd.DataFrame) -> Chart:
    """Draw recall against latency for all rows, each point one setting; where latency is unknown, against the setting."""
    return _drawn(frame, "all rows")


def curve(tuning: Tuning, filter: str = "all rows") -> Chart:
    """Return recall against latency under one filter: a line for each way to search, the pick marked."""
    return _drawn(points_of(tuning), filter)


def _drawn(frame: pd.DataFrame, filter_: str) -> Chart:
    rows = _combined(frame[frame["filter"] == filter_])
    has_latency = bool(rows["p50_ms"].notna().any())
    x, axis = (
        ("p50_ms", "median latency (ms, equal distances are equal factors)") if has_latency else ("value", "setting")
    )
    k, target, name = int(frame["k"].iloc[0]), float(frame["target"].iloc[0]), frame["name"].iloc[0]
    figure = canvas(f"{label(name)}, {label(filter_)}: {_said(rows)}", axis, f"recall@{k}, mean over queries")
    figure.update_xaxes(type="log", dtick="D2")
    for place, (way, points) in enumerate(rows.groupby("way", sort=False)):
        points = points.sort_values(x)
        figure.add_scatter(
            x=points[x], y=points["recall"], mode="lines+markers", name=label(way), text=points["setting"].map(label),
            line={"color": colour_of(place), "width": 1.5}, marker={"symbol": NOW_AND_THEN[place % len(NOW_AND_THEN)], "size": 8},
            error_y={"type": "data", "symmetric": False, "array": points["recall_high"] - points["recall"],
                     "arrayminus": points["recall"] - points["recall_low"], "thickness": 1},
            hovertemplate="%{text}<br>recall %{y:.3f}, %{x:.3g}<extra></extra>",
        )  # fmt: skip
    picked = rows[rows["is_pick"]]
    if len(picked):
        marker = {"symbol": "star", "size": 16, "color": theme.VERMILION}
        figure.add_scatter(
            x=picked[x], y=picked["recall"], mode="markers", name="pick", marker=marker, hoverinfo="skip"
        )
    limit_line(figure, target, f"target {target:g}")
    figure.update_layout(showlegend=True)
    return Chart(figure, _alt(rows, target), rows)


def _combined(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting: the held-back queries' where there are any."""
    ordered = frame.assign(held=frame["part"].eq("held back")).sort_values("held", ascending=False, kind="stable")
    kept = ordered.drop_duplicates(["candidate", "setting"]).drop(columns="held").sort_index()
    ways = kept["candidate"].where(kept["candidate"].eq(""), kept["candidate"] + ": ") + kept["family"]
    return kept.assign(way=ways).reset_index(drop=True)


def _said(rows: pd.DataFrame) -> str:
    picked = rows[rows["is_pick"] & rows["candidate"].eq("")]
    if picked.empty:
        return "no setting is enough"
    first = picked.iloc[0]
    return f"{label(first['setting'])} is enough, recall {first['recall']:.3f}"


def _alt(rows: pd.DataFrame, target: float) -> str:
    enough = int((rows["recall"] >= target).sum())
    return (
        f"{len(rows)} settings were measured, {enough} of them reach a recall of {target:g};"
        f" mean recall goes from {rows['recall'].min():.3f} to {rows['recall'].max():.3f}. Bars are 95 % intervals."
    )
