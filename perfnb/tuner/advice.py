"""What a tuning tells beyond a setting: rows that go missing, indexes that are too early, too much or too little.

Source: C36-C41 and E17-E20 as corrected in perfnb.tuner.build; pgvector README, "Filtering" and the FAQ
"""

from collections.abc import Iterator, Sequence

from perfnb.tuner.build import EXACT_UP_TO, build_bytes, judged
from perfnb.tuner.engines.base import Description, as_percent
from perfnb.tuner.tuning import Candidate, Pick, Point

GROWN = 2.0
SELECTIVE = 0.05


def advice(
    described: Description, points: Sequence[Point], picks: Sequence[Pick], k: int, candidates: Sequence[Candidate] = ()
) -> list[str]:
    """Return sentences, each with the numbers it rests on."""
    return [
        *_limit(described, k),
        *_missing(points),
        *_filters(picks, described.engine),
        *_size(described),
        *_build(described),
        *_rebuilt(described, points, candidates),
        *_candidates(picks),
    ]


def _limit(described: Description, k: int) -> Iterator[str]:
    ef = described.now.get("hnsw.ef_search")
    if ef and int(ef) < k and described.now.get("hnsw.iterative_scan", "off") == "off":
        yield f"hnsw.ef_search is {ef}: a search with LIMIT {k} returns {ef} rows at most; set it to {k} or more"


def _missing(points: Sequence[Point]) -> Iterator[str]:
    short = [each for each in points if each.missing > 0.01 and not each.candidate and each.part == "choosing"]
    worst = max(short, key=lambda each: each.missing, default=None)
    if worst:
        part = f"{worst.missing:.0%} of searches returned fewer rows than there are ({worst.rows:.1f} at the mean)"
        yield f"{worst.filter}, {worst.setting}: {part}: an index applies the filter after it chose its candidates"


def _filters(picks: Sequence[Pick], engine: str) -> Iterator[str]:
    by = "a btree on the filter's column" if engine.startswith("pgvector") else "an index on the filter's field"
    for pick in picks:
        if pick.candidate or pick.point.selectivity >= 1:
            continue
        if not pick.settings and pick.point.selectivity <= SELECTIVE:
            share = as_percent(pick.point.selectivity)
            yield f"{pick.filter}: only {share} of the rows are left, so {by} and an exact scan of these is best"
        elif pick.settings.get("hnsw.iterative_scan") == "relaxed_order":
            yield f"{pick.filter}: rows come nearly in order with relaxed_order; sort them again in an outer query (ORDER BY distance + 0)"


def _size(described: Description) -> Iterator[str]:
    if described.index and 0 < described.rows < EXACT_UP_TO:
        yield f"{described.rows:,} rows: an exact scan is fast up to about {EXACT_UP_TO:,} and misses nothing"
    if not described.index and described.rows > EXACT_UP_TO:
        yield f"{described.rows:,} rows and no vector index: every search reads them all; try candidates=('rebuilt', 'halfvec')"
    for why, number in described.unindexed.items():
        yield f"{number:,} rows are in no vector index: their vector is {why}"


def _build(described: Description) -> Iterator[str]:
    if not described.index:
        return
    method = described.index.split()[0]
    yield from (str(each) for each in judged(method, described.build, described.rows))
    rows = described.index_rows
    if rows is not None and described.rows > 1000 and rows * GROWN < described.rows:
        yield (
            f"the index held {rows:,} rows when it was last counted, the table holds {described.rows:,}: built before the data,"
            " its lists or graph fit other rows; REINDEX CONCURRENTLY, or measure candidates=('rebuilt',)"
        )
    if method == "hnsw" and described.engine.startswith("pgvector"):
        need = build_bytes(described.rows, described.dimensions) / 1024**2
        yield f"building it anew takes about {need:,.0f} MB of maintenance_work_mem to stay in memory [pgvector issue 745]"


def _rebuilt(described: Description, points: Sequence[Point], candidates: Sequence[Candidate]) -> Iterator[str]:
    """Compare the index with one like it that was built after the data, where that one holds all rows, too."""
    if not any(each.name == "rebuilt" and each.copied_rows >= described.rows for each in candidates):
        return
    whole = [each for each in points if each.filter == "all rows" and each.parameter]
    now = {(each.setting, each.part): each for each in whole if not each.candidate}
    for anew in (each for each in whole if each.candidate == "rebuilt"):
        old = now.get((anew.setting, anew.part))
        if old and old.recall_high < anew.recall_low:
            yield f"built anew, the same index has a recall of {anew.recall:.3f} at {anew.setting}, now {old.recall:.3f}: REINDEX CONCURRENTLY"
            return


def _candidates(picks: Sequence[Pick]) -> Iterator[str]:
    """Name the fastest index for each filter, where one was measured that beats the others on the same copy."""
    for name in dict.fromkeys(pick.filter for pick in picks):
        tried = [each for each in picks if each.filter == name and each.candidate and each.is_met and each.point.p50_ms]
        if len(tried) > 1:
            best = min(tried, key=lambda each: each.point.p50_ms or 0)
            yield f"{name}: of the indexes tried on the copy, {best.candidate} is fastest, {best.point.p50_ms:.2f} ms at a recall of {best.point.recall:.3f}"
