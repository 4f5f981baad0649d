"""Budgets for model calls: ``[budget]`` in ``perfnb.toml``, and which of them is passed or about to be.

Source: A7 (budget exceeded), A14 and A30 (track usage and cost), B4 and E54 (cost per request)
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from perfnb.attribution.money import prepare_money, projection
from perfnb.errors import NotMeasured, WrongUse
from perfnb.recording import Recording
from perfnb.target import SETTINGS, read_settings

Level = Literal["passed", "near", "projected"]

_HINT = "[budget] takes usd_per_day, usd_per_month, usd_per_request and alert_at (0 to 1)"


@dataclass(frozen=True)
class Budget:
    """What may be spent, in dollars; ``alert_at`` is the part of a budget from which on it is worth a word."""

    usd_per_day: float | None = None
    usd_per_month: float | None = None
    usd_per_request: float | None = None
    alert_at: float = 0.8

    @classmethod
    def load(cls, folder: Path | None = None) -> Self:
        """Return ``[budget]`` of ``perfnb.toml`` in ``folder`` or the current one; raises WrongUse for nonsense."""
        given = read_settings((folder or Path.cwd()) / SETTINGS).get("budget", {})
        if not isinstance(given, dict) or (given.keys() - {each.name for each in fields(cls)}):
            raise WrongUse(f"{SETTINGS}: [budget] has a setting that is none", hint=_HINT)
        return cls(**{name: _amount(name, value) for name, value in given.items()})


@dataclass(frozen=True)
class Alert:
    """One budget that is passed (spent), near (beyond ``alert_at``) or projected to be passed.

    ``spent_usd`` is what was spent in the dearest day or month, or by the mean request; ``projected_usd`` what a whole
    day or month comes to at the recorded rate (None for requests), with ``assumption`` in words.
    """

    budget: str
    level: Level
    budget_usd: float
    spent_usd: float
    projected_usd: float | None
    message: str
    assumption: str = ""


def budget_alerts(recording: Recording, budget: Budget | None = None) -> tuple[Alert, ...]:
    """Return which budgets are passed or about to be, in the order day, month, request; none where all is well.

    ``budget`` is that of perfnb.toml unless given. Days and months are those of UTC.
    """
    budget = budget or Budget.load()
    found = [_over_time(recording, budget, name) for name in ("usd_per_day", "usd_per_month")]
    return tuple(filter(None, (*found, _per_request(recording, budget))))


def _over_time(recording: Recording, budget: Budget, name: str) -> Alert | None:
    limit = getattr(budget, name)
    if limit is None:
        return None
    period = "day" if name == "usd_per_day" else "month"
    spent, when = _dearest(recording, period)
    try:
        ahead = projection(recording)
    except NotMeasured:
        return _alert(name, limit, budget.alert_at, spent, None, f"{when}: ${spent:,.2f} of ${limit:,.2f}", "")
    projected = float(getattr(ahead, name))
    message = f"${spent:,.2f} spent on {when}, ${projected:,.2f} a {period} at this rate; budget ${limit:,.2f}"
    return _alert(name, limit, budget.alert_at, spent, projected, message, ahead.assumption)


def _per_request(recording: Recording, budget: Budget) -> Alert | None:
    limit = budget.usd_per_request
    if limit is None:
        return None
    row = (
        prepare_money(recording)
        .query(
            """
        SELECT avg(usd) AS mean, count(*) FILTER (WHERE usd > $limit) AS above, count(*) AS requests
        FROM (SELECT coalesce(sum(c.cost_usd), 0) AS usd FROM user_requests r
              LEFT JOIN priced_calls c ON c.request_id = r.request_id GROUP BY r.request_id)
        """,
            {"limit": limit},
        )
        .iloc[0]
    )
    if not row["requests"]:
        return None
    above = f"{int(row['above']):,} of {int(row['requests']):,} cost more"
    message = f"a request costs ${row['mean']:.4g} on average, budget ${limit:.4g}; {above}"
    return _alert("usd_per_request", limit, budget.alert_at, float(row["mean"]), None, message, "")


def _alert(
    name: str, limit: float, alert_at: float, spent: float, projected: float | None, message: str, assumption: str
) -> Alert | None:
    level: Level
    if spent > limit:
        level = "passed"
    elif projected is not None and projected > limit:
        level = "projected"
    elif max(spent, projected or 0.0) >= alert_at * limit and spent > 0:
        level = "near"
    else:
        return None
    return Alert(name, level, limit, spent, projected, message, assumption)


def _dearest(recording: Recording, period: str) -> tuple[float, str]:
    """Return what the dearest day or month cost and its name; nothing spent is 0."""
    name = "%Y-%m-%d" if period == "day" else "%Y-%m"
    frame = prepare_money(recording).query(
        f"""
        SELECT strftime(make_timestamp(CAST(start_time / 1000 AS BIGINT)), '{name}') AS period, sum(cost_usd) AS usd
        FROM priced_calls GROUP BY period HAVING sum(cost_usd) IS NOT NULL ORDER BY usd DESC, period LIMIT 1
        """
    )
    return (0.0, f"no {period}") if frame.empty else (float(frame["usd"].iloc[0]), str(frame["period"].iloc[0]))


def _amount(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (name == "alert_at" and value > 1):
        raise WrongUse(f"{SETTINGS}: budget {name} is {value!r}", hint=_HINT)
    return float(value)
