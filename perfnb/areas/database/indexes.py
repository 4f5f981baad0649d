"""Indexes there should not be: unused ones, ones that do the same work twice, invalid ones.

What an index that is not needed costs: its size, in the server's cache too, an entry for every row written, and time of
every vacuum. Before one is called so, what leans on it is looked at. (Missing ones: ``missing_indexes``.)
"""

import pandas as pd

from perfnb.areas.database.index_copies import invalid, is_same, redundant
from perfnb.areas.database.index_inventory import MB, database_bytes, indexes, statistics_days
from perfnb.areas.database.maintenance_statements import drop_index, reindex
from perfnb.attribution.objects import objects
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

_SHOWN = ["name", "table", "method", "bytes", "scans", "writes_grown", "leans", "definition"]


def unused(recording: Recording, *, least_bytes: float = MB) -> pd.DataFrame:
    """Return indexes that no scan has used since statistics began and nothing is known to lean on, largest first.

    Every method counts, vector indexes too. Left out: unique and primary ones, those of constraints, of foreign keys
    and of replication, invalid ones and those being built (another check's), copies of others (likewise), partitions
    (they can't be dropped by themselves), and those that were not there at the first snapshot.
    """
    frame = indexes(recording)
    there = frame["name"].isin(objects(recording, "index", at="first")["name"])
    usable = frame["is_valid"].fillna(True) & ~frame["is_building"].fillna(False)
    idle = (frame["scans"] == 0) & (frame["bytes"] >= least_bytes) & (frame["leans"] == "")
    found = frame[idle.fillna(False) & usable & there & (frame["relation"] != "partition")]
    copies = redundant(recording)
    return found[~found["name"].isin(copies["name"])].reset_index(drop=True)


@check("unused-index", area="database")
def unused_index(
    recording: Recording,
    objectives: Objectives,
    *,
    min_days: float = 7,
    least_bytes: float = MB,
    busy_writes: float = 5000,
    busy_scans: float = 20,
    min_share: float = 0.01,
) -> Finding | Clear:
    """Indexes are kept up with every write and no statement uses them (R53).

    Counters must reach back ``min_days``. On younger ones only an index is judged whose table saw ``busy_writes``
    entries written while observed and ``busy_scans`` scans of another index: whoever reads that table was there.

    Source: C28, C29; PostgreSQL manual, pg_stat_all_indexes; postgres-checkup H002, which judges btree alone
    """
    server = objects(recording, "server")
    if server["is_in_recovery"].fillna(False).any():
        raise NotMeasured("a standby", hint="record the primary too: a standby counts its own scans alone")
    every, found = indexes(recording), unused(recording, least_bytes=least_bytes)
    days = statistics_days(recording)
    is_young = days is None or days < min_days
    judged = found[_is_busy(found, every, busy_writes, busy_scans)] if is_young else found
    share = min(1.0, float(judged["bytes"].sum()) / database_bytes(recording))
    said = f"{len(judged)} of {len(every)} indexes have no scan in {_age(days)}, {least_bytes / MB:g} MB or more, and nothing that leans on them"
    if judged.empty and len(found):
        raise NotMeasured(
            "counters are young",
            hint=f"{len(found)} indexes have no scan yet ({_names(found)}), but counters are only {_age(days)} old: record again after {min_days:g} days",
        )
    if judged.empty or (share < min_share and judged["writes_grown"].sum() < busy_writes):
        return Clear(said)
    return Finding(
        title=f"{len(judged)} of {len(every)} indexes, {judged['bytes'].sum() / MB:,.1f} MB, are not used: {_names(judged)}",
        severity=severity(2.5 if judged["writes_grown"].sum() >= busy_writes else 1.5, share),
        share=share,
        symptom="bytes",
        evidence=(
            f"no scan in {_age(days)}, the time counters reach back{'; what runs once a week or month may not have come by yet' if (days or 0) < 31 else ''}; {share:.0%} of the database's bytes",
            *_written(judged),
            *_on_expressions(judged),
            _elsewhere(server),
        ),
        remedy="Drop one after the other, the least needed first, and look at the plans of rare jobs before; each can be built again:\n"
        + "\n".join(drop_index(name) for name in judged["name"].head(12)),
        effort="low",
        frame=judged[_SHOWN].head(50),
        figure="table_sizes",
    )


def _is_busy(found: pd.DataFrame, every: pd.DataFrame, least_writes: float, least_scans: float) -> pd.Series:
    """Return which of ``found`` stand on tables that were read by another index and written much, while observed."""
    scanned = every.groupby(["server", "table"])["scans_grown"].max()
    keys = pd.MultiIndex.from_frame(found[["server", "table"]])
    others = pd.Series(scanned.reindex(keys).fillna(0).to_numpy(), found.index)
    return (found["writes_grown"] >= least_writes) & (others >= least_scans)


def _names(frame: pd.DataFrame, most: int = 3) -> str:
    names = [str(name).partition(".")[2] or str(name) for name in frame["name"].head(most)]
    return ", ".join(names) + (f" and {len(frame) - most} more" if len(frame) > most else "")


def _age(days: float | None) -> str:
    if days is None:
        return "an unknown time"
    hours = days * 24
    if hours < 0.1:
        return f"{hours * 3600:.0f} seconds"
    return f"{days:.0f} days" if days >= 3 else f"{hours:.0f} hours" if hours >= 3 else f"{hours * 60:.0f} minutes"


def _written(frame: pd.DataFrame) -> tuple[str, ...]:
    entries = float(frame["writes_grown"].sum())
    if not entries:
        return ()
    return (
        f"while observed {entries:,.0f} entries were written to them, and to log and cache with them; updates of their columns can't stay in place (HOT)",
    )


def _on_expressions(frame: pd.DataFrame) -> tuple[str, ...]:
    plain = frame["keys"].map(lambda keys: all(str(key).replace("_", "").isalnum() for key in keys or ()))
    if plain.all():
        return ()
    return (
        f"{_names(frame[~plain])}: on an expression, of which ANALYZE keeps statistics as long as the index is there; estimates may get worse without (CREATE STATISTICS keeps them)",
    )


def _elsewhere(server: pd.DataFrame) -> str:
    replicas = server["replicas"].fillna(0).sum()
    if replicas:
        return (
            f"{replicas:.0f} standbys follow this server, and what they scan is counted there alone: look there first"
        )
    return (
        "no standby follows this server; unique, primary, constraint, foreign-key and replication indexes were left out"
    )


@check("duplicate-index", area="database")
def duplicate_index(
    recording: Recording, objectives: Objectives, *, least_bytes: float = MB, min_share: float = 0.005
) -> Finding | Clear:
    """Two indexes do the same work, or one is the invalid rest of a build that failed (R97).

    The same: equal in method, keys, order, operator classes, collations, predicate and options. A btree also does the
    work of one on its first columns, unless that one is unique. A copy counts from ``least_bytes``, an invalid one by
    the rows of its table. What covers another but is unused itself is unused-index's matter.

    Source: PostgreSQL manual, pg_index (indisvalid) and CREATE INDEX, Building Indexes Concurrently; PgHero
    """
    every, copies, broken = indexes(recording), redundant(recording), invalid(recording)
    copies = copies[copies["bytes"] >= least_bytes]
    examined = f"{len(copies)} of {len(every)} indexes repeat another and have {least_bytes / MB:g} MB or more; {len(broken)} are invalid"
    total = database_bytes(recording)
    waste = float(copies["bytes"].sum()) + float(broken["bytes"].fillna(0).sum())
    share = min(1.0, waste / total)
    if broken.empty and (copies.empty or share < min_share):
        return Clear(examined)
    return Finding(
        title=" and ".join(_titles(copies, broken)),
        severity=severity(2.5 if len(broken) else 1.5, share),
        share=share,
        symptom="bytes",
        evidence=(
            *(f"{row.name} is {row.how} {row.cover}{_size_of(row)}" for row in copies.head(6).rename_axis(None).itertuples(index=False)),
            *(f"{row.name} is invalid: no query may use it, and every write keeps it up" for row in broken.head(6).itertuples(index=False)),
            f"{examined}; {waste / MB:,.1f} MB, {share:.0%} of the database's bytes",
        ),
        remedy="Run, one at a time:\n" + "\n".join([*map(drop_index, copies["name"]), *_mended(broken, every)]),
        effort="low",
        frame=pd.concat([copies.reindex(columns=[*_SHOWN, "cover", "how"]), broken.reindex(columns=_SHOWN).assign(how="invalid")]).head(50),
        figure="table_sizes",
    )  # fmt: skip


def _titles(copies: pd.DataFrame, broken: pd.DataFrame) -> list[str]:
    titles = []
    if len(copies):
        verb = "does" if len(copies) == 1 else "do"
        titles.append(
            f"{len(copies)} {'index' if len(copies) == 1 else 'indexes'} {verb} the work of another: {_names(copies)}"
        )
    if len(broken):
        verb = "index is" if len(broken) == 1 else "indexes are"
        titles.append(f"{len(broken)} {verb} invalid: {_names(broken)}")
    return titles


def _size_of(row: object) -> str:
    size, times = float(getattr(row, "bytes", 0)), float(getattr(row, "times_larger", 1))
    wider = f", which is {times:.1f} times as large" if times >= 2 else ""
    return f" ({size / MB:,.1f} MB, {getattr(row, 'scans', 0)} scans){wider}"


def _mended(broken: pd.DataFrame, every: pd.DataFrame) -> list[str]:
    """Return for each invalid index DROP where another does its work or a rebuild left it behind, else REINDEX."""
    valid = every[every["is_valid"].fillna(True)].to_dict("records")
    lines = []
    for row in broken.to_dict("records"):
        is_rest = str(row["name"]).rstrip("0123456789").endswith(("_ccnew", "_ccold"))
        has_twin = any(row["table"] == other["table"] and is_same(row, other) for other in valid)
        unique = (
            "  -- first remove the rows that are there twice, or it fails again" if row["is_unique"] is True else ""
        )
        lines.append(drop_index(row["name"]) if is_rest or has_twin else reindex(row["name"]) + unique)
    return lines
