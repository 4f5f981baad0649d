"""Does vacuum keep up: rows that are dead and not cleared away, autovacuum switched off, transaction ids that run out."""

from typing import Any

import pandas as pd

from perfnb.areas.database.index_inventory import MB, OTHERS, database_bytes
from perfnb.areas.database.maintenance_statements import enable_autovacuum, vacuum, vacuum_sooner
from perfnb.attribution import observed
from perfnb.attribution.objects import grown, objects, require_objects
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

HOW_TO_SEE_TABLES = "the catalog of Postgres: perfnb record --dsn DSN"
DAY_NS = 86_400 * 10**9

# What the server does where no setting was seen; PostgreSQL manual, Automatic Vacuuming.
DEFAULTS = {
    "autovacuum_vacuum_threshold": 50.0,
    "autovacuum_vacuum_scale_factor": 0.2,
    "autovacuum_naptime": 60.0,
    "autovacuum_freeze_max_age": 200e6,
    "autovacuum_multixact_freeze_max_age": 400e6,
}
IDS = 2**31

# What a session holds open for so many transactions keeps dead rows in place.
OLD_TRANSACTIONS = 1000


def tables(recording: Recording) -> pd.DataFrame:
    """Return one row per table of the app, largest first, with what vacuum has to know.

    Columns: those of the catalog's kind ``table`` and each counter's growth; ``rows`` (live ones, as counted or as
    estimated: counts begin anew after a crash); ``autovacuum`` (false where it is off for
    this table), ``dead_part`` (of its rows), ``due`` (dead rows at which autovacuum comes), ``times_due`` (dead rows by
    that), ``dead_bytes`` (its heap's bytes by that part), ``free_bytes`` (by the estimate of bloat), ``bytes_share``.
    """
    require_objects(recording, "table")
    frame: pd.DataFrame = recording.derived("tables to maintain", lambda: _tables(recording))
    return frame.copy(deep=False)


def _tables(recording: Recording) -> pd.DataFrame:
    frame = grown(recording, "table")
    if frame.empty:
        raise NotMeasured("no table was seen", hint=HOW_TO_SEE_TABLES)
    frame = frame[~frame["name"].str.startswith(OTHERS) & (frame["relation"] != "partitioned table")]
    frame = frame[frame["persistence"] != "temporary"]
    frame["rows"] = frame[["live_rows", "rows_estimated"]].fillna(0).max(axis=1).clip(lower=0).astype(float)
    live, dead = frame["rows"], frame["dead_rows"].fillna(0).astype(float)
    frame["autovacuum"] = [not _is_off(options) for options in frame["options"]]
    frame["dead_part"] = (dead / (live + dead).where(live + dead > 0, 1.0)).astype(float)
    frame["due"] = [_due(recording, row) for row in frame.to_dict("records")]
    frame["times_due"] = dead / frame["due"]
    frame["dead_bytes"] = frame["heap_bytes"].fillna(0).astype(float) * frame["dead_part"]
    frame["free_bytes"] = frame["heap_bytes"].fillna(0).astype(float) * frame["bloat_fraction"].fillna(0)
    frame["bytes_share"] = (frame["bytes"].fillna(0).astype(float) / database_bytes(recording)).clip(0, 1)
    return frame.sort_values("bytes", ascending=False, ignore_index=True)


def setting(recording: Recording, name: str) -> str | None:
    """Return a server setting's value as the catalog has it; None where it was not seen."""
    settings: dict[str, str] = recording.derived("settings", lambda: _settings(recording))
    return settings.get(name)


def _settings(recording: Recording) -> dict[str, str]:
    found = objects(recording, "setting").dropna(subset=["value"]).drop_duplicates("name")
    return {str(name): str(value) for name, value in zip(found["name"], found["value"], strict=True)}


def _number(recording: Recording, name: str) -> float:
    try:
        return float(setting(recording, name) or DEFAULTS[name])
    except ValueError:
        return DEFAULTS[name]


def _is_off(options: object, name: str = "autovacuum_enabled") -> bool:
    value = options.get(name) if isinstance(options, dict) else None
    return str(value).lower() in ("false", "off", "no", "0", "f", "n")


def _due(recording: Recording, row: dict[str, Any]) -> float:
    options = row["options"] if isinstance(row["options"], dict) else {}
    threshold, factor = (
        float(options.get(name) or _number(recording, name))
        for name in ("autovacuum_vacuum_threshold", "autovacuum_vacuum_scale_factor")
    )
    counted = row["rows_estimated"]
    rows = float(counted) if not pd.isna(counted) and counted > 0 else float(row["live_rows"] or 0)
    return max(1.0, threshold + factor * rows)


@check("table-bloat", area="database")
def table_bloat(
    recording: Recording,
    objectives: Objectives,
    *,
    times_due: float = 2,
    least_dead: float = 10_000,
    max_free: float = 0.5,
    least_bytes: float = MB,
    least_free_bytes: float = 10 * MB,
    min_share: float = 0.05,
) -> Finding | Clear:
    """A table holds many dead rows, or is mostly free space: scans, cache and backups carry them (R62).

    Autovacuum comes when a fifth of the rows are dead; a table counts at ``times_due`` that, or where by the estimate
    from column statistics more than ``max_free`` of its heap is neither row nor wanted space. Tables that a vacuum is at
    work on or had done while observed are not judged, nor those with autovacuum off: see autovacuum-disabled.

    Source: E12, E13, E14; PostgreSQL manual, Routine Vacuuming; postgres-checkup F004 (40 %)
    """
    frame = tables(recording)
    working = set(objects(recording, "progress")["table"].dropna())
    judged = frame[frame["autovacuum"] & ~frame["name"].isin(working) & ~_vacuumed_meanwhile(recording, frame)]
    dead = (
        (judged["times_due"] >= times_due) & (judged["dead_rows"] >= least_dead) & (judged["dead_bytes"] >= least_bytes)
    )
    free = (judged["bloat_fraction"] >= max_free) & (judged["free_bytes"] >= least_free_bytes)
    found = judged[dead.fillna(False) | free.fillna(False)]
    waste = float(found[["dead_bytes", "free_bytes"]].max(axis=1).sum())
    share = min(1.0, waste / database_bytes(recording))
    examined = f"{len(found)} of {len(judged)} tables have {times_due:g} times the dead rows at which autovacuum comes, or are {max_free:.0%} free space"
    if _is_off({"autovacuum_enabled": setting(recording, "autovacuum")}):
        return Clear("autovacuum is off altogether: see autovacuum-disabled")
    if found.empty or share < min_share:
        return Clear(examined)
    worst = found.sort_values("dead_rows", ascending=False).iloc[0]
    return Finding(
        title=f"{_plain(worst['name'])} carries {worst['dead_rows']:,.0f} dead rows beside {worst['rows']:,.0f} live ones"
        if worst["times_due"] >= times_due
        else f"{_plain(worst['name'])} is {worst['bloat_fraction']:.0%} free space by estimate",
        severity=severity(max(float(worst["times_due"]) / times_due, float(worst["bloat_fraction"] or 0) / max_free) * 1.5, share),
        share=share,
        symptom="bytes",
        evidence=(
            *(_of_table(row) for row in found.head(4).to_dict("records")),
            f"{examined}; about {waste / MB:,.1f} MB, {share:.0%} of the database's bytes",
            *held_back(recording),
            *_seldom(recording),
        ),
        remedy="\n".join(_cleared(found, times_due)),
        effort="low",
        frame=found[_SHOWN].head(50),
        figure="table_sizes",
    )  # fmt: skip


def _cleared(found: pd.DataFrame, times_due: float) -> list[str]:
    dead = found.loc[found["times_due"] >= times_due, "name"].head(5)
    lines = ["Find out what keeps vacuum away, then:"] if len(dead) else []
    lines += [statement for name in dead for statement in (vacuum(name), vacuum_sooner(name))]
    return [
        *lines,
        "VACUUM makes the room of dead rows usable again and gives little back to the system; only VACUUM FULL, which locks the table, or pg_repack do. Free space that new rows will fill does no harm.",
    ]


_SHOWN = [
    "name", "rows", "dead_rows", "dead_part", "times_due", "dead_bytes", "bloat_fraction", "free_bytes", "bytes",
    "last_autovacuum_at", "last_vacuum_at", "options",
]  # fmt: skip


def _vacuumed_meanwhile(recording: Recording, frame: pd.DataFrame) -> pd.Series:
    started = objects(recording, "table", at="first")["time"].min()
    last = frame[["last_vacuum_at", "last_autovacuum_at"]].max(axis=1)
    return (last >= started).fillna(False).astype(bool)


def _of_table(row: dict[str, Any]) -> str:
    last = max((row[name] for name in ("last_vacuum_at", "last_autovacuum_at") if not pd.isna(row[name])), default=None)
    when = "never vacuumed" if last is None else f"last vacuumed {_ago((int(row['time']) - last) / 1e9)} ago"
    free = "" if pd.isna(row["bloat_fraction"]) else f", {row['bloat_fraction']:.0%} free space by estimate"
    return (
        f"{row['name']}: {row['dead_part']:.0%} of its rows are dead ({row['dead_rows']:,.0f}; autovacuum comes at "
        f"{row['due']:,.0f}){free}, {when}"
    )


def held_back(recording: Recording) -> tuple[str, ...]:
    """Return what is known to keep vacuum from clearing rows away: the oldest open transaction that was seen."""
    frame = observed(recording).query(
        "SELECT application, role, state, transaction_age, (time - transaction_start) / 1e9 AS seconds "
        "FROM observed_activity WHERE transaction_age IS NOT NULL ORDER BY transaction_age DESC LIMIT 1"
    )
    if frame.empty or frame["transaction_age"].iloc[0] < OLD_TRANSACTIONS:
        return (
            "no old transaction was seen; replication slots and prepared transactions, which hold rows too, are not looked at",
        )
    row = frame.iloc[0]
    who = row["application"] or row["role"] or "a session"
    for_s = "" if pd.isna(row["seconds"]) else f" for {_ago(row['seconds'])}"
    return (
        f"{who} ({row['state']}) has had a transaction open{for_s}, {row['transaction_age']:,.0f} transactions long: vacuum can't clear what died since",
    )  # fmt: skip


def _seldom(recording: Recording) -> tuple[str, ...]:
    seconds = _number(recording, "autovacuum_naptime")
    return (
        (f"autovacuum looks only every {_ago(seconds)} (autovacuum_naptime; 1 minute by default)",)
        if seconds > 300
        else ()
    )


@check("autovacuum-disabled", area="database")
def autovacuum_disabled(
    recording: Recording,
    objectives: Objectives,
    *,
    least_rows: float = 1000,
    least_changes: float = 1000,
    by_hand_days: float = 1,
) -> Finding | Clear:
    """Autovacuum is off for a table that is written, or for all (R63).

    Small and unchanging tables do not count, nor those that somebody vacuums by hand every ``by_hand_days``. To set it
    to true on a table where nobody set it to false does nothing: that is the default.

    Source: E14; PostgreSQL manual, Storage Parameters, autovacuum_enabled, and Automatic Vacuuming
    """
    frame = tables(recording)
    switched_off = _is_off({"autovacuum_enabled": setting(recording, "autovacuum")})
    uncounted = _is_off({"autovacuum_enabled": setting(recording, "track_counts")})
    changes = frame[["inserted", "updated", "deleted"]].fillna(0).sum(axis=1)
    written = (changes >= least_changes) & (frame["rows"] >= least_rows) & ~_by_hand(frame, by_hand_days)
    found = frame[written & (~frame["autovacuum"] | switched_off | uncounted)]
    if found.empty:
        off = int((~frame["autovacuum"]).sum())
        return Clear(
            f"autovacuum is off for {off} of {len(frame)} tables{' and altogether' if switched_off else ''}, for none that is written and has {least_rows:,.0f} rows"
        )
    share = min(1.0, float(found["bytes"].fillna(0).sum()) / database_bytes(recording))
    worst = found.sort_values("dead_rows", ascending=False).iloc[0]
    of_all = "autovacuum = off" if switched_off else "track_counts = off, without which autovacuum sees no work"
    return Finding(
        title=f"Autovacuum is off for {'the whole server' if switched_off or uncounted else _listed(found)}",
        severity=severity(6 if switched_off or uncounted else 1.5 + float(worst["times_due"]), share),
        share=share,
        symptom="bytes",
        evidence=(
            *((f"setting {of_all}",) if switched_off or uncounted else ()),
            *(f"{row['name']}: {row['rows']:,.0f} rows, {row['dead_part']:.0%} dead; autovacuum would have come at {row['due']:,.0f} dead rows, there are {row['dead_rows']:,.0f}" for row in found.head(4).to_dict("records")),
            "no statistics are kept up either, and old transaction ids are only dealt with at the last moment, all at once",
        ),
        remedy="Give them back, and clear up once:\n" + "\n".join(_given_back(found, switched_off, uncounted)),
        effort="low",
        frame=found[_SHOWN].head(50),
        figure="table_sizes",
    )  # fmt: skip


def _by_hand(frame: pd.DataFrame, days: float) -> pd.Series:
    recent = (frame["time"] - frame["last_vacuum_at"]) < days * DAY_NS
    return (recent & (frame["vacuums"].fillna(0) >= 2)).fillna(False).astype(bool)


def _given_back(found: pd.DataFrame, switched_off: bool, uncounted: bool) -> list[str]:
    lines = [f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();" for name, off in (("autovacuum", switched_off), ("track_counts", uncounted)) if off]  # fmt: skip
    for row in found.head(6).to_dict("records"):
        lines += [enable_autovacuum(row["name"])] if not row["autovacuum"] else []
        lines.append(vacuum(row["name"]))
    return lines


@check("wraparound-risk", area="database")
def wraparound_risk(
    recording: Recording, objectives: Objectives, *, max_part: float = 0.4, times_freeze: float = 2
) -> Finding | Clear:
    """Transaction ids are used up faster than vacuum frees them; at the end the server takes no more writes (R98).

    An age somewhat above autovacuum_freeze_max_age is ordinary: then autovacuum sets out. It counts from ``times_freeze``
    that and a tenth of all ids, or from ``max_part`` of the 2^31 there are.

    Source: PostgreSQL manual, Preventing Transaction ID Wraparound Failures; postgres-checkup F002 (50 %), PgHero
    """
    require_objects(recording, "database")
    frame = ages(recording)
    if frame.empty:
        raise NotMeasured("no age of transaction ids was seen", hint=HOW_TO_SEE_TABLES)
    worst = frame.iloc[0]
    is_late = worst["part"] >= 0.1 and worst["times_freeze"] >= times_freeze
    examined = f"{len(frame)} ages of {frame['name'].nunique()} databases; the oldest, {worst['what']} of {worst['name']}, is {worst['age']:,.0f}: {worst['part']:.1%} of what there is"
    if not is_late and worst["part"] < max_part:
        return Clear(examined)
    oldest = _oldest_tables(recording, str(worst["column"]))
    left = IDS - worst["age"]
    return Finding(
        title=f"{worst['part']:.0%} of the {worst['what']} are used up in {worst['name']}; the server stops taking writes {left:,.0f} from here",
        severity=severity(float(worst["part"]) / max_part * 1.5 + (5 if worst["part"] > 0.8 else 0), max(0.3, float(worst["part"]))),
        share=float(worst["part"]),
        symptom="transaction ids",
        evidence=(
            f"{examined}; autovacuum sets out against it at {worst['freeze']:,.0f}",
            *(f"{row['name']}: {row[worst['column']]:,.0f}" for row in oldest.head(4).to_dict("records")),
            *held_back(recording),
        ),
        remedy="End what holds old transactions (sessions, prepared transactions, replication slots), then, oldest first:\n"
        + "\n".join(vacuum(name, freeze=True) for name in oldest["name"].head(6)),
        effort="medium",
        frame=frame.head(50),
    )  # fmt: skip


def ages(recording: Recording) -> pd.DataFrame:
    """Return how old the oldest ids of each database are, the oldest first: name, what, column, age, freeze (the age at
    which autovacuum sets out), times_freeze, part (of the 2^31 there are)."""
    databases = objects(recording, "database")
    kinds = (
        ("transaction_age", "transaction ids", "autovacuum_freeze_max_age"),
        ("multixact_age", "multixact ids", "autovacuum_multixact_freeze_max_age"),
    )
    rows = [
        {
            "name": row["name"],
            "what": what,
            "column": column,
            "age": float(row[column]),
            "freeze": _number(recording, name),
        }
        for row in databases.to_dict("records")
        for column, what, name in kinds
        if not pd.isna(row[column])
    ]
    frame = pd.DataFrame(rows, columns=["name", "what", "column", "age", "freeze"])
    frame = frame.assign(times_freeze=frame["age"] / frame["freeze"], part=frame["age"] / IDS)
    return frame.sort_values("part", ascending=False, ignore_index=True)


def _oldest_tables(recording: Recording, column: str) -> pd.DataFrame:
    frame = objects(recording, "table").dropna(subset=[column])
    return frame.sort_values(column, ascending=False)


def _listed(frame: pd.DataFrame, most: int = 3) -> str:
    names = ", ".join(map(_plain, frame["name"].head(most)))
    return names + (f" and {len(frame) - most} more tables" if len(frame) > most else "")


def _plain(name: str) -> str:
    return name.removeprefix("public.")


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
