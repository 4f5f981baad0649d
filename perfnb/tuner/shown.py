"""A tuning as people look at it: the picks, the indexes that were tried, advice, and what was not measured."""

from collections.abc import Iterator

import pandas as pd
from markupsafe import Markup

from perfnb.tuner.tuning import Pick, Tuning
from perfnb.widgets import wording
from perfnb.widgets.html import Piece, render
from perfnb.widgets.table import table


def tuning_piece(tuning: Tuning) -> Piece:
    """Return the result as a cell shows it; its text is what a terminal prints."""
    html = render(
        "tuning",
        title=tuning.headline,
        kind="better" if tuning.pick and tuning.pick.is_met else "",
        engine=tuning.described["engine"],
        rows=tuning.described["rows"],
        choosing=tuning.choosing,
        held_back=tuning.held_back,
        searches=tuning.searches + tuning.exact_searches,
        part=wording.percent(tuning.share_of_grid),
        ended=tuning.ended,
        queries=tuning.queries,
        tables=list(_tables(tuning)),
        advice=tuning.advice,
        not_measured=tuning.not_measured,
    )
    return Piece(html, str(tuning))


def _tables(tuning: Tuning) -> Iterator[Markup]:
    whole = [each for each in tuning.picks if not each.candidate]
    if whole:
        yield table(
            pd.DataFrame([_row(each, tuning.k) for each in whole]),
            "The cheapest setting that is enough, on queries held back",
        )
    tried = [{"index": each.candidate, **_row(each, tuning.k)} for each in tuning.picks if each.candidate]
    if tried:
        yield table(pd.DataFrame(tried), "Other indexes, on a temporary copy")
        made = [
            {
                "index": each.name,
                "what": each.title,
                "size": wording.size(each.bytes),
                "build_s": each.build_s,
                "to make it": each.ddl,
            }
            for each in tuning.candidates
        ]
        yield table(pd.DataFrame(made), "What they are and cost")


def _row(pick: Pick, k: int) -> dict[str, object]:
    point = pick.point
    return {
        "rows": pick.filter,
        "setting": pick.setting,
        f"recall@{k}": f"{point.recall:.3f} ({point.recall_low:.3f} to {point.recall_high:.3f})",
        "worst 5 % of queries": f"{point.recall_worst5:.2f}",
        "p50_ms": point.p50_ms,
        "p95_ms": point.p95_ms,
        "sure": "yes" if pick.is_proven else "likely, too few queries",
    }
