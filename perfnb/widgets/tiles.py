"""What users felt, at a glance: the figures of an overview, each against its objective."""

from collections.abc import Mapping

from perfnb.objectives import Objectives
from perfnb.widgets import wording
from perfnb.widgets.cards import Tile, judged

Overview = Mapping[str, float]


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
