"""Every index with its table, what it costs, and what leans on it: what has to be known before one is dropped."""

from typing import Any

import pandas as pd

from perfnb.attribution.objects import grown, objects, require_objects
from perfnb.errors import NotMeasured
from perfnb.recording import Recording

HOW_TO_SEE_INDEXES = "the catalog of Postgres: perfnb record --dsn DSN"
MB = 1_000_000
DAY_NS = 86_400 * 10**9

# What may lean on an index, besides statements.
UNIQUENESS = "uniqueness"
OF_A_FOREIGN_KEY = "a foreign key of its table"

# Schemas of the server itself and of extensions that keep tables of their own.
OTHERS = ("pg_", "information_schema.", "cron.", "partman.", "_timescaledb", "hdb_catalog.")

_OF_TABLES = [
    "live_rows", "rows_estimated", "relation", "inserted_grown", "updated_grown", "hot_updated_grown", "deleted_grown",
    "sequential_scans_grown", "index_scans_grown", "inserted", "updated", "deleted",
]  # fmt: skip


def indexes(recording: Recording) -> pd.DataFrame:
    """Return one row per index of the app's tables, largest first.

    Columns: those of the catalog's kind ``index``, ``scans_grown``; of its table ``rows``, ``relation`` and
    ``writes_grown`` (entries that were written in the window: rows inserted, and updated but not in place);
    ``bytes_share`` of the database; ``leans`` (what depends on it, in words: empty where nothing is known).
    Raises NotMeasured where the catalog was not read.
    """
    require_objects(recording, "index")
    frame: pd.DataFrame = recording.derived("indexes of tables", lambda: _indexes(recording))
    return frame.copy(deep=False)


def _indexes(recording: Recording) -> pd.DataFrame:
    frame = grown(recording, "index")
    if frame.empty:
        raise NotMeasured("no index was seen", hint=HOW_TO_SEE_INDEXES)
    frame = frame[~frame["name"].str.startswith(OTHERS)]
    tables = grown(recording, "table").reindex(columns=["server", "name", *_OF_TABLES])
    frame = frame.merge(tables.rename(columns={"name": "table"}), on=["server", "table"], how="left")
    frame["rows"] = frame[["live_rows", "rows_estimated"]].fillna(0).max(axis=1).clip(lower=0).astype(float)
    kept_out = frame["hot_updated_grown"].fillna(0)
    frame["writes_grown"] = frame["inserted_grown"].fillna(0) + frame["updated_grown"].fillna(0) - kept_out
    frame["bytes_share"] = (frame["bytes"].fillna(0) / database_bytes(recording)).clip(0, 1).astype(float)
    frame["leans"] = _leans(frame, objects(recording, "foreign_key"))
    return frame.sort_values("bytes", ascending=False, ignore_index=True)


def database_bytes(recording: Recording) -> float:
    """Return the size of the database that is looked at; of its tables together where that is not told."""
    looked_at = objects(recording, "server")["database"].dropna()
    databases = objects(recording, "database")
    told = databases[databases["name"].isin(looked_at)] if len(looked_at) else databases
    found = float(told["bytes"].fillna(0).sum())
    return found or float(objects(recording, "table")["bytes"].fillna(0).sum()) or 1.0


def statistics_days(recording: Recording) -> float | None:
    """Return for how many days counters have been added up; at least since the server's start; None where untold."""
    server, databases = objects(recording, "server"), objects(recording, "database")
    mine = databases[databases["name"].isin(server["database"].dropna())]
    since = mine["statistics_reset_at"].dropna()
    since = since if len(since) else server["started_at"].dropna()
    if since.empty or server.empty:
        return None
    age_ns = int(server["time"].max()) - int(since.max())
    return max(0.0, age_ns / DAY_NS)


def _leans(frame: pd.DataFrame, foreign_keys: pd.DataFrame) -> list[str]:
    referring = [(row["table"], row["columns"]) for row in foreign_keys.to_dict("records") if row["columns"]]
    return [", ".join(_reasons(row, referring)) for row in frame.to_dict("records")]


def _reasons(row: dict[str, Any], referring: list[tuple[str, list[str]]]) -> list[str]:
    told = {
        "the primary key": row["is_primary"] is True,
        "a constraint": isinstance(row["constraint"], str),
        UNIQUENESS: row["is_unique"] is True,
        "foreign keys of other tables": bool(row["references"]) and isinstance(row["references"], list),
        "logical replication": row["is_replica_identity"] is True,
        "CLUSTER": row["is_clustered"] is True,
    }
    keys = row["keys"] if isinstance(row["keys"], list) else []
    told[OF_A_FOREIGN_KEY] = any(table == row["table"] and set(keys[: len(of)]) == set(of) for table, of in referring)
    return [reason for reason, holds in told.items() if holds]
