"""Sorts and hashes that fit into memory instead of going to temporary files."""

import pandas as pd

from perfnb.errors import NotMeasured
from perfnb.estimates.change import Parameter, Prediction, change
from perfnb.estimates.statements import brief, reading_statements
from perfnb.finding import Estimate
from perfnb.recording import Recording

BLOCK_BYTES = 8192
IN_MEMORY = (1.0, 4.0)
"""Bytes that a row in a sort or hash takes in memory for each it takes on disk: headers,
pointers and alignment (tuplesort.c, nodeHash.c)."""
OF_THE_TIME = 0.5
"""Part of a spilling statement's time that its files take at most, where the server does not measure it."""


@change(
    "work_mem",
    title="Give sorts and hashes more memory",
    causes=("sort-spill",),
    parameters=(
        Parameter("megabytes", "work_mem", 64, "MB", 1, 4096, 1),
        Parameter("statement", "Statement (queryid)", None),
    ),
)
def work_mem(recording: Recording, *, megabytes: int, statement: str | None) -> Prediction:
    """Return what a larger ``work_mem`` would do to what statements write to temporary files, and to their time.

    Source: C26; PostgreSQL manual, work_mem (a limit for each sort and hash of each process, not for a statement)
    """
    frame = reading_statements(recording)
    spilling = frame[frame["temp_blocks_written"] > 0]
    spilling = spilling[spilling["queryid"] == statement] if statement else spilling
    if spilling.empty:
        raise NotMeasured(f"none of {len(frame)} statements writes temporary files", hint="record while it does")
    written = spilling["temp_blocks_written"] * BLOCK_BYTES / spilling["calls"]
    limit = megabytes * 1024**2
    low_fits, high_fits = (written * times <= limit for times in IN_MEMORY)
    calls = spilling["calls"].sum()
    mean = float(spilling["total_exec_time_ms"].sum() / calls)
    least, most = _saved(spilling, low_fits, high_fits)
    left = [float((written * spilling["calls"])[~fits].sum() / calls) for fits in (low_fits, high_fits)]
    before = float((written * spilling["calls"]).sum() / calls)
    told = (
        "the server measured how long its files took"
        if _is_timed(spilling)
        else f"its files took none to {OF_THE_TIME:.0%} of the time: the server does not measure it (track_io_timing)"
    )
    assumptions = (
        f"a row takes {IN_MEMORY[0]:g} to {IN_MEMORY[1]:g} times as much memory as it takes on disk",
        told,
        "one sort or hash of a statement writes it all, each time as much",
    )
    not_modelled = (
        f"memory: each sort and hash of each session may take {megabytes} MB, and the server may run out of it",
        "another plan, which more memory may make cheaper",
    )
    effects = (
        Estimate(
            "statement_ms",
            mean,
            max(0.0, float(mean - most / calls)),
            float(mean - least / calls),
            assumptions,
            not_modelled,
        ),
        Estimate("temporary_bytes", before, left[0], left[1], assumptions, not_modelled),
    )
    return Prediction(
        effects,
        f"{len(spilling)} of {len(frame)} statements write temporary files, {before / 1024**2:,.1f} MiB each time on average: {brief(spilling['query'].iloc[0])}",
        assumptions,
        not_modelled,
        spilling[["queryid", "query", "calls", "temp_blocks_written", "mean_exec_time_ms"]].head(50),
        setting={"statement": statement},
    )


def _saved(spilling: pd.DataFrame, low_fits: "pd.Series[bool]", high_fits: "pd.Series[bool]") -> tuple[float, float]:
    """Return the milliseconds saved in all, at least and at most."""
    if _is_timed(spilling):
        files = spilling["temp_block_time_ms"].fillna(0.0).clip(upper=spilling["total_exec_time_ms"])
        return float(files[high_fits].sum()), float(files[low_fits].sum())
    return 0.0, float((OF_THE_TIME * spilling["total_exec_time_ms"])[low_fits].sum())


def _is_timed(spilling: pd.DataFrame) -> bool:
    return bool(spilling["temp_block_time_ms"].fillna(0.0).sum() > 0)
