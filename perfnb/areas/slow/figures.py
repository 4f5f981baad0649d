"""The figures of the area slow: each draws the frame of one measure."""

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from perfnb.areas.slow import caching, concurrency, context, exemplars, models, provider, stages, streaming
from perfnb.attribution import calls, requests
from perfnb.objectives import Objectives
from perfnb.profiles import stacks
from perfnb.profiles.flame import flame as flame_graph
from perfnb.widgets import theme, wording
from perfnb.widgets.chart import Chart, Drawing, drawn_from
from perfnb.widgets.draw import (
    Unit,
    canvas,
    colour_of,
    drawn_of,
    label,
    labels,
    limit_line,
    moments,
    rows_height,
    thinned,
    time_unit,
)

MOST_ROWS = 12


@drawn_from(stages.where_time_goes)
def where_time_goes(frame: pd.DataFrame) -> Chart:
    """Draw what the time on the critical path was spent on, largest first."""
    shown = _largest(frame).iloc[::-1]
    first = frame.iloc[0]
    title = f"Where the users’ wait goes: {label(first['name'])} takes {wording.percent(first['share'])}"
    figure = canvas(title, "part of all waiting (%)", "", height=rows_height(len(shown)), showlegend=True)
    names = dict(zip(shown.index, labels(shown["name"]), strict=True))
    for kind, rows in shown.groupby("kind", sort=False):
        figure.add_bar(
            y=[names[index] for index in rows.index], x=rows["share"] * 100, name=str(kind), orientation="h",
            marker_color=theme.KINDS.get(str(kind), theme.GREY), text=[wording.percent(share) for share in rows["share"]],
            textposition="outside", cliponaxis=False, hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(categoryorder="array", categoryarray=list(names.values()))
    figure.update_layout(legend_traceorder="reversed")
    top = [
        f"{name} {wording.percent(share)}" for name, share in zip(frame["name"][:3], frame["share"][:3], strict=True)
    ]
    return Chart(figure, f"Time on the critical path, each moment counted once: {wording.listed(top)}.", frame)


def _largest(frame: pd.DataFrame, least: float = 0.005) -> pd.DataFrame:
    """Return the parts worth a bar, and one for all that are too small."""
    kept = frame[frame["share"] >= least].head(MOST_ROWS)
    rest = frame.drop(kept.index)
    if rest.empty:
        return kept
    small = {"kind": "app", "name": wording.counted(len(rest), "smaller part"), "share": rest["share"].sum()}
    return pd.concat([kept, pd.DataFrame([small])], ignore_index=True)


@drawn_from(stages.percentiles)
def percentiles(frame: pd.DataFrame) -> Chart:
    """Draw median, 95th and 99th percentile of each stage as dots on a line."""
    shown = frame.head(MOST_ROWS).iloc[::-1]
    names = labels(shown["stage"])
    slowest = frame.loc[frame["p95_ms"].idxmax()]
    title = f"How long each stage takes: {label(slowest['stage'])} has the highest p95, {wording.duration(slowest['p95_ms'])}"
    figure = canvas(title, "duration (ms, each line is ten times the one before)", "", height=rows_height(len(shown)))
    figure.update_xaxes(type="log", dtick=1)
    for low, high, name in zip(shown["p50_ms"], shown["p99_ms"], names, strict=True):
        figure.add_scatter(x=[low, high], y=[name, name], mode="lines", line={"color": theme.GREY, "width": 2},
                           showlegend=False, hoverinfo="skip")  # fmt: skip
    for column, colour, symbol in (
        ("p50_ms", theme.BLUE, "circle"),
        ("p95_ms", theme.ORANGE, "diamond"),
        ("p99_ms", theme.VERMILION, "square"),
    ):
        figure.add_scatter(
            x=shown[column], y=names, mode="markers", name=column.removesuffix("_ms"),
            marker={"color": colour, "symbol": symbol, "size": 10}, hovertemplate="%{y}: %{x:.0f} ms<extra>" + column[:3] + "</extra>",
        )  # fmt: skip
    return Chart(figure, "Median, 95th and 99th percentile of every stage; nested stages overlap.", frame)


@drawn_from(streaming.first_token_and_total)
def first_token_and_total(frame: pd.DataFrame, *, objectives: Objectives | None = None) -> Chart:
    """Draw when each answer's first token came against when it ended."""
    streamed = frame["time_to_first_token_ms"].notna()
    frame = frame.assign(seen_ms=frame["time_to_first_token_ms"].fillna(frame["duration_ms"]))
    shown, unit = thinned(frame), time_unit(frame["duration_ms"])
    title = f"First words and last: {int((~streamed).sum())} of {len(frame)} answers come in one piece"
    figure = canvas(
        title, f"time until the first words ({unit.name})", f"time until the last ({unit.name})", from_zero=True
    )
    kinds = (("streamed", shown["time_to_first_token_ms"].notna(), theme.BLUE, "circle"),
             ("in one piece", shown["time_to_first_token_ms"].isna(), theme.ORANGE, "diamond"))  # fmt: skip
    for name, chosen, colour, symbol in kinds:
        rows = shown[chosen]
        if len(rows):
            figure.add_scatter(
                x=unit.of(rows["seen_ms"]), y=unit.of(rows["duration_ms"]), mode="markers", name=name, text=[label(m) for m in rows["model"]],
                marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75}, hovertemplate="%{text}<br>first %{x:.2f}, last %{y:.2f}<extra></extra>",
            )  # fmt: skip
    if objectives:
        limit = objectives.value("time_to_first_token_ms")
        limit_line(figure, limit / unit.factor, f"objective {wording.duration(limit)}", across=False)
    alt = (
        f"Half of the answers show their first words within {wording.duration(frame['seen_ms'].median())} "
        f"and end within {wording.duration(frame['duration_ms'].median())}."
    )
    return Chart(figure, alt + drawn_of(shown, frame, "answers"), frame.drop(columns="seen_ms"))


@drawn_from(context.latency_by_tokens)
def latency_by_tokens(frame: pd.DataFrame) -> Chart:
    """Draw each answer's latency against its input tokens, by model."""
    frame = frame.assign(latency_ms=frame["time_to_first_token_ms"].fillna(frame["duration_ms"]))
    shown, unit = thinned(frame), time_unit(frame["latency_ms"])
    related = frame["input_tokens"].corr(frame["latency_ms"]) if len(frame) > 2 else float("nan")
    median = f"half of the prompts are over {frame['input_tokens'].median():,.0f} tokens"
    figure = canvas(
        f"Latency against prompt size: {median}",
        "input tokens",
        f"first token, else whole answer ({unit.name})",
        from_zero=True,
    )
    for position, (model, rows) in enumerate(shown.groupby("model", sort=False, dropna=False)):
        figure.add_scatter(
            x=rows["input_tokens"], y=unit.of(rows["latency_ms"]), mode="markers", name=label(model),
            marker={"color": colour_of(position), "symbol": position % 8, "size": 7, "opacity": 0.75},
            hovertemplate="%{x:,.0f} tokens, %{y:.2f} " + unit.name + "<extra>" + label(model) + "</extra>",
        )  # fmt: skip
    figure.update_layout(showlegend=True)
    told = f" Correlation of size and latency: {related:.2f}." if related == related else ""
    return Chart(
        figure,
        f"{len(frame):,} answers; {median}.{told}" + drawn_of(shown, frame, "answers"),
        frame.drop(columns="latency_ms"),
    )


@drawn_from(concurrency.over_time)
def in_flight(frame: pd.DataFrame) -> Chart:
    """Draw how many requests and model calls were under way at each moment."""
    most = int(frame["requests_in_flight"].max())
    most_calls = int(frame["calls_in_flight"].max())
    title = (
        f"Under way at once: up to {wording.counted(most, 'request')} and {wording.counted(most_calls, 'model call')}"
    )
    figure = canvas(title, "time (UTC)", "under way (count)", height=320)
    for column, name, colour, dash in (
        ("requests_in_flight", "requests", theme.BLUE, "solid"),
        ("calls_in_flight", "model calls", theme.ORANGE, "dot"),
    ):
        figure.add_scatter(
            x=frame["time"],
            y=frame[column],
            mode="lines",
            name=name,
            line={"color": colour, "dash": dash, "shape": "hv"},
        )
    busy = frame["requests_in_flight"].mean()
    return Chart(
        figure,
        f"On average {busy:.1f} requests and {frame['calls_in_flight'].mean():.1f} model calls were under way.",
        frame,
    )


@drawn_from(concurrency.sequences, empty="No request makes three or more independent model calls one after another.")
def sequences(frame: pd.DataFrame) -> Chart:
    """Draw runs of independent calls: how long they took in a row, and how long the longest alone took."""
    shown = frame.nlargest(MOST_ROWS, "saving_ms").iloc[::-1]
    unit = time_unit(frame["sum_ms"])
    names = labels(shown["request_id"].str.slice(0, 12) + ": " + shown["calls"].astype(str) + " calls")
    saving = frame["saving_ms"].median()
    title = f"Independent calls in a row: together they would save {wording.duration(saving)} (median)"
    figure = canvas(
        title, f"time ({unit.name})", "", height=rows_height(len(shown), each=40), barmode="group", bargap=0.35
    )
    figure.add_bar(
        y=names, x=unit.of(shown["longest_ms"]), name="the longest alone", orientation="h", marker_color=theme.BLUE
    )
    figure.add_bar(
        y=names, x=unit.of(shown["sum_ms"]), name="one after another", orientation="h", marker_color=theme.ORANGE
    )
    alt = f"{len(frame)} runs in {frame['request_id'].nunique()} requests, {frame['calls'].median():.0f} calls each (median)."
    return Chart(figure, alt, frame)


@drawn_from(models.speed_by_model)
def speed_by_model(frame: pd.DataFrame, *, objectives: Objectives | None = None) -> Chart:
    """Draw how fast each model writes."""
    shown = frame.nlargest(MOST_ROWS, "calls").sort_values("output_tokens_per_s")
    slowest = shown.iloc[0]
    title = f"How fast each model writes: {label(slowest['model'])} is the slowest, {slowest['output_tokens_per_s']:.0f} tokens/s"
    figure = canvas(title, "output tokens per second (median)", "", height=rows_height(len(shown), around=140))
    figure.add_bar(y=labels(shown["model"]), x=shown["output_tokens_per_s"], orientation="h", marker_color=theme.BLUE, width=0.5,
                   text=[f"{count:,.0f} calls" for count in shown["calls"]], hovertemplate="%{y}: %{x:.0f} tokens/s<extra></extra>")  # fmt: skip
    if objectives:
        limit = objectives.value("output_tokens_per_s")
        limit_line(figure, limit, f"objective {limit:.0f}", across=False)
    return Chart(figure, f"Speed of {wording.counted(len(frame), 'model')}; median of the calls of each.", frame)


@drawn_from(provider.slowness)
def slowness_over_time(frame: pd.DataFrame) -> Chart:
    """Draw how much slower than the quick ones of its kind each call was, over time."""
    shown = thinned(frame)
    slow = int((frame["ratio"] >= 2).sum())
    title = f"How slow the provider was: {slow} of {len(frame)} calls took twice as long as quick ones of their kind, or more"
    figure = canvas(title, "time (UTC)", "times slower than quick calls", from_zero=True)
    figure.add_scatter(x=moments(shown["start_time"]), y=shown["ratio"], mode="markers", marker={"color": theme.BLUE, "size": 7, "opacity": 0.75},
                       hovertemplate="%{x|%H:%M:%S}: %{y:.1f} times<extra></extra>", showlegend=False)  # fmt: skip
    figure.add_hline(y=1, line={"color": theme.GREY, "width": 1})
    return Chart(
        figure,
        f"Half of the calls are within {frame['ratio'].median():.1f} times the quick ones."
        + drawn_of(shown, frame, "calls"),
        frame,
    )


@drawn_from(calls)
def attempts_over_time(frame: pd.DataFrame) -> Chart:
    """Draw every attempt at a model call with its outcome."""
    frame = frame.assign(outcome=frame["error_type"].fillna("succeeded"))
    shown, unit = thinned(frame), time_unit(frame["duration_ms"])
    failed = int((frame["outcome"] != "succeeded").sum())
    figure = canvas(
        f"Attempts at model calls: {failed} of {len(frame)} failed",
        "time (UTC)",
        f"duration ({unit.name})",
        from_zero=True,
    )
    for position, (outcome, rows) in enumerate(
        sorted(shown.groupby("outcome"), key=lambda group: group[0] != "succeeded")
    ):
        colour = theme.BLUE if outcome == "succeeded" else (theme.VERMILION, theme.ORANGE, theme.PURPLE)[position % 3]
        figure.add_scatter(
            x=moments(rows["start_time"]), y=unit.of(rows["duration_ms"]), mode="markers", name=label(outcome).replace("_", " "),
            marker={"color": colour, "symbol": "circle" if outcome == "succeeded" else "x", "size": 8, "opacity": 0.8},
        )  # fmt: skip
    counts = frame["outcome"].str.replace("_", " ").value_counts()
    alt = f"Outcomes: {wording.listed([f'{outcome} {count:,}' for outcome, count in counts.items()])}."
    table = frame[["start_time", "request_id", "request_model", "attempt", "duration_ms", "status_code", "outcome"]]
    return Chart(figure, alt + drawn_of(shown, frame, "attempts"), table)


@drawn_from(requests)
def requests_over_time(frame: pd.DataFrame, *, objectives: Objectives | None = None) -> Chart:
    """Draw how long each request took, over time, failed ones apart."""
    failed = (
        (frame["status_code"] >= 400)
        | frame["error_type"].notna()
        | frame["error_in_body"].fillna(value=False).astype(bool)
    )
    frame = frame.assign(failed=failed)
    shown, unit = thinned(frame), time_unit(frame["duration_ms"])
    p95 = frame["duration_ms"].quantile(0.95)
    figure = canvas(
        f"How long requests took: 19 of 20 within {wording.duration(p95)}",
        "time (UTC)",
        f"duration ({unit.name})",
        from_zero=True,
    )
    for name, chosen, colour, symbol in (
        ("answered", ~shown["failed"], theme.BLUE, "circle"),
        ("failed", shown["failed"], theme.VERMILION, "x"),
    ):
        rows = shown[chosen]
        if len(rows):
            figure.add_scatter(
                x=moments(rows["start_time"]), y=unit.of(rows["duration_ms"]), mode="markers", name=name, text=[label(route) for route in rows["route"]],
                marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75}, hovertemplate="%{text}: %{y:.2f} " + unit.name + "<extra></extra>",
            )  # fmt: skip
    if objectives:
        limit = objectives.value("request_p95_ms")
        limit_line(figure, limit / unit.factor, f"objective for p95, {wording.duration(limit)}")
    table = frame[["start_time", "request_id", "route", "duration_ms", "status_code", "failed"]]
    alt = f"{len(frame):,} requests, {int(failed.sum())} failed; median {wording.duration(frame['duration_ms'].median())}, p95 {wording.duration(p95)}."
    return Chart(figure, alt + drawn_of(shown, frame, "requests"), table)


@drawn_from(caching.repeats, empty="No prompt came again after it had been answered.")
def repeats(frame: pd.DataFrame) -> Chart:
    """Draw the prompts that came again most often and the wait their repeats cost."""
    by_prompt = frame.groupby("prompt_digest").agg(repeats=("call_id", "count"), wait_ms=("on_path_ms", "sum"))
    shown = by_prompt.nlargest(MOST_ROWS, "wait_ms").iloc[::-1]
    unit = time_unit(by_prompt["wait_ms"])
    title = f"Prompts answered before: {len(frame)} repeats of {len(by_prompt)} prompts"
    figure = canvas(title, f"wait for the repeats ({unit.name})", "", height=rows_height(len(shown)))
    figure.add_bar(y=[f"prompt {digest[:8]}" for digest in shown.index], x=unit.of(shown["wait_ms"]), orientation="h", marker_color=theme.BLUE,
                   text=[wording.counted(count, "repeat") for count in shown["repeats"]])  # fmt: skip
    alt = f"Together the repeats kept users waiting {wording.duration(by_prompt['wait_ms'].sum())}."
    return Chart(figure, alt, by_prompt.sort_values("wait_ms", ascending=False).reset_index())


def waterfall(frame: pd.DataFrame, *, about: str) -> Chart:
    """Draw one request's spans and calls; the fuller the colour, the more of a step was waited for itself."""
    shown, unit = _longest_waits(frame), time_unit(frame["duration_ms"])
    rows = shown.assign(
        row=labels(shown["depth"].map(lambda depth: "›" * min(depth, 8)) + " " + shown["name"], most=60)
    )
    longest = frame.loc[frame["on_critical_path_ms"].idxmax()]
    waited = f"waits longest for {label(longest['name'])}, {wording.duration(longest['on_critical_path_ms'])}"
    height = rows_height(len(rows), each=24)
    axis = f"time since the request came in ({unit.name})"
    figure = canvas(f"{label(about)}: {waited}", axis, "", height=height, barmode="overlay", showlegend=True)
    for kind, group in rows.groupby("kind", sort=False):
        part = (group["on_critical_path_ms"] / group["duration_ms"].clip(lower=0.001)).clip(0, 1)
        figure.add_bar(
            y=group["row"], x=unit.of(group["duration_ms"]), base=unit.of(group["start_ms"]), orientation="h", name=str(kind),
            marker={"color": theme.KINDS.get(str(kind), theme.GREY), "opacity": list((0.3 + 0.7 * part).round(2))},
            customdata=unit.of(group["on_critical_path_ms"]),
            hovertemplate="%{y}<br>takes %{x:.2f} " + unit.name + ", waited for %{customdata:.2f}<extra></extra>",
        )  # fmt: skip
    _mark_first_tokens(figure, rows.dropna(subset=["first_token_ms"]), unit)
    figure.update_yaxes(categoryorder="array", categoryarray=list(rows["row"])[::-1])
    took = f"{len(frame)} steps in {wording.duration(frame['duration_ms'].max())}"
    return Chart(figure, f"{about}: {took}; it {waited}.{drawn_of(shown, frame, 'steps')}", frame.drop(columns="id"))


def _longest_waits(frame: pd.DataFrame, most: int = 60) -> pd.DataFrame:
    """Return ``frame`` or, of a long one, the root and the steps waited for longest, in drawing order."""
    if len(frame) <= most:
        return frame
    kept = frame.iloc[1:].nlargest(most - 1, ["on_critical_path_ms", "duration_ms"])
    return pd.concat([frame.iloc[:1], kept]).sort_index()


def _mark_first_tokens(figure: go.Figure, rows: pd.DataFrame, unit: Unit) -> None:
    if len(rows):
        figure.add_scatter(
            x=unit.of(rows["start_ms"] + rows["first_token_ms"]), y=rows["row"], mode="markers", name="first token",
            marker={"symbol": "diamond", "size": 9, "color": theme.ORANGE, "line": {"color": "white", "width": 1}},
        )  # fmt: skip


@drawn_from(exemplars.sampled_stacks)
def flame(frame: pd.DataFrame) -> Drawing:
    """Draw sampled stacks as a flame graph, with the frames that took most time as its table."""
    sampled = stacks.gathered(zip(frame["stack"], frame["samples"], strict=True))
    top = stacks.table(sampled)
    doing = "on the processor" if (frame["mode"] == "profile").all() else "at each look, waiting included"
    title = f"What the app’s threads did: {stacks.total(sampled):,} samples {doing}"
    alt = (
        f"{wording.percent(top[0].self_share)} of the samples end in {top[0].frame}."
        if top
        else "No frames were sampled."
    )
    rows = pd.DataFrame(
        {
            "frame": [row.frame for row in top],
            "self samples": [row.self_samples for row in top],
            "self part (%)": [row.self_share * 100 for row in top],
            "with what it calls (%)": [row.total_share * 100 for row in top],
        }
    )
    return Drawing(Markup(flame_graph(sampled, title=title)), title, alt, rows)
