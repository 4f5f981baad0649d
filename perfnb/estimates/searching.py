"""A vector search that keeps more candidates, or goes on while a filter leaves too few rows."""

import math
from typing import Any

from perfnb.attribution.objects import objects
from perfnb.errors import NotMeasured
from perfnb.estimates.change import Parameter, Prediction, change
from perfnb.estimates.statements import brief, chosen
from perfnb.finding import Estimate
from perfnb.recording import Recording

DEFAULT_EF = 40
DEFAULT_MOST_ROWS = 20_000
MODES = ("off", "relaxed_order", "strict_order")
ROWS_UNKNOWN = "how many more rows come back, and whether they are the nearest: try it, or use the vector tuner"


@change(
    "vector_search",
    title="Search more of the vector index",
    causes=("missing-results", "vector-search-parameters"),
    parameters=(
        Parameter("ef_search", "hnsw.ef_search", 100, "candidates", 1, 1000, 10),
        Parameter("iterative_scan", "hnsw.iterative_scan", "off", choices=MODES),
        Parameter("statement", "Statement (queryid)", None),
    ),
)
def vector_search(recording: Recording, *, ef_search: int, iterative_scan: str, statement: str | None) -> Prediction:
    """Return how much longer a search in an HNSW index would take with other settings.

    Source: C40; pgvector README, HNSW query options and iterative index scans
    """
    row = chosen(recording, statement, _is_search, "is ordered by distance")
    indexes = objects(recording, "index")
    if not (indexes["method"] == "hnsw").any():
        raise NotMeasured("no HNSW index was seen", hint="settings of a search need one; record with --dsn DSN")
    mean, now = float(row["mean_exec_time_ms"]), _ef(recording)
    low, high = sorted((1.0, _work(ef_search) / _work(now)))
    if iterative_scan != "off":
        high = max(high, min(DEFAULT_MOST_ROWS, _rows(recording, row)) / now)
    assumptions = (
        f"sessions of the app have hnsw.ef_search {now}, as a new session has",
        "a search takes at most as many times longer as it visits more candidates and keeps them in order",
    )
    effect = Estimate("statement_ms", mean, mean * low, mean * high, assumptions, (ROWS_UNKNOWN,))
    return Prediction(
        (effect,),
        f"{brief(row['query'])} takes {row['share']:.0%} of the database's time and returns {row['rows'] / row['calls']:.1f} rows each of {row['calls']:,.0f} times",
        assumptions,
        (ROWS_UNKNOWN,),
        setting={"statement": str(row["queryid"])},
    )


def _work(ef: float) -> float:
    """Return what a search with so many candidates takes at most, up to a factor: each is put into a queue of that length."""
    return ef * math.log2(ef + 1)


def _is_search(row: Any) -> bool:
    return row["read"].distance is not None


def _ef(recording: Recording) -> int:
    settings = objects(recording, "setting").set_index("name")["value"]
    value = settings.get("hnsw.ef_search")
    return int(value) if value is not None and str(value).isdigit() else DEFAULT_EF


def _rows(recording: Recording, row: Any) -> float:
    """Return how many rows the searched table has; the most an iterative search visits where that is unknown."""
    tables = objects(recording, "table")
    name = row["read"].distance.table.rpartition(".")[2]
    is_searched = tables["name"].map(lambda each: each.rpartition(".")[2] == name).astype(bool)
    found = tables[is_searched]["rows_estimated"]
    return float(found.iloc[0]) if len(found) and found.iloc[0] > 0 else float(DEFAULT_MOST_ROWS)
