"""An estimate as people look at it: what was recorded, what would have been, and what that assumes."""

from collections.abc import Iterable, Mapping
from typing import Any

from perfnb.estimates import Prediction
from perfnb.finding import Estimate
from perfnb.trials import TrialProgress
from perfnb.trials.shown import change, metric_title, setting
from perfnb.widgets import wording
from perfnb.widgets.html import Piece, render

TITLES = {
    "request_usd": "dollars for model calls, mean",
    "request_duration_ms": "time to the last byte, median",
    "time_to_first_token_ms": "time to first content, median",
    "input_tokens": "input tokens, mean",
    "output_tokens": "output tokens, mean",
    "hit_rate": "answered from the cache",
    "statement_ms": "time of the statement, mean",
    "statement_blocks": "blocks the statement touches",
    "temporary_bytes": "written to temporary files",
    "connections_in_use": "connections in use, mean",
    "connections_in_use_most": "connections in use, most",
}

PER = {"statement": "per execution", "temporary": "per execution", "connections": "at a time"}


def prediction_piece(title: str, prediction: Prediction) -> Piece:
    """Return what a change would have done, metric by metric, each as a range."""
    rows = [row(each) for each in prediction.effects]
    html = render(
        "estimate",
        title=title,
        per=_per(prediction),
        setting=setting(prediction.setting) if any(prediction.setting.values()) else "",
        rows=rows,
        examined=prediction.examined,
        assumptions=prediction.assumptions,
        not_modelled=prediction.not_modelled,
    )
    lines = [
        f"{title}",
        *(f"  {each['title']}: {each['before']} → {each['after']} ({each['change']})" for each in rows),
    ]
    return Piece(html, "\n".join([*lines, f"  {prediction.examined}"]))


def _per(prediction: Prediction) -> str:
    first = prediction.effects[0].metric.partition("_")[0] if prediction.effects else ""
    return PER.get(first, "per request")


def row(effect: Estimate) -> dict[str, Any]:
    """Return one metric as texts: title, before, after, change."""
    unit = _unit(effect.metric)
    low, high = sorted((effect.low, effect.high))
    ends = [wording.quantity(value, unit) for value in (low, high)]
    return {
        "title": TITLES.get(effect.metric, metric_title(effect.metric)),
        "before": wording.quantity(effect.before, unit),
        "after": ends[0] if ends[0] == ends[1] else " to ".join(ends),
        "change": _change(effect),
    }


def _change(effect: Estimate) -> str:
    if effect.before <= 0:
        return "–"
    ends = [change(value / effect.before) for value in sorted((effect.low, effect.high))]
    return "none" if set(ends) <= {change(1.0), change(0.999)} else ends[0] if ends[0] == ends[1] else " to ".join(ends)


def gains_piece(rows: Iterable[Mapping[str, Any]]) -> Piece:
    """Return the changes that fit what was found, each with what it would have saved."""
    import pandas as pd

    from perfnb.widgets.table import Table

    frame = pd.DataFrame(list(rows), columns=["change", "remedy for", "setting", "estimate", "can be tried here"])
    return Table(frame, "Changes that fit what was found, as estimated from the recorded traffic")


def headline(prediction: Prediction) -> str:
    """Return the estimate that matters most in a line: "dollars for model calls −40 % to −20 %"."""
    told = [(abs(1 - min(each.low, each.high) / each.before), each) for each in prediction.effects if each.before > 0]
    if not told:
        return "no effect that can be estimated"
    effect = max(told, key=lambda pair: pair[0])[1]
    return f"{TITLES.get(effect.metric, effect.metric)} {_change(effect)}"


def _unit(metric: str) -> str:
    if metric == "hit_rate":
        return "share"
    return next((unit for unit in ("usd", "ms", "tokens", "bytes") if metric.endswith(unit)), "")


def said_of(told: TrialProgress) -> str:
    """Return how far a trial is, in a line."""
    text = f"pair {told.pair} of at most {told.of}: {told.text}"
    return text if told.judgement is None else f"after {told.pair} pairs: {told.judgement.why}"
