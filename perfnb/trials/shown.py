"""A trial as people look at it: what was measured beside what was predicted, and how the two arms are distributed."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perfnb.plans import compare, plan_of
from perfnb.trials.measure import KNOWN
from perfnb.trials.result import MetricResult, TrialResult
from perfnb.widgets import theme, wording
from perfnb.widgets.chart import Chart
from perfnb.widgets.draw import canvas, time_unit
from perfnb.widgets.html import Piece, render
from perfnb.widgets.plan import ComparedPlans

if TYPE_CHECKING:
    import pandas as pd

    from perfnb.recording import Recording

ARMS = {"A": ("without the change", theme.BLUE), "B": ("with it", theme.ORANGE)}


def result_piece(result: TrialResult) -> Piece:
    """Return the result: the outcome, and each metric without and with the change, measured beside predicted."""
    html = render(
        "trial",
        title=result.title,
        kind=_kind(result.outcome),
        outcome="the planner’s estimate, not measured" if result.outcome == "estimated" else result.outcome,
        before=setting(result.before),
        value=setting(result.value),
        pairs=result.pairs,
        requests=result.requests,
        seconds=wording.duration((result.ended_ns - result.started_ns) / 1e6),
        spent=wording.quantity(result.spent_usd, "usd") if result.spent_usd is not None else "",
        why=result.why,
        confidence=wording.percent(result.confidence),
        rows=[_row(each, result.primary) for each in result.metrics],
        was_undone=result.was_undone,
        statement=result.statement,
        plans=compared.html if (compared := plans_of(result)) else "",
        notes=result.notes,
    )
    return Piece(html, str(result))


def plans_of(result: TrialResult) -> ComparedPlans | None:
    """Return the statement's plans without and with the change, side by side; None where not both are known."""
    if len(result.plans) < 2:
        return None
    before, after = (plan_of(result.plans[arm]) for arm in ("A", "B"))
    return ComparedPlans(compare(before, after), ("Without the change", "With it"))


def setting(value: Any) -> str:
    """Return a knob's value in a line: ``max_tokens 300``; nothing set is "as it is"."""
    if isinstance(value, Mapping):
        parts = [
            f"{name.replace('_', ' ')} {setting(part)}".strip() for name, part in value.items() if part is not None
        ]
        return ", ".join(parts) or "as it is"
    if isinstance(value, list | tuple):
        return ", ".join(setting(part) for part in value)
    return "as it is" if value is None or value == "" else str(value)


def _row(metric: MetricResult, primary: str) -> dict[str, Any]:
    unit = {"USD": "usd", "part": "share"}.get(metric.unit, metric.unit)
    predicted = "–"
    if metric.predicted_low is not None and metric.predicted_high is not None:
        predicted = f"{change(metric.predicted_low)} to {change(metric.predicted_high)}"
    return {
        "title": metric.title,
        "a": wording.quantity(metric.a, unit),
        "b": wording.quantity(metric.b, unit),
        "change": change(metric.ratio),
        "interval": f"{change(metric.low)} to {change(metric.high)}",
        "predicted": predicted,
        "verdict": metric.verdict,
        "kind": _kind(metric.verdict),
        "is_primary": metric.name == primary,
    }


def change(ratio: float) -> str:
    """Return a ratio as a change: 0.8 is "−20 %", never broken between lines."""
    return f"{ratio - 1:+.0%}".replace("-", "−").replace("%", "\u00a0%")


def _kind(verdict: str) -> str:
    return verdict if verdict in ("better", "worse") else "other"


def trials_of(recording: "Recording") -> list[TrialResult]:
    """Return the trials on the timeline, oldest first."""
    bodies = recording.query("SELECT body FROM events WHERE kind = 'trial' AND body IS NOT NULL ORDER BY time")["body"]
    return [TrialResult.from_dict(json.loads(body)) for body in bodies]


def durations(recording: "Recording", trial: str) -> "pd.DataFrame":
    """Return how long each measured request of a trial took: arm (A or B), duration_ms."""
    return recording.query(
        "SELECT split_part(arm, '/', 2) AS arm, duration_ms FROM http_requests "
        "WHERE split_part(arm, '/', 1) = $trial AND source = 'load' AND phase = 'measure' AND status_code < 400 "
        "ORDER BY duration_ms",
        {"trial": trial},
    )


def distribution(frame: "pd.DataFrame", title: str) -> Chart:
    """Draw which part of each arm's requests was answered within how long."""
    unit = time_unit(frame["duration_ms"])
    figure = canvas(title, f"answered within ({unit.name})", "part of requests (%)", from_zero=True)
    said = []
    for arm, (name, colour) in ARMS.items():
        rows = frame[frame["arm"] == arm].sort_values("duration_ms")
        if rows.empty:
            continue
        part = [100 * place / len(rows) for place in range(1, len(rows) + 1)]
        figure.add_scatter(
            x=unit.of(rows["duration_ms"]), y=part, mode="lines", name=f"{name} ({len(rows)})",
            line={"color": colour, "width": 2, "shape": "hv", "dash": "solid" if arm == "A" else "dash"},
            hovertemplate="%{y:.0f} % within %{x:.2f} " + unit.name + "<extra></extra>",
        )  # fmt: skip
        said.append(f"{name}, half of {len(rows)} requests within {wording.duration(rows['duration_ms'].median())}")
    return Chart(figure, f"{wording.listed(said)}.".capitalize(), frame)


def metric_title(name: str) -> str:
    """Return a metric in words; names trials don't measure are spelled out."""
    return KNOWN[name].title if name in KNOWN else name.replace("_", " ")
