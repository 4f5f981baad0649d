"""Plans that go wrong: estimates of rows that are far off, and sorts and hashes that do not fit into memory."""

import pandas as pd

from perfnb.areas.database.maintenance_statements import quoted
from perfnb.areas.database.row_estimates import (
    AGES,
    expected_rows,
    plans,
    poor_estimates,
    reading,
    share_of,
    statistics_age,
)
from perfnb.areas.database.vector_stores import setting_bytes
from perfnb.areas.database.workload import brief, felt_severity, of_requests, shown, workload
from perfnb.attribution.shapes import CHANGES, shape_of
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.plans import spills
from perfnb.recording import Recording

MIB = 2**20
IN_MEMORY = (1, 4)  # bytes a row takes in a sort or hash for each it takes in a temporary file: headers, pointers
LARGE_BYTES = 256 * MIB
HOW_TO_SEE_ESTIMATES = (
    "tables and statements of Postgres: perfnb record --dsn DSN; or executed plans: perfnb import PLAN.txt"
)
HOW_TO_SEE_SPILLS = "statements of Postgres, seen twice (--dsn DSN), or its log with log_temp_files: perfnb import LOG"


@check("stale-statistics", area="database")
def stale_statistics(
    recording: Recording,
    objectives: Objectives,
    *,
    min_changed: float = 0.5,
    least_rows: float = 1000,
    least_ms: float = 1,
    min_share: float = 0.1,
) -> Finding | Clear:
    """The planner's idea of a table is far from what is in it, and statements on it take much of the time (R60).

    Told by executed plans, or by tables that changed by half or were never analyzed and that autovacuum will not see
    to. One that it will see to within its naptime is left alone, and so are statements under a millisecond.

    Source: C26, E12; dalibo/pev2, src/node.ts (factor 10); PostgreSQL manual, Automatic Vacuuming, Updating Planner Statistics
    """
    limit = objectives["row_estimate_factor"]
    off = poor_estimates(recording, factor=float(limit.value), least_rows=least_rows)
    share = share_of(recording, off) if len(off) else 0.0
    ages = _ages(recording)
    if share >= min_share:
        return _poor(off, ages, share, limit.miss(float(off["times"].iloc[0])), min_changed)
    old = ages[_is_old(ages, min_changed, least_rows)]
    if old.empty:
        return Clear(_examined(recording, ages, off))
    try:
        statements = reading(recording, old["name"], least_ms=least_ms)
    except NotMeasured:
        statements = pd.DataFrame({"share": []})
    share = min(1.0, float(statements["share"].sum()))
    if share < min_share:
        return Clear(f"{len(old)} of {len(ages)} tables have old statistics; statements of {least_ms:g} ms and more on them take {share:.0%} of the database's time")  # fmt: skip
    told = expected_rows(recording, statements, factor=float(limit.value), least=100)
    return _old(old, statements, share, told)


def _ages(recording: Recording) -> pd.DataFrame:
    try:
        return statistics_age(recording)
    except NotMeasured:
        if plans(recording).empty:
            raise NotMeasured("neither tables nor executed plans", hint=HOW_TO_SEE_ESTIMATES) from None
    return pd.DataFrame(columns=AGES)


def _is_old(ages: pd.DataFrame, min_changed: float, least_rows: float) -> "pd.Series[bool]":
    is_coming, never = ages["is_coming"].astype(bool), ages["never_analyzed"].astype(bool)
    changed = (ages["changed_part"].astype(float) >= min_changed) | never
    return (ages["rows"].astype(float) >= least_rows) & changed & ~is_coming


def _examined(recording: Recording, ages: pd.DataFrame, off: pd.DataFrame) -> str:
    known = plans(recording)
    executed = sum(each.is_executed for each in known["plan"])
    return f"0 of {len(ages)} tables have old statistics that autovacuum does not see to; {off['query'].nunique(dropna=False)} of {executed} executed plans estimate a table's rows badly"


def _poor(off: pd.DataFrame, ages: pd.DataFrame, share: float, miss: float, min_changed: float) -> Finding:
    """Return the finding by executed plans; ANALYZE is advised only where it was not just run."""
    worst = off.iloc[0]
    state = ages[[str(name).rpartition(".")[2] == worst["table"].rpartition(".")[2] for name in ages["name"]]]
    is_fresh = len(state) > 0 and not state["never_analyzed"].any() and float(state["changed_part"].max()) < min_changed
    several = f"{off['table'].nunique()} tables; the worst, " if off["table"].nunique() > 1 else ""
    return Finding(
        title=f"The planner misjudges {several}{worst['table']}, by {worst['times']:,.0f} times",
        severity=severity(miss, share),
        share=share,
        symptom="database time",
        evidence=(
            f"{worst['table']}: {worst['words']} (10 times is where plans begin to go wrong)",
            *([f"in {brief(worst['query'])}"] if worst["query"] else []),
            *(_age_in_words(row) for row in state.to_dict("records")),
            f"statements with such plans take {share:.0%} of the database's time",
        ),
        remedy=_of_values(worst["table"]) if is_fresh else _analyze([str(worst["table"])]),
        effort="medium" if is_fresh else "low",
        frame=off.head(20),
        figure="top_statements",
    )


def _old(old: pd.DataFrame, statements: pd.DataFrame, share: float, told: list[str]) -> Finding:
    """Return the finding by what the tables' counters tell; how much of the time it explains is not known."""
    worst = old.sort_values("rows", ascending=False).iloc[0]
    first = statements.sort_values("total_exec_time_ms", ascending=False).iloc[0]
    how = "was never analyzed" if worst["never_analyzed"] else f"changed by {worst['changed_part']:.0%} since"
    return Finding(
        title=f"Statistics are old: {worst['name']} ({worst['rows']:,.0f} rows) {how}{'' if worst['never_analyzed'] else ' its last ANALYZE'}",
        severity="high" if told and share >= 0.25 else severity(2, share),
        share=share,
        symptom="database time",
        evidence=(
            *(_age_in_words(row) for row in old.nlargest(3, "rows").to_dict("records")),
            f"statements on {'it' if len(old) == 1 else 'them'} take up to {share:.0%} of the database's time, most of all {brief(first['statement'])}",
            *told[:2],
        ),
        remedy=_analyze([str(name) for name in old["name"].head(5)]),
        effort="low",
        frame=old.head(20).reset_index(drop=True),
        figure="top_statements",
    )


def _age_in_words(row: dict[str, object]) -> str:
    due = row["due"]
    auto = "autovacuum does not analyze it" if pd.isna(due) else f"autovacuum analyzes it at {due:,.0f} changes"
    if row["never_analyzed"]:
        return f"{row['name']}: {row['rows']:,.0f} rows, never analyzed; {auto}"
    if pd.isna(row["changed"]):
        return f"{row['name']}: {row['rows']:,.0f} rows; changes are not counted; {auto}"
    return f"{row['name']}: {row['changed']:,.0f} changes in {row['rows']:,.0f} rows since its last ANALYZE; {auto}"


def _analyze(names: list[str]) -> str:
    statements = " ".join(f"ANALYZE {quoted(name)};" for name in names)
    return f"{statements} It takes seconds and blocks nothing. Then see to it that autovacuum does it: switched on for the table, autovacuum_analyze_scale_factor of 0.02 for a large one, and ANALYZE at the end of each bulk load."


def _of_values(table: str) -> str:
    return f"{table} was analyzed since it last changed much, so ANALYZE again would give the same. Columns that depend on each other need CREATE STATISTICS (dependencies, ndistinct, mcv); rare values a larger statistics target (ALTER TABLE … ALTER COLUMN … SET STATISTICS 1000); a condition on an expression an index or statistics on that expression. ANALYZE after that."


@check("sort-spill", area="database")
def sort_spill(
    recording: Recording,
    objectives: Objectives,
    *,
    least_bytes: float = MIB,
    least_calls: int = 2,
    min_share: float = 0.05,
) -> Finding | Clear:
    """Sorts and hashes of a statement do not fit into work_mem and go through temporary files (R99).

    The share is that of the statements that spill: what their files alone take is told where the server measures it.
    Index builds and other maintenance are left out, they go by maintenance_work_mem.

    Source: PostgreSQL manual, work_mem, hash_mem_multiplier, log_temp_files, pg_stat_statements (temp_blks_written)
    """
    frame = _with_logged(recording, workload(recording))
    known = frame[frame["temp_bytes_per_call"].notna()]
    if known.empty:
        raise NotMeasured("temporary files of statements were not counted", hint=HOW_TO_SEE_SPILLS)
    judged = known[known["kind"].isin(("select", *CHANGES, "hidden")) & (known["calls"] >= least_calls)]
    spilling = judged[judged["temp_bytes_per_call"] >= least_bytes]
    share = min(1.0, float(spilling["share"].sum()))
    if spilling.empty or share < min_share:
        return Clear(f"{len(spilling)} of {len(judged)} statements write {least_bytes / MIB:.0f} MiB or more to temporary files a call, and take {share:.0%} of the database's time")  # fmt: skip
    worst = spilling.assign(written=spilling["temp_bytes_per_call"] * spilling["calls"]).nlargest(1, "written").iloc[0]
    has, (low, high) = setting_bytes(recording, "work_mem"), _needed(recording, worst)
    miss = worst["temp_bytes_per_call"] / has if has == has else 2.0
    return Finding(
        title=f"{_spilling(spilling)} {_mib(worst['temp_bytes_per_call'])} to temporary files a call: {brief(worst['statement'], 60)}",
        severity=felt_severity(min(max(miss, 1.1), 5), share, float(spilling["share_of_wait"].sum(min_count=1))),
        share=share,
        symptom="database time",
        evidence=(
            f"{worst['calls']:.0f} calls, mean {worst['mean_exec_time_ms']:.0f} ms; those that spill take {share:.0%} of the database's time",
            f"work_mem is {_mib(has) if has == has else 'not known'}; about {_mib(low)} to {_mib(high)} would keep it in memory",
            *of_requests(worst),
        ),
        remedy=_remedy(worst, low, high),
        effort="low" if low < LARGE_BYTES else "medium",
        frame=shown(spilling, "temp_bytes_per_call"),
        figure="top_statements",
    )


def _with_logged(recording: Recording, frame: pd.DataFrame) -> pd.DataFrame:
    """Fill in, where the server's counters do not tell, what its log says of temporary files."""
    logged = recording.query(
        "SELECT attributes, value FROM samples WHERE source = 'postgres_logs' AND metric = 'temp_file_bytes'"
    )
    if logged.empty:
        return frame
    told = [shape_of(_statement(text)).key for text in logged["attributes"]]
    by_shape = logged["value"].groupby(pd.Series(told, logged.index)).sum()
    return frame.assign(
        temp_bytes_per_call=frame["temp_bytes_per_call"]
        .astype(float)
        .fillna(frame["shape"].map(by_shape) / frame["calls"])
    )


def _statement(attributes: str | None) -> str:
    import orjson

    return str((orjson.loads(attributes) if attributes else {}).get("statement", ""))


def _needed(recording: Recording, worst: pd.Series) -> tuple[float, float]:
    """Return how much work_mem it would take: by an executed plan of the statement, else by what it writes."""
    known, written = plans(recording), float(worst["temp_bytes_per_call"])
    ids = worst["queryids"] if isinstance(worst["queryids"], tuple) else ()
    same = [row.queryid in ids or shape_of(row.query or "").key == worst["shape"] for row in known.itertuples()]
    needed = [each.needed_bytes for plan in known.loc[same, "plan"] for each in spills(plan) if each.needed_bytes]
    if needed:
        return 0.7 * max(needed), 1.4 * max(needed)
    return IN_MEMORY[0] * written, IN_MEMORY[1] * written


def _remedy(worst: pd.Series, low: float, high: float) -> str:
    less = "sort and group fewer or narrower rows (no SELECT *, filter before joining), or give ORDER BY … LIMIT an index in that order"
    if low >= LARGE_BYTES:
        return f"No work_mem a busy server can spare would hold it: {less}. A report may get its own: SET LOCAL work_mem in its transaction."
    who = f'ALTER ROLE "{worst["role"]}" SET' if isinstance(worst["role"], str) and worst["role"] else "SET LOCAL"
    size = 2 ** max(0, int(high / MIB - 1).bit_length())
    return f"{who} work_mem = '{min(size, 2 * LARGE_BYTES // MIB)}MB' for what runs it, not for the whole server: each sort and hash of each process may take it, so keep times sessions below what memory is free. Or {less}."


def _spilling(found: pd.DataFrame) -> str:
    return "A statement writes" if len(found) == 1 else f"{len(found)} statements write; one of them"


def _mib(count: float) -> str:
    return f"{count / MIB:,.0f} MiB" if count >= 10 * MIB else f"{count / MIB:,.1f} MiB"
