"""Whether a vector store or cache has the memory it needs."""

import pandas as pd

from perfnb.areas.database.vector_stores import collections
from perfnb.attribution import observed
from perfnb.attribution.objects import objects
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

ENGINES = ("redis", "qdrant", "milvus")
HOW_TO_SEE_MEMORY = "a vector store's memory: perfnb record --qdrant URL, --milvus URI or --redis URL"

# A cache that evicts is doing its work; one that evicts and answers fewer than this of its reads is too small for it.
NEARLY = 0.95

_VALUES = """
SELECT source AS engine, metric, arg_min(value, time) AS first, arg_max(value, time) AS last, max(value) AS most
FROM observed_samples WHERE source IN ('redis', 'qdrant', 'milvus') AND entity = 'server' GROUP BY source, metric
"""

_CONTAINERS = """
SELECT entity, max(CASE WHEN metric IN ('memory_bytes', 'memory_rss_bytes') THEN value END) AS used,
       max(CASE WHEN metric = 'memory_limit_bytes' THEN value END) AS "limit"
FROM observed_samples WHERE source IN ('docker', 'process') AND regexp_matches(lower(entity), 'redis|qdrant|milvus|valkey')
GROUP BY entity HAVING used IS NOT NULL AND "limit" > 0
"""


def store_memory(recording: Recording) -> pd.DataFrame:
    """Return one row per vector store or cache that was watched.

    Columns: engine, used_bytes, limit_bytes, part (of the limit; NA without one), evictions, hits, misses and
    search_ms, rejected (commands) of the time observed, eviction (policy), swapped_bytes. Containers and processes that are
    named like one stand in for engines that tell no memory. Raises NotMeasured where none was watched.
    """
    told = observed(recording).query(_VALUES)
    policies = objects(recording, "store") if recording.has("catalog") else pd.DataFrame()
    rows = [_row(engine, told[told["engine"] == engine], policies) for engine in sorted(set(told["engine"]))]
    containers = recording.query(_CONTAINERS)
    rows += [_container(each.entity, each.used, each.limit) for each in containers.itertuples(index=False)]
    if not rows:
        raise NotMeasured("no vector store was watched", hint=HOW_TO_SEE_MEMORY)
    frame = pd.DataFrame(rows)
    return frame.assign(part=frame["used_bytes"] / frame["limit_bytes"].where(frame["limit_bytes"] > 0))


def _row(engine: str, told: pd.DataFrame, policies: pd.DataFrame) -> dict[str, object]:
    values = told.set_index("metric")

    def most(*names: str) -> float:
        found = [float(values.at[name, "most"]) for name in names if name in values.index]
        return found[0] if found else float("nan")

    def grown(name: str) -> float:
        if name not in values.index:
            return float("nan")
        first, last = float(values.at[name, "first"]), float(values.at[name, "last"])
        return last - first if last >= first else last

    own = policies[policies["engine"] == engine] if len(policies) else policies
    searches, took = grown("searches"), grown("search_time_ms")
    return {
        "engine": engine,
        "used_bytes": most("memory_used_bytes", "memory_resident_bytes"),
        "limit_bytes": most("memory_limit_bytes"),
        "evictions": grown("evictions"), "hits": grown("hits"), "misses": grown("misses"),
        "rejected": grown("failed_commands"),
        "search_ms": took / searches if searches else float("nan"),
        "eviction": None if own.empty else own["eviction"].iloc[0],
    }  # fmt: skip


def _container(entity: str, used: float, limit: float) -> dict[str, object]:
    return {"engine": entity, "used_bytes": used, "limit_bytes": limit, "evictions": float("nan"), "eviction": None}


def hit_ratio(row: pd.Series) -> float:
    """Return the part of reads that found their key while observed; NaN where nothing was read."""
    reads = row["hits"] + row["misses"]
    return float(row["hits"] / reads) if reads else float("nan")


@check("vector-db-under-resourced", area="database")
def vector_db_under_resourced(
    recording: Recording, objectives: Objectives, *, least_evictions: int = 20, least_reads: int = 50
) -> Finding | Clear:
    """A vector store or cache is at its memory limit, and its users feel it (R77).

    Redis: it throws out vectors, or refuses writes (noeviction), or evicts while half of all reads miss: a cache that
    evicts and still answers is as it should be. Qdrant, Milvus and containers: nine tenths of the limit in use.

    Source: C43, C16; redis.io, key eviction
    """
    frame = store_memory(recording)
    stored = collections(recording) if recording.has("catalog") else pd.DataFrame({"engine": []})
    judged = [(row, _trouble(row, objectives, set(stored["engine"]), least_evictions, least_reads)) for _, row in frame.iterrows()]  # fmt: skip
    troubled = [(row, why, share) for row, (why, share) in judged if why]
    if not troubled:
        return Clear("; ".join(_told(row) for _, row in frame.iterrows()))
    row, why, share = max(troubled, key=lambda each: each[2])
    used = float(row["part"]) if pd.notna(row["part"]) else 1.0
    return Finding(
        title=f"{row['engine']} has too little memory: {why}",
        severity=severity(3.0 if row["engine"] == "redis" else used / objectives.value("memory_fraction"), share),
        share=share,
        symptom="memory" if row["engine"] != "redis" else "reads and writes",
        evidence=(_told(row), *((f"its searches take {row['search_ms']:,.0f} ms (mean)",) if pd.notna(row.get("search_ms")) else ())),
        remedy=_remedy(row),
        effort="medium",
        frame=frame,
    )  # fmt: skip


def _trouble(
    row: pd.Series, objectives: Objectives, with_vectors: set[str], least_evictions: int, least_reads: int
) -> tuple[str, float]:
    """Return what is wrong and the share of it; an empty text where nothing is."""
    part = float(row["part"]) if pd.notna(row["part"]) else 0.0
    if row["engine"] != "redis":
        return (f"{part:.0%} of its limit is in use", part) if part >= 0.9 else ("", 0.0)
    evictions = 0.0 if pd.isna(row["evictions"]) else float(row["evictions"])
    if evictions >= least_evictions and "redis" in with_vectors:
        return f"{evictions:,.0f} keys were thrown out, and it holds vectors", 1.0
    if row["eviction"] == "noeviction" and part >= NEARLY and (row["rejected"] or 0) > 0:
        return f"it is full and refused {row['rejected']:,.0f} commands", 1.0
    reads, found = row["hits"] + row["misses"], hit_ratio(row)
    if evictions >= least_evictions and reads >= least_reads and found < objectives.value("cache_hit_rate"):
        return (
            f"{evictions:,.0f} keys were thrown out while {1 - found:.0%} of {reads:,.0f} reads found nothing",
            1 - found,
        )
    return "", 0.0


def _told(row: pd.Series) -> str:
    used = "memory not told" if pd.isna(row["used_bytes"]) else f"{row['used_bytes'] / 2**20:,.0f} MB in use"
    limit = " without a limit" if pd.isna(row["part"]) else f", {row['part']:.0%} of its limit"
    evicted = "" if pd.isna(row["evictions"]) else f", {row['evictions']:,.0f} keys evicted"
    return f"{row['engine']}: {used}{limit}{evicted}"


def _remedy(row: pd.Series) -> str:
    if row["engine"] != "redis":
        return "Raise the container's limit, or make the vectors smaller: quantisation (scalar: a quarter), vectors or index on disk (memory-mapped), fewer dimensions."
    return "Raise maxmemory, give keys a time to live and allkeys-lfu, and keep vectors apart from a cache that may evict (noeviction)."
