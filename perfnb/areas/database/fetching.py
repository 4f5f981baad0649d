"""Statements that bring far more to the app than an answer needs."""

import pandas as pd

from perfnb.areas.database.relations import relations
from perfnb.areas.database.workload import brief, felt_severity, of_requests, shown, workload
from perfnb.attribution import prepare
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding, Severity
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording
from perfnb.sql import parsed

MB = 1_000_000


@check("over-fetching", area="database")
def over_fetching(
    recording: Recording,
    objectives: Objectives,
    *,
    max_rows: float = 1000,
    max_bytes: float = MB,
    per_request: float = 0.2,
    least: int = 5,
    min_share: float = 0.1,
    min_share_of_wait: float = 0.05,
) -> Finding | Clear:
    """A statement of every request brings thousands of rows or megabytes to the app (R59).

    Widths are the catalog's averages, so bytes are stored ones, about. Bulk jobs are left out: COPY, cursors, and what
    runs less often than every fifth request; so is a statement that answers with aggregates.

    Source: E11; PostgreSQL manual, pg_stat_statements (rows), pg_stats (avg_width)
    """
    frame = workload(recording)
    judged = _fetched(recording, frame[(frame["kind"] == "select") & (frame["calls"] >= least)])
    if judged["rows_per_call"].isna().all():
        raise NotMeasured("rows are not counted", hint="rows per statement: perfnb record --dsn DSN")
    asked = judged["calls_per_request"].isna() | (judged["calls_per_request"] >= per_request)
    much = (judged["rows_per_call"] >= max_rows) | (judged["bytes_per_call"] >= max_bytes)
    felt = (judged["share"] >= min_share) | (judged["share_of_wait"] >= min_share_of_wait)
    found = judged[asked & much & felt]
    if found.empty:
        return Clear(
            f"{len(judged)} selects; the largest answers with {judged['rows_per_call'].max():.0f} rows a call, from {max_rows:.0f} rows or {max_bytes / MB:g} MB on it is much"
        )
    first = found.iloc[0]
    share = float(min(1.0, found["share"].sum()))
    size = "" if pd.isna(first["bytes_per_call"]) else f", about {first['bytes_per_call'] / MB:.2g} MB,"
    times = max(first["rows_per_call"] / max_rows, _number(first["bytes_per_call"]) / max_bytes)
    return Finding(
        title=f"A statement fetches {first['rows_per_call']:.0f} rows{size} a call: {brief(first['statement'], 60)}",
        severity=_severity(objectives, first, times * 1.1, share),
        share=share,
        symptom="database time",
        evidence=(
            f"{first['calls']:.0f} calls, {first['rows_per_call']:.0f} rows{size} each, {first['mean_exec_time_ms']:.1f} ms, {first['share']:.0%} of the database's time",
            first["why"],
            *_answered(recording, _number(first["bytes_per_call"]) * _number(first["calls_per_request"])),
            *of_requests(first),
        ),
        remedy="Fetch what is shown: LIMIT with a keyset (WHERE id > $1 ORDER BY id LIMIT 50), the columns that are used instead of *, and sums in the database (count, sum) instead of in the app.",
        effort="low",
        frame=shown(found, "bytes_per_call", "why"),
        figure="top_statements",
    )


def _severity(objectives: Objectives, row: pd.Series, miss: float, share: float) -> Severity:
    """Return how severe it is; where the statement is slow by it, whatever part of the users' wait that is."""
    if objectives["slow_statement_ms"].is_missed(row["mean_exec_time_ms"]):
        return severity(miss, share)
    return felt_severity(miss, share, row["share_of_wait"])


def _fetched(recording: Recording, frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` with bytes_per_call (NA where columns are not known) and why so much comes."""
    known = relations(recording)
    widths, reasons = [], []
    for text in frame["statement"]:
        statement = parsed(text)
        widths.append(None if statement is None else known.row_bytes(statement))
        reasons.append(_reason(statement.selects_all, statement.has_limit) if statement else "its text was not read")
    width = pd.Series(widths, frame.index, dtype=float)
    return frame.assign(bytes_per_call=width * frame["rows_per_call"], why=reasons)


def _reason(selects_all: bool, has_limit: bool) -> str:
    limit = "its LIMIT lets so many through" if has_limit else "it has no LIMIT"
    return f"{limit}, and it selects every column" if selects_all else limit


_ANSWER_BYTES = "SELECT median(response_bytes) AS bytes FROM user_requests WHERE response_bytes IS NOT NULL"


def _answered(recording: Recording, fetched_bytes: float) -> tuple[str, ...]:
    answer = prepare(recording).query(_ANSWER_BYTES)["bytes"].iloc[0]
    if pd.isna(answer) or fetched_bytes < 10 * answer:
        return ()
    return (f"a request fetches {fetched_bytes / MB:.2g} MB by it and answers with {answer / 1000:.1f} kB (median)",)


def _number(value: float) -> float:
    return 0.0 if pd.isna(value) else float(value)
