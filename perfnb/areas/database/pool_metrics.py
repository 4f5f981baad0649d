"""Pools as an app's own metrics and PgBouncer show them, whatever the library calls them."""

import re
from typing import Any

import orjson
import pandas as pd

from perfnb.attribution import observed
from perfnb.recording import Recording

USED, IDLE, MOST, WAITING = "used", "idle", "most", "waiting"
TIMEOUTS, WAIT, USE = "timeouts", "wait", "use"

# Names with everything but letters and digits as _, so that OpenTelemetry's and Prometheus' forms are one. A role with *
# is told by the label that ends with "state". Sources: OpenTelemetry's database metrics (both names), HikariCP by itself
# and by Micrometer, Go's database/sql and pgxpool, SQLAlchemy's pool, psycopg_pool's get_stats().
_POOL = r"(.*_)?(db|database|sqlalchemy|sql|pg|pgx|postgres(ql)?|psycopg|asyncpg)_?(connection_)?pool"
NAMES: tuple[tuple[str, str], ...] = (
    ("*", r"db_client_connections?_(count|usage)"),
    (
        USED,
        r"hikaricp_(connections_active|active_connections)|.*sql_(stats_)?(connections_in_use|in_use_connections)"
        rf"|{_POOL}_(acquired_conns|checked_?out(_connections)?|connections_in_use|used(_connections)?)",
    ),
    (
        IDLE,
        rf"hikaricp_(connections_idle|idle_connections)|{_POOL}_(idle(_conns|_connections)?|checked_?in(_connections)?|available)",
    ),
    (
        MOST,
        r"db_client_connections?_max|hikaricp_(connections_max|max_connections)"
        rf"|.*sql_(stats_)?(connections_max_open|max_open_connections)|{_POOL}_max(_size|_conns|_connections)?",
    ),
    (
        WAITING,
        rf"db_client_connections?_pending_requests|hikaricp_(connections_pending|pending_threads)|{_POOL}_(requests_)?waiting",
    ),
    (
        TIMEOUTS,
        rf"db_client_connections?_timeouts(_total)?|hikaricp_connections?_timeout_total|{_POOL}_(requests_errors|timeouts)(_total)?",
    ),
    (WAIT, r"(db_client_connections?_wait_time|hikaricp_connections_acquire)(_seconds|_milliseconds)?_(sum|count)"),
    (USE, r"(db_client_connections?_use_time|hikaricp_connections_usage)(_seconds|_milliseconds)?_(sum|count)"),
)
_NAMES = [(role, re.compile(pattern)) for role, pattern in NAMES]
_GAUGES = (USED, IDLE, MOST, WAITING)

_PGBOUNCER = {
    "servers_active": USED, "servers_idle": IDLE, "servers_used": IDLE, "pool_size": MOST, "clients_waiting": WAITING,
}  # fmt: skip

_COLUMNS = ["pool", "readings", "used", "used_peak", "idle", "most", "waiting", "waiting_peak", "waiting_part", "full_part",
            "timeouts", "waits", "wait_ms", "uses", "use_ms"]  # fmt: skip


def pools(recording: Recording) -> pd.DataFrame:
    """Return one row per pool whose metrics were recorded.

    Columns: pool, readings, used, used_peak, idle, most (its size; NA where it is not told), waiting (mean) and
    waiting_peak, waiting_part and full_part (part of the readings in which someone waited; in which all were used),
    timeouts, waits and uses (what was counted meanwhile), wait_ms and use_ms (their means; NA where not told).
    """
    return recording.derived("pools", lambda: _pools(recording))


def over_time(recording: Recording) -> pd.DataFrame:
    """Return each pool reading by reading: time (ns), pool, used, idle, most, waiting."""
    rows = _gauges(_roles(recording))
    return rows.sort_values(["pool", "time"]).reset_index(drop=True)


def _pools(recording: Recording) -> pd.DataFrame:
    roles = _roles(recording)
    gauges = _gauges(roles)
    rows = [
        _summary(str(name), gauges[gauges["pool"] == name], roles[roles["pool"] == name])
        for name in roles["pool"].unique()
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _roles(recording: Recording) -> pd.DataFrame:
    """Return the samples that are about pools: time, pool, role, part (sum, count or empty), value, series, is_delta."""
    names = observed(recording).query("SELECT DISTINCT source, metric FROM observed_samples")
    wanted = {(s, m): role for s, m in zip(names["source"], names["metric"], strict=True) if (role := _role(s, m))}
    rows: list[dict[str, Any]] = []
    for (source, metric), role in wanted.items():
        found = recording.query(
            "SELECT time, entity, value, unit, attributes FROM observed_samples "
            "WHERE source = $source AND metric = $metric ORDER BY time",
            {"source": source, "metric": metric},
        )
        rows += [_row(source, metric, role, each) for each in found.itertuples(index=False)]
    return pd.DataFrame(
        [row for row in rows if row["role"]], columns=["time", "pool", "role", "part", "value", "series", "is_delta"]
    )


def _role(source: str, metric: str) -> str | None:
    if source == "pgbouncer":
        return _PGBOUNCER.get(metric)
    name = re.sub(r"[^a-z0-9]+", "_", metric.lower())
    return next((role for role, pattern in _NAMES if pattern.fullmatch(name)), None)


def _row(source: str, metric: str, role: str, sample: Any) -> dict[str, Any]:
    labels = orjson.loads(sample.attributes) if isinstance(sample.attributes, str) else {}
    if role == "*":
        state = next((str(value) for name, value in labels.items() if name.endswith("state")), "")
        role = IDLE if state == "idle" else USED if state in ("used", "active", "in_use") else ""
    part = metric.rpartition("_")[2] if role in (WAIT, USE) else ""
    scale = _milliseconds(metric, sample.unit) if part == "sum" else 1.0
    return {
        "time": sample.time,
        "pool": _pool(source, sample.entity, labels),
        "role": role,
        "part": part,
        "value": sample.value * scale,
        "series": f"{sample.entity} {metric} {sorted((k, str(v)) for k, v in labels.items())}",
        "is_delta": labels.get("otel.temporality") == "delta",
    }


def _pool(source: str, entity: str | None, labels: dict[str, Any]) -> str:
    if source == "pgbouncer":
        return f"PgBouncer {str(entity).removeprefix('pool ')}"
    named = next(
        (str(labels[name]) for name in labels if re.fullmatch(r"(.*[._])?(pool([._]name)?|db_name)", name)), ""
    )
    return " ".join(part for part in (entity or "", named) if part) or "pool"


def _milliseconds(metric: str, unit: str | None) -> float:
    """Return what makes milliseconds of a time: OpenTelemetry's older names count in them, all else in seconds."""
    told_ms = unit == "ms" or "millisecond" in metric or ("connections." in metric and unit != "s")
    return 1.0 if told_ms else 1000.0


def _gauges(roles: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pool and reading; several series of one role, such as states or users, are added up."""
    rows = roles[roles["role"].isin(_GAUGES)]
    table = rows.pivot_table(index=["pool", "time"], columns="role", values="value", aggfunc="sum")
    table = table.reindex(columns=list(_GAUGES)).reset_index()
    table[MOST] = table.groupby("pool")[MOST].transform(lambda values: values.ffill().bfill())
    return table


def _summary(name: str, gauges: pd.DataFrame, roles: pd.DataFrame) -> dict[str, Any]:
    used, most, waiting = gauges[USED], gauges[MOST], gauges[WAITING]
    full = (used >= most)[used.notna() & most.notna()]
    waits, wait_ms = _timed(roles, WAIT)
    uses, use_ms = _timed(roles, USE)
    return {
        "pool": name,
        "readings": len(gauges),
        "used": used.mean(),
        "used_peak": used.max(),
        "idle": gauges[IDLE].mean(),
        "most": most.max(),
        "waiting": waiting.mean(),
        "waiting_peak": waiting.max(),
        "waiting_part": float((waiting.dropna() > 0).mean()) if waiting.notna().any() else 0.0,
        "full_part": float(full.mean()) if len(full) else 0.0,
        "timeouts": _counted(roles[roles["role"] == TIMEOUTS]),
        "waits": waits,
        "wait_ms": wait_ms,
        "uses": uses,
        "use_ms": use_ms,
    }


def _timed(roles: pd.DataFrame, role: str) -> tuple[float, float | None]:
    rows = roles[roles["role"] == role]
    count, total = (_counted(rows[rows["part"] == part]) for part in ("count", "sum"))
    return count, total / count if count else None


def _counted(rows: pd.DataFrame) -> float:
    """Return by how much the counters in ``rows`` grew; one that fell began anew."""
    total = 0.0
    for _, series in rows.groupby("series"):
        values = series.sort_values("time")["value"]
        if series["is_delta"].iloc[0]:
            total += float(values.sum())
            continue
        steps = values.diff().dropna()
        total += float(steps.where(steps >= 0, values[steps.index]).sum())
    return total
