"""How a vector index should be built: parameters and memory for a number of rows.

These are starting points; what recall they give on the user's vectors is for the tuner to measure. A fixed 100 lists for
up to 100,000 rows, thousands for more and "HNSW from a million rows on", as is often advised, are not what pgvector says.

Source: pgvector README (lists, probes, maintenance_work_mem); C36-C41, E17-E20, corrected; Milvus performance FAQ (nlist
per segment); J. Katz in pgvector issue 745 (memory of an HNSW build)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

EXACT_UP_TO = 10_000
MILLION = 1_000_000
BUILD_OVERHEAD = 1.3
OFF_BY = 2.0


def lists_for(rows: int) -> int:
    """Return pgvector's IVFFlat lists for ``rows``: a thousandth of them up to a million, the square root above."""
    return max(1, round(rows / 1000 if rows <= MILLION else math.sqrt(rows)))


def probes_for(lists: int) -> int:
    """Return the IVFFlat probes to start from: the square root of the lists."""
    return max(1, round(math.sqrt(lists)))


def nlist_for(rows: int) -> int:
    """Return Milvus' nlist for a segment of ``rows``: four times the square root, 1 to 65,536."""
    return min(65_536, max(1, round(4 * math.sqrt(rows))))


def build_bytes(rows: int, dimensions: int, *, bytes_each: int = 4) -> int:
    """Return about how much memory an HNSW build takes to stay in memory: against ``maintenance_work_mem``."""
    return round(rows * (bytes_each * dimensions + 8) * BUILD_OVERHEAD)


@dataclass(frozen=True)
class Finding:
    """What is off about how an index was built, and by what it was judged."""

    text: str
    source: str

    def __str__(self) -> str:
        return f"{self.text} [{self.source}]"


def judged(method: str, build: Mapping[str, int], rows: int) -> list[Finding]:
    """Return what is off in an index' build parameters for ``rows``; nothing where it is within a factor of two."""
    found = []
    if method == "ivfflat" and rows:
        lists, wanted = build.get("lists", 100), lists_for(rows)
        if not wanted / OFF_BY <= lists <= wanted * OFF_BY:
            found.append(
                Finding(
                    f"{lists} lists for {rows:,} rows: about {wanted} are advised", "pgvector README; E18 corrected"
                )
            )
    m, ef = build.get("m"), build.get("ef_construction")
    if method == "hnsw" and m and ef and ef < 2 * m:
        found.append(Finding(f"ef_construction {ef} is below twice m ({m}): the graph is poor", "pgvector README; E20"))
    if method == "ivf" and rows and (nlist := build.get("nlist")):
        wanted = nlist_for(rows)
        if not wanted / (2 * OFF_BY) <= nlist <= wanted * OFF_BY:
            found.append(
                Finding(
                    f"nlist {nlist} for {rows:,} rows: √n to 4·√n a segment, {wanted // 4} to {wanted}",
                    "Milvus FAQ; C37",
                )
            )
    return found
