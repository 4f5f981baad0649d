"""The vector tuner: recall and latency by setting on the user's own rows and queries, and the cheapest that is enough.

::

    from perfnb.tuner import PgvectorTable, tune

    with PgvectorTable(dsn, "documents", "embedding") as table:
        tuning = tune(table, "questions.npy", k=10, target=0.95, filter_column="tenant")
    print(tuning)
    curve(tuning)
"""

from importlib import import_module
from typing import Any

from perfnb.tuner.engines.base import Description, Engine, Filter, Question
from perfnb.tuner.run import TuningProgress, tune
from perfnb.tuner.setting import EXACT, Family, Setting
from perfnb.tuner.tuning import Candidate, Pick, Point, Tuning

_LATER = {  # each needs a client library of its own, or plotly
    "MilvusCollection": "perfnb.tuner.engines.milvus",
    "PgvectorTable": "perfnb.tuner.engines.pgvector",
    "QdrantCollection": "perfnb.tuner.engines.qdrant",
    "QdrantShard": "perfnb.tuner.engines.qdrant_edge",
    "curve": "perfnb.tuner.figures",
    "tuned_points": "perfnb.tuner.recorded",
    "tunings": "perfnb.tuner.recorded",
}

__all__ = [
    "EXACT",
    "Candidate",
    "Description",
    "Engine",
    "Family",
    "Filter",
    "MilvusCollection",
    "PgvectorTable",
    "Pick",
    "Point",
    "QdrantCollection",
    "QdrantShard",
    "Question",
    "Setting",
    "Tuning",
    "TuningProgress",
    "curve",
    "tune",
    "tuned_points",
    "tunings",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(_LATER[name]), name)
