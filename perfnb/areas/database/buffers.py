"""Is what statements read found in shared buffers, and if not, do they wait for it?"""

import pandas as pd

from perfnb.areas.database.workload import BLOCK_BYTES, brief, running, workload
from perfnb.attribution import observed
from perfnb.attribution.objects import objects
from perfnb.attribution.observed import trial_windows
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

HOW_TO_SEE_SERVER = "the server's counters and sessions: perfnb record --dsn DSN"

_COUNTERS = """
SELECT entity, metric, time, value FROM observed_samples
WHERE source = 'postgres' AND metric IN ('blocks_read', 'blocks_hit', 'block_read_time_ms') ORDER BY entity, metric, time
"""


def cache_over_time(recording: Recording) -> pd.DataFrame:
    """Return, between every two readings of the server's counters, what was found in shared buffers and what was not.

    Columns: time (UTC, the later reading), database, seconds, blocks_hit, blocks_read, block_read_time_ms (NA where
    track_io_timing is off), hit_ratio (NA where nothing was read). Readings around a reset or a trial are left out.
    """
    rows = observed(recording).query(_COUNTERS)
    if rows.empty:
        raise NotMeasured("no counters of the server", hint=HOW_TO_SEE_SERVER)
    columns = ["blocks_hit", "blocks_read", "block_read_time_ms"]
    wide = rows.pivot_table(index=["entity", "time"], columns="metric", values="value").reindex(columns=columns)
    added = wide.groupby(level="entity").diff()
    frame = added.reset_index().assign(before=wide.reset_index().groupby("entity")["time"].shift().to_numpy())
    is_whole = frame["blocks_hit"].ge(0) & frame["blocks_read"].ge(0)
    for begin, end in trial_windows(recording).values():
        is_whole &= ~((frame["before"] < end) & (frame["time"] > begin))
    frame = frame[is_whole]
    blocks = frame["blocks_hit"] + frame["blocks_read"]
    return pd.DataFrame(
        {
            "time": pd.to_datetime(frame["time"], unit="ns", utc=True),
            "database": frame["entity"].str.removeprefix("database "),
            "seconds": (frame["time"] - frame["before"]) / 1e9,
            **{name: frame[name] for name in columns},
            "hit_ratio": (frame["blocks_hit"] / blocks.where(blocks > 0)),
        }
    ).reset_index(drop=True)


@check("low-cache-hit-ratio", area="database")
def low_cache_hit_ratio(
    recording: Recording, objectives: Objectives, *, reads_per_s: float = 200, min_share: float = 0.05
) -> Finding | Clear:
    """Blocks are read from outside shared buffers again and again, and statements wait for it (R61).

    Judged on what was read while observed: a ratio since the last reset hardly moves. Reading each block once is
    warming up, so more must be read than shared buffers hold or the database has. A read is not a disk's: the
    operating system may have had it, so it matters only by the time statements wait for it, from track_io_timing or
    from sessions that were seen to wait for I/O. The share is of the blocks asked for.

    Source: C15; PostgreSQL manual, pg_stat_database (blks_read, blk_read_time)
    """
    target = objectives["buffer_hit_ratio"]
    seen = cache_over_time(recording)
    each = seen.groupby("database")[["seconds", "blocks_hit", "blocks_read"]].sum()
    each["blocks"] = each["blocks_hit"] + each["blocks_read"]
    each["hit_ratio"] = each["blocks_hit"] / each["blocks"].where(each["blocks"] > 0)
    each["reads_per_s"] = each["blocks_read"] / each["seconds"].where(each["seconds"] > 0)
    each = each[each["blocks"] > 0]  # counters reach the server's view late: a short recording may see none move
    if each.empty:
        raise NotMeasured(
            "nothing was read while observed",
            hint="reads of blocks: perfnb record --dsn DSN while the database is used",
        )
    worst = each.loc[each["blocks_read"].idxmax()]
    database, ratio, read = str(worst.name), float(worst["hit_ratio"]), float(worst["blocks_read"])
    waited, how = _waits_for_reads(recording)
    size = _fits(recording, database)
    said = f"{worst['blocks']:.0f} blocks asked for, {ratio:.1%} found in shared buffers, {_number(worst['reads_per_s']):.0f} read a second"
    if not target.is_missed(ratio) or worst["reads_per_s"] < reads_per_s:
        return Clear(f"{said}; objective {target.value:.0%}, looked at from {reads_per_s:.0f} reads a second on")
    if read * BLOCK_BYTES <= size:
        return Clear(f"{said}; no more than what warming up reads")
    if waited < min_share:
        return Clear(f"{said}; {how}")
    return Finding(
        title=f"{1 - ratio:.0%} of the blocks come from outside shared buffers, {worst['reads_per_s']:.0f} a second",
        severity=severity((1 - ratio) / (1 - float(target.value)) / 2, 1 - ratio),
        share=1 - ratio,
        symptom="block reads",
        evidence=(
            f"{said} in {worst['seconds']:.0f} s; objective {target.value:.0%} (C15)",
            how,
            *_readers(recording),
        ),
        remedy="See first whether the statements that read most need to: an index, fewer rows, fewer columns. Then give the server memory: shared_buffers of about a quarter of it (a restart), and a database that fits.",
        effort="medium",
        frame=_top_readers(recording),
        figure="cache_over_time",
    )  # fmt: skip


def _waits_for_reads(recording: Recording) -> tuple[float, str]:
    """Return the part of the statements' time that went into reading blocks, and how that is known."""
    try:
        frame = workload(recording)
        total, timed = float(frame["total_exec_time_ms"].sum()), frame["block_read_time_ms"].dropna()
        if len(timed) and total > 0:
            part = float(timed.sum()) / total
            return part, f"statements spend {part:.0%} of their time reading blocks (track_io_timing)"
    except NotMeasured:
        pass  # then sessions alone can tell
    looks = running(recording)
    if looks.empty:
        return (
            0.0,
            "whether statements wait for reads is not known: track_io_timing is off, and no session was seen at work",
        )
    part = float(looks["waits_for"].eq("IO").mean())
    return part, f"of {len(looks)} looks at sessions at work {part:.0%} waited for I/O"


def _fits(recording: Recording, database: str) -> float:
    """Return the bytes that warming up may read: shared buffers, or the database where it is smaller; 0 if unknown."""
    sizes = [_setting(recording, "shared_buffers")]
    databases = objects(recording, "database")
    sizes += [float(size) for size in databases.loc[databases["name"] == database, "bytes"].dropna()]
    return min((size for size in sizes if size > 0), default=0.0)


_UNITS = {"8kB": 8192, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "B": 1}


def _setting(recording: Recording, name: str) -> float:
    settings = objects(recording, "setting")
    row = settings[settings["name"] == name]
    if row.empty or not str(row["value"].iloc[0]).isdigit():
        return 0.0
    return float(row["value"].iloc[0]) * _UNITS.get(str(row["unit"].iloc[0]), 1)


def _top_readers(recording: Recording) -> pd.DataFrame | None:
    try:
        frame = workload(recording)
    except NotMeasured:
        return None
    frame = frame[frame["blocks_read"] > 0].astype({"blocks_read": float}).nlargest(10, "blocks_read")
    shown = frame[["statement", "calls", "blocks_read", "blocks_per_call", "block_read_time_ms", "mean_exec_time_ms"]]
    return shown.assign(statement=[brief(text, 200) for text in shown["statement"]]).reset_index(drop=True)


def _readers(recording: Recording) -> tuple[str, ...]:
    frame = _top_readers(recording)
    if frame is None or frame.empty:
        return ()
    total = float(workload(recording)["blocks_read"].sum())
    first = frame.iloc[0]
    return (f"{first['blocks_read'] / total:.0%} of them are read by: {brief(str(first['statement']))}",)


def _number(value: float) -> float:
    return 0.0 if pd.isna(value) else float(value)
