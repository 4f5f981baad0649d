"""What users felt and what it cost, at a glance: the figures of an overview, each against its objective."""

from collections.abc import Mapping
from typing import Any

from perfnb.objectives import Objectives
from perfnb.widgets import wording
from perfnb.widgets.cards import Tile, judged

Overview = Mapping[str, float]
Money = Mapping[str, Any]

LEAST_S = 3600
"""Observed for less, what a day would cost is hardly known."""


def impact_tiles(overview: Overview, objectives: Objectives) -> list[Tile]:
    """Return what users felt, each against its objective where there is one."""
    if not overview.get("requests"):
        return []
    requests, failed = overview["requests"], overview["failed"]
    tiles = [
        Tile("requests", wording.number(requests)),
        Tile("failed", wording.number(failed), wording.percent(failed / requests) if failed else ""),
        Tile("half answered within", wording.duration(overview["p50_ms"])),
        judged("19 of 20 within", overview["p95_ms"], objectives["request_p95_ms"]),
        Tile("99 of 100 within", wording.duration(overview["p99_ms"])),
        judged("first words, 19 of 20 within", overview["first_content_p95_ms"], objectives["time_to_first_token_ms"]),
        Tile("model calls", wording.number(overview["calls"])),
        Tile("failed attempts", wording.number(overview["attempts_failed"])),
        Tile("input tokens", wording.number(overview["input_tokens"])),
        Tile("output tokens", wording.number(overview["output_tokens"])),
    ]
    return [tile for tile in tiles if tile.value != "–"]


def money_tiles(money: Money) -> list[Tile]:
    """Return what was spent and what that comes to; ``money`` is a row of ``spend.overview``. Nothing without calls."""
    if not money.get("calls"):
        return []
    if not is_priced(money):
        return [_unpriced(money)]
    tiles = [
        Tile("spent in this recording", _dollars(money["cost_usd"]), note=wording.counted(int(money["calls"]), "call")),
        Tile("per request", _dollars(money["usd_per_request"]), note=_outside(money)),
        Tile("per answered request", _dollars(money["usd_per_successful_request"]), **_failed(money)),
        *([] if not money["assumption"] else _ahead(money)),
        _from_cache(money),
        _unpriced(money),
    ]
    return [tile for tile in tiles if tile.value != "–"]


def is_priced(money: Money) -> bool:
    """Tell whether there are dollars to speak of: nothing spent and calls without a price is not nothing."""
    return bool(money.get("calls")) and (money["cost_usd"] > 0 or not money["unpriced_calls"])


def assumed(money: Money) -> str:
    """Return what dollars a day and a month rest on, in a sentence or two; nothing where there are none."""
    if not is_priced(money) or not money["assumption"]:
        return ""
    told = f"A day and a month: {money['assumption']}."
    if money["seconds"] >= LEAST_S:
        return told
    return f"{told} So short a recording says little about a day: record an hour or more before you quote them."


def _ahead(money: Money) -> list[Tile]:
    return [
        Tile(f"a {period} at this rate", wording.about_dollars(money[f"usd_per_{period}"]))
        for period in ("day", "month")
    ]


def _dollars(usd: float) -> str:
    return wording.quantity(usd, "usd")


def _outside(money: Money) -> str:
    outside = money["requestless_usd"]
    return f"{_dollars(outside)} by calls of no request" if outside >= 0.01 * money["cost_usd"] > 0 else ""


def _failed(money: Money) -> dict[str, Any]:
    if not money["failed_usd"]:
        return {}
    return {"verdict": f"{_dollars(money['failed_usd'])} went into requests that failed", "missed": True}


def _from_cache(money: Money) -> Tile:
    if not money["input_tokens"]:
        return Tile("input read from the provider’s cache", "–")
    share = wording.percent(money["cache_read_tokens"] / money["input_tokens"])
    saved = money["saved_usd"]
    told = f"saved {_dollars(saved)}" if saved > 0 else f"writing it cost {_dollars(-saved)} more than it saved"
    return Tile("input read from the provider’s cache", share, note=told if saved else "")


def _unpriced(money: Money) -> Tile:
    count = int(money["unpriced_calls"])
    if not count:
        return Tile("calls without a price", "0")
    return Tile("calls without a price", f"{count:,}", "in no sum of dollars: see Prices", missed=True)
