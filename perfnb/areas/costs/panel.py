"""What the notebook on costs shows: each function takes the incident and returns something a cell displays."""

from dataclasses import fields
from typing import TYPE_CHECKING

from markupsafe import Markup

from perfnb.areas.cells import Answers, not_measured, shows
from perfnb.areas.costs import figures, spend
from perfnb.budgets import Alert, Budget, budget_alerts
from perfnb.errors import NotMeasured
from perfnb.widgets import cards, wording
from perfnb.widgets.cards import Tile
from perfnb.widgets.chart import Chart, Missing
from perfnb.widgets.choose import Chooser
from perfnb.widgets.html import Piece, render, together
from perfnb.widgets.table import Table
from perfnb.widgets.tiles import assumed, money_tiles

if TYPE_CHECKING:
    import pandas as pd

    from perfnb.incident import Incident

AREA = "costs"

# What another notebook looks into further, by what was found here
FURTHER = {
    "no-response-cache": "slow", "cache-misses": "slow", "large-context": "slow", "too-many-documents": "slow",
    "long-history": "slow", "no-output-limit": "slow", "heavy-tool-schemas": "agents", "bulk-at-full-price": "slow",
}  # fmt: skip

DEAREST = 10
LEVELS = {"passed": "passed", "near": "nearly reached", "projected": "will be passed at this rate"}

_answers = Answers(AREA, FURTHER, judged_by="request_usd")
checklist, findings, named, next_steps = _answers.checklist, _answers.findings, _answers.named, _answers.next_steps
try_a_change, recipes = _answers.try_a_change, _answers.recipes

spend_over_time = shows(figures.spend_over_time)
spend_by_model = shows(figures.spend_by_model)
spend_by_route = shows(figures.spend_by_route)
spend_by_stage = shows(figures.spend_by_stage)
prompt_parts = shows(figures.prompt_parts)
prompt_cache = shows(figures.prompt_cache)
request_costs = shows(figures.request_costs)
billed_and_recorded = shows(figures.billed_and_recorded)

A_BUDGET = """\
[budget]
usd_per_day = 50
usd_per_month = 1000
usd_per_request = 0.02
alert_at = 0.8
"""


def overview(incident: "Incident") -> Piece:
    """Return what was spent, what it comes to by request, day and month, and what stands against it."""
    try:
        money = spend.overview(incident.snapshot).iloc[0].to_dict()
    except NotMeasured as missing:
        return not_measured(missing)
    tiles = cards.tiles_piece([*money_tiles(money), _alerts_tile(incident)])
    if not (said := assumed(money)):
        return tiles
    return Piece(Markup(tiles.html + render("said", said=said)), f"{tiles.text}\n{said}")


def _alerts_tile(incident: "Incident") -> Tile:
    budget = Budget.load()
    if not _limits(budget):
        return Tile("budgets", "none set", note="see Budgets")
    alerts = budget_alerts(incident.snapshot, budget)
    told = wording.listed([f"{_words(one.budget)} {LEVELS[one.level]}" for one in alerts]) if alerts else "all kept"
    return Tile("budget alerts", str(len(alerts)), told, missed=bool(alerts))


def spend_by_user(incident: "Incident") -> Chooser | Missing:
    """Return what each user, session or tenant costs, with a choice of the attributes that tell them apart."""
    recording = incident.snapshot
    names = spend.attributes_seen(recording)
    if not names:
        return Missing(
            "Not measured. No span and no call tells for whom it was made: set user.id or session.id on a span, "
            "and record with perfnb record --otlp."
        )

    try:
        figures.in_known_dollars(spend.spend_by_attribute)(recording)
    except NotMeasured as missing:
        return not_measured(missing)

    def draw(name: str) -> Chart:
        return figures.spend_by_attribute(spend.spend_by_attribute(recording, name), name=name)

    return Chooser("Told apart by", {name: name for name in names}, draw)


def dearest_requests(incident: "Incident") -> Piece:
    """Return the requests that cost most, with their calls and tokens."""
    frame = spend.request_costs(incident.snapshot)
    if frame.empty:
        return Missing("No request was recorded.")
    shown = frame.head(DEAREST)[[
        "cost_usd", "route", "start_time", "duration_ms", "is_failed", "calls", "input_tokens", "output_tokens", "request_id"
    ]]  # fmt: skip
    part = shown["cost_usd"].sum() / (frame["cost_usd"].sum() or 1)
    caption = (
        f"The {len(shown)} dearest of {len(frame):,} requests; together {wording.percent(part)} of what requests cost"
    )
    return Table(shown, caption)


def budgets(incident: "Incident") -> Piece:
    """Return each budget and whether it is kept, or how to set one."""
    budget = Budget.load()
    limits = _limits(budget)
    if not limits:
        return example_piece("No budget is set. In perfnb.toml, beside where perfnb runs:", A_BUDGET)
    alerts = {alert.budget: alert for alert in budget_alerts(incident.snapshot, budget)}
    return cards.tiles_piece([_budget_tile(name, limit, alerts.get(name)) for name, limit in limits.items()])


def _budget_tile(name: str, limit: float, alert: Alert | None) -> Tile:
    if alert is None:
        return Tile(f"budget {_words(name)}", wording.dollars(limit), "kept")
    return Tile(f"budget {_words(name)}", wording.dollars(limit), LEVELS[alert.level], missed=True, note=alert.message)


def _limits(budget: Budget) -> dict[str, float]:
    named = {one.name: getattr(budget, one.name) for one in fields(budget) if one.name.startswith("usd_")}
    return {name: float(limit) for name, limit in named.items() if limit is not None}


def _words(name: str) -> str:
    return name.removeprefix("usd_").replace("_", " ")


def prices(incident: "Incident") -> Piece:
    """Return which price list was used and where each call's price came from."""
    frame = spend.price_sources(incident.snapshot)
    return Table(frame, f"Price list: {spend.price_version(incident.snapshot)}")


def unpriced(incident: "Incident") -> Piece:
    """Return the models nobody could price, and what to write into perfnb.toml so that they are."""
    frame = spend.unpriced(incident.snapshot)
    if frame.empty:
        return Missing("Every call has a price.")
    count = int(frame["calls"].sum())
    listed = Table(
        frame, f"{wording.counted(count, 'call')} in no sum of dollars, for want of a price or of token counts"
    )
    priceless = frame[frame["reason"] == "no price known"]
    if priceless.empty:
        return listed
    example = example_piece("To price them, in perfnb.toml, dollars per million tokens:", a_price(priceless))
    return together([listed, example])


def a_price(frame: "pd.DataFrame") -> str:
    """Return ``[[price]]`` for the first model of ``frame``, its numbers left to the reader."""
    model = str(frame["model"].iloc[0]).replace("\\", "\\\\").replace('"', '\\"')
    return f"""\
[[price]]
model = "{model}"
input_usd_per_mtok = 0.00
output_usd_per_mtok = 0.00
cache_read_usd_per_mtok = 0.00   # if the provider has a prompt cache
"""


def example_piece(said: str, example: str) -> Piece:
    """Return a sentence and what to type, as a notebook and a page show it."""
    return Piece(render("example", said=said, example=example), f"{said}\n{example}")
