"""The figures of the area costs: each draws the frame of one measure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from perfnb.areas.costs import bill, caching, composition, spend
from perfnb.errors import NotMeasured
from perfnb.widgets import theme, wording
from perfnb.widgets.chart import Chart, Measure, drawn_from
from perfnb.widgets.draw import canvas, colour_of, in_dollars, label, labels, moments, rows_height

if TYPE_CHECKING:
    from perfnb.recording import Recording

MOST_ROWS = 12
BINS = 24
ROUTES = 5

# What dollars are paid for; the same colour for the same thing in every figure
FRESH, CACHED, WRITTEN, ANSWERED, CALLED = theme.BLUE, theme.SKY, theme.PURPLE, theme.ORANGE, theme.GREEN
PAID_FOR = (
    ("input_usd", "input", FRESH),
    ("cache_read_usd", "input read from the cache", CACHED),
    ("cache_write_usd", "input written to the cache", WRITTEN),
    ("output_usd", "output", ANSWERED),
    ("request_usd", "fee per call", CALLED),
)
NO_CALLS = "No model call was recorded."
HOW_TO_PRICE = "a price for the models that answer: [[price]] in perfnb.toml"


def in_known_dollars(measure: Measure) -> Measure:
    """Return ``measure``, not measured where no call has a price: dollars that nobody knows are not 0."""

    def known(recording: "Recording") -> pd.DataFrame:
        frame = measure(recording)
        if not frame.empty and frame["cost_usd"].sum() == 0 < frame["unpriced_calls"].sum():
            raise NotMeasured("no call has a known price", hint=HOW_TO_PRICE)
        return frame

    return known


@drawn_from(in_known_dollars(spend.spend_over_time), empty=NO_CALLS)
def spend_over_time(frame: pd.DataFrame) -> Chart:
    """Draw dollars in equal steps of time."""
    total, step = frame["cost_usd"].sum(), wording.duration(frame["seconds"].iloc[0] * 1000)
    most = frame.loc[frame["cost_usd"].idxmax()]
    title = f"Spend over time: {wording.dollars(total)} in all, at most {wording.dollars(most['cost_usd'])} in {step}"
    figure = in_dollars(canvas(title, "time (UTC)", f"spent in {step} (USD)", height=320, from_zero=True), "y")
    figure.add_bar(
        x=moments(frame["time"] + frame["seconds"] * 500_000_000), y=frame["cost_usd"], width=frame["seconds"] * 900,
        marker_color=FRESH, customdata=frame[["calls", "total_usd"]], showlegend=False,
        hovertemplate="%{y} for %{customdata[0]:,.0f} calls, $%{customdata[1]:,.4f} until then<extra></extra>",
    )  # fmt: skip
    at = wording.clock(int(most["time"]))
    alt = f"Most was spent in the {step} from {at}, by {wording.counted(int(most['calls']), 'call')}{_beside(frame)}."
    return Chart(figure, alt, frame)


@drawn_from(in_known_dollars(spend.spend_by_model), empty=NO_CALLS)
def spend_by_model(frame: pd.DataFrame) -> Chart:
    """Draw what each model costs: input, input read from the cache, output."""
    total, first = frame["cost_usd"].sum(), frame.iloc[0]
    shown = frame.head(MOST_ROWS).iloc[::-1]
    names = labels(shown["model"])
    title = (
        f"Spend by model: {label(first['model'])} takes {wording.percent(first['share'])} of {wording.dollars(total)}"
    )
    figure = in_dollars(_rows(title, "spent (USD)", len(shown), barmode="stack", showlegend=True), "x")
    paid = [(column, name, colour) for column, name, colour in PAID_FOR if frame[column].sum() > 0]
    for column, name, colour in paid:
        figure.add_bar(y=names, x=shown[column], name=name, orientation="h", marker_color=colour,
                       hovertemplate="%{y}: %{x} for " + name + "<extra></extra>")  # fmt: skip
    _told(figure, names, shown["cost_usd"], [_of_model(row) for row in shown.itertuples(index=False)])
    parts = [f"{name} {wording.percent(frame[column].sum() / total)}" for column, name, _ in paid]
    told = f"Of the dollars, {wording.listed(parts)}" if parts else "No dollars are known"
    return Chart(figure, f"{told}{_beside(frame)}.{_drawn(shown, frame, 'models')}", frame)


def _of_model(row: Any) -> str:
    if row.unpriced_calls == row.calls:
        return f"{wording.counted(row.calls, 'call')}, no price"
    return f"{wording.dollars(row.cost_usd)}, {wording.percent(row.share)}"


@drawn_from(in_known_dollars(spend.spend_by_route), empty=NO_CALLS)
def spend_by_route(frame: pd.DataFrame) -> Chart:
    """Draw what requests of each route cost."""
    return _spend_by(frame, "route", "Spend by route", "calls of no request")


@drawn_from(in_known_dollars(spend.spend_by_stage), empty=NO_CALLS)
def spend_by_stage(frame: pd.DataFrame) -> Chart:
    """Draw what each step of the app spends."""
    return _spend_by(frame, "stage", "Spend by step of the app", "no step told")


def spend_by_attribute(frame: pd.DataFrame, *, name: str) -> Chart:
    """Draw what each user, session or tenant costs; ``name`` is the attribute that tells them apart."""
    return _spend_by(frame, "value", f"Spend by {label(name)}", "not told")


def _spend_by(frame: pd.DataFrame, column: str, about: str, missing: str) -> Chart:
    """Draw dollars by ``column``, dearest on top, all that are too many in one bar."""
    named = frame.assign(**{column: frame[column].fillna(missing).astype(str)})
    first, total = named.iloc[0], frame["cost_usd"].sum()
    shown = _with_others(named, column).iloc[::-1]
    names = labels(shown[column])
    title = f"{about}: {label(first[column])} takes {wording.percent(first['share'])} of {wording.dollars(total)}"
    figure = in_dollars(_rows(title, "spent (USD)", len(shown)), "x")
    figure.add_bar(y=names, x=shown["cost_usd"], orientation="h", marker_color=FRESH, showlegend=False,
                   hovertemplate="%{y}: %{x}<extra></extra>")  # fmt: skip
    _told(figure, names, shown["cost_usd"], [_of_part(row) for row in shown.to_dict("records")])
    top = [f"{label(name)} {wording.dollars(usd)}" for name, usd in zip(named[column][:3], frame["cost_usd"][:3], strict=True)]  # fmt: skip
    return Chart(figure, f"Of {wording.dollars(total)}: {wording.listed(top)}{_beside(frame)}.", frame)


def _with_others(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    if len(frame) <= MOST_ROWS:
        return frame
    kept, rest = frame.head(MOST_ROWS - 1), frame.iloc[MOST_ROWS - 1 :]
    others = {column: f"{len(rest):,} others", "cost_usd": rest["cost_usd"].sum(), "share": rest["share"].sum()}
    return pd.concat([kept, pd.DataFrame([others])], ignore_index=True)


def _of_part(row: dict[Any, Any]) -> str:
    each = row.get("usd_per_request")
    told = f"{wording.dollars(row['cost_usd'])}, {wording.percent(row['share'])}"
    return told if each is None or each != each else f"{told}; {wording.dollars(each)} per request"


@drawn_from(composition.prompt_parts, empty="No prompt was recorded.")
def prompt_parts(frame: pd.DataFrame) -> Chart:
    """Draw what the input tokens of answers are spent on: what there is to cut."""
    first, shown = frame.iloc[0], frame.iloc[::-1]
    title = f"What prompts are made of: {wording.percent(first['share'])} of the input tokens are {first['part']}"
    figure = _rows(title, "input tokens per call (mean)", len(shown), barmode="stack", showlegend=True)
    cached = shown["tokens_per_call"] * shown["cached_tokens"] / shown["tokens"]
    for tokens, name, colour in ((shown["tokens_per_call"] - cached, "paid in full", FRESH),
                                 (cached, "read from the provider’s cache", CACHED)):  # fmt: skip
        figure.add_bar(y=shown["part"], x=tokens, name=name, orientation="h", marker_color=colour,
                       hovertemplate="%{y}: %{x:,.0f} tokens " + name + "<extra></extra>")  # fmt: skip
    _told(figure, shown["part"], shown["tokens_per_call"], [_of_prompt(row) for row in shown.itertuples(index=False)])
    total = frame["cost_usd"].sum()
    paid = f"; together they cost {wording.dollars(total)}" if total else ""
    alt = f"A prompt has {frame['tokens_per_call'].sum():,.0f} tokens on average{paid}."
    return Chart(figure, alt, frame)


def _of_prompt(row: Any) -> str:
    told = f"{row.tokens_per_call:,.0f} tokens, {wording.percent(row.share)}"
    return f"{told}; {wording.dollars(row.cost_usd)} in all" if row.cost_usd else told


@drawn_from(spend.prompt_cache, empty="No call tells its input tokens.")
def prompt_cache(frame: pd.DataFrame) -> Chart:
    """Draw how much of each model's input the provider read from its cache."""
    read, tokens = frame["cache_read_tokens"].sum(), frame["input_tokens"].sum()
    saved, shown = frame["saved_usd"].sum(), frame.head(MOST_ROWS).iloc[::-1]
    title = f"The provider’s cache: {wording.percent(read / tokens)} of the input tokens are read from it"
    figure = _rows(title, "input tokens", len(shown), barmode="stack", showlegend=True)
    names = labels(shown["model"])
    written = shown["cache_write_tokens"]
    fresh = (shown["input_tokens"] - shown["cache_read_tokens"] - written).clip(lower=0)
    for counted, name, colour in ((fresh, "paid in full", FRESH), (shown["cache_read_tokens"], "read", CACHED),
                                  (written, "written", WRITTEN)):  # fmt: skip
        if counted.sum():
            figure.add_bar(y=names, x=counted, name=name, orientation="h", marker_color=colour,
                           hovertemplate="%{y}: %{x:,.0f} tokens " + name + "<extra></extra>")  # fmt: skip
    _told(figure, names, shown["input_tokens"], [f"{wording.percent(share)} read" for share in shown["read_share"]])
    told = f"saved {wording.dollars(saved)}" if saved >= 0 else f"cost {wording.dollars(-saved)} more than it saved"
    said = f"Against plain input the cache {told}" if frame["saved_usd"].notna().any() else "What it saves is not known: no price"  # fmt: skip
    return Chart(figure, f"{said}.{_drawn(shown, frame, 'models')}", frame)


@drawn_from(in_known_dollars(spend.request_costs), empty="No request was recorded.")
def request_costs(frame: pd.DataFrame) -> Chart:
    """Draw how many requests cost how much, by route; the dearest hundredth stands in the last bar."""
    costs = frame["cost_usd"]
    most = float(costs.quantile(0.99)) or float(costs.max()) or 1e-6
    width = most / BINS
    places = (costs / width).astype(int).clip(upper=BINS - 1)
    tenth = frame["cost_usd"].head(max(1, len(frame) // 10)).sum() / (costs.sum() or 1)
    title = f"What a request costs: half under {wording.dollars(costs.median())}, the dearest tenth takes {wording.percent(tenth)} of the dollars"
    figure = in_dollars(canvas(title, "cost of a request (USD)", "requests (count)", barmode="stack", bargap=0.05), "x")
    frequent = frame["route"].fillna("no route").value_counts().index[:ROUTES]
    routes = frame["route"].fillna("no route").where(lambda route: route.isin(frequent), "other routes")
    for position, (route, group) in enumerate(sorted(places.groupby(routes), key=lambda each: -len(each[1]))):
        counts = group.value_counts().sort_index()
        figure.add_bar(x=(counts.index + 0.5) * width, y=counts, width=width * 0.95, name=label(route),
                       marker_color=colour_of(position) if route != "other routes" else theme.GREY,
                       hovertemplate="%{y} requests at about %{x}<extra>" + label(route) + "</extra>")  # fmt: skip
    figure.update_layout(showlegend=True)
    dearest = (
        f"The dearest cost {wording.dollars(costs.max())}, the mean is {wording.dollars(costs.mean())}{_beside(frame)}"
    )
    return Chart(figure, f"{len(frame):,} requests. {dearest}.", frame.head(200))


@drawn_from(bill.reconciliation, empty="The bill covers no day.")
def billed_and_recorded(frame: pd.DataFrame) -> Chart:
    """Draw what was billed beside what was recorded, by model; tokens where the export tells no dollars."""
    is_usd = bool(frame["billed_usd"].notna().any())
    sums = frame.groupby("model", as_index=False).sum(numeric_only=True, min_count=1)
    for side in ("billed", "recorded"):
        sums[side] = sums[f"{side}_usd"] if is_usd else sums[f"{side}_input_tokens"] + sums[f"{side}_output_tokens"]
    shown = sums.sort_values(["billed", "recorded"], ascending=False).head(MOST_ROWS).iloc[::-1]
    say = wording.dollars if is_usd else (lambda count: f"{count:,.0f} tokens")
    billed, recorded = float(sums["billed"].sum()), float(sums.loc[sums["billed"].notna(), "recorded"].sum())
    title = f"The bill and the recording: {say(billed)} billed, {say(recorded)} recorded of the same models"
    figure = _rows(title, "dollars (USD)" if is_usd else "tokens", 2 * len(shown), barmode="group", showlegend=True)
    names = labels(shown["model"])
    absent = {"recorded": "not recorded, or without a price", "billed": "not on this bill"}
    for side, colour in (("recorded", FRESH), ("billed", ANSWERED)):
        figure.add_bar(y=names, x=shown[side], name=side, orientation="h", marker_color=colour,
                       text=[say(value) if value == value else absent[side] for value in shown[side]],
                       textposition="outside", cliponaxis=False)  # fmt: skip
    if is_usd:
        in_dollars(figure, "x")
    part = f"{wording.percent(recorded / billed)} of what was billed was recorded" if billed else "Nothing was billed"
    return Chart(figure, f"{part}; days are those of UTC, and of each the recording saw only its own hours.", frame)


@drawn_from(caching.embedded_texts, empty="No text was embedded.")
def embedded_again(frame: pd.DataFrame) -> Chart:
    """Draw how many embedded texts had been embedded before, by model."""
    frame = frame.assign(is_again=frame["is_again"].astype(bool), usd=frame["part"] * frame["cost_usd"])
    by_model = frame.groupby("model").agg(
        texts=("digest", "size"), again=("is_again", "sum"), different=("digest", "nunique")
    )
    again_usd = frame[frame["is_again"]].groupby("model")["usd"].sum()
    by_model = by_model.assign(again_usd=again_usd).fillna({"again_usd": 0.0}).nlargest(MOST_ROWS, "texts").iloc[::-1]
    names = labels(by_model.index.to_series())
    title = f"Embedded texts: {frame['is_again'].sum():,} of {len(frame):,} had been embedded before"
    figure = _rows(title, "texts (count)", len(names), barmode="stack", showlegend=True)
    for counted, name, colour in ((by_model["texts"] - by_model["again"], "for the first time", FRESH),
                                  (by_model["again"], "again", ANSWERED)):  # fmt: skip
        figure.add_bar(y=names, x=counted, name=name, orientation="h", marker_color=colour)
    told = f"What was embedded again cost {wording.dollars(float(by_model['again_usd'].sum()))}."
    return Chart(figure, told, by_model.iloc[::-1].reset_index())


def _rows(title: str, axis: str, rows: int, **layout: Any) -> Any:
    """Return a canvas with one line per row; the names need no title of their own."""
    given: dict[str, Any] = {"legend_traceorder": "normal", "bargap": 0.2 if rows > 1 else 0.6} | layout
    return canvas(title, axis, "", height=rows_height(rows, around=140), **given)


def _told(figure: Any, names: Sequence[str] | pd.Series, ends: pd.Series, texts: Sequence[str]) -> None:
    """Write ``texts`` behind the bars, which end at ``ends``."""
    figure.add_scatter(x=ends, y=names, mode="text", text=[f"\u2002{text}" for text in texts], textposition="middle right", showlegend=False,
                       hoverinfo="skip", cliponaxis=False)  # fmt: skip
    figure.update_xaxes(range=[0, float(ends.max() or 1) * 1.45])
    figure.update_yaxes(categoryorder="array", categoryarray=list(names))


def _beside(frame: pd.DataFrame) -> str:
    """Return how many calls are in no sum for want of a price, or nothing."""
    count = int(frame["unpriced_calls"].sum())
    return f"; {wording.counted(count, 'call')} without a price {'is' if count == 1 else 'are'} left out" * bool(count)  # fmt: skip


def _drawn(shown: pd.DataFrame, frame: pd.DataFrame, noun: str) -> str:
    return f" The dearest {len(shown)} of {len(frame):,} {noun} are drawn." if len(shown) < len(frame) else ""
