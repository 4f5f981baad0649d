"""Connections an app keeps while the model answers though no transaction is open: only its pool's own metrics show them.

The server takes such a session for idle, as it does one that lies in the pool.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from perfnb.areas.database import pool_metrics
from perfnb.attribution import prepare
from perfnb.attribution.sessions import session_looks
from perfnb.recording import Recording

LEAST_READINGS = 8


@dataclass(frozen=True)
class KeptOut:
    """What an app's pools lend out beside what its sessions do and how many requests wait for the model; means over readings.

    Attributes:
        readings: Readings of the pools while model calls were recorded.
        used: Connections lent out.
        busy: Sessions that ran a statement or had a transaction open, by the server.
        asking: Requests with a model call under way.
        together: Correlation of ``used`` and ``asking`` over the readings; NaN where one of them never changed.
        full_part: Part of the readings in which the pools were empty.
    """

    readings: int
    used: float
    busy: float
    asking: float
    together: float
    full_part: float

    @property
    def idle(self) -> float:
        """Return how many connections are lent out on average while their session does nothing."""
        return max(0.0, self.used - self.busy)

    @property
    def share(self) -> float:
        """Return the part of the time connections are lent out in which their session does nothing."""
        return self.idle / self.used if self.used else 0.0

    @property
    def goes_with_calls(self) -> bool:
        """Tell whether the idle ones are as many as the requests that wait for the model, and come and go with them."""
        if self.readings < LEAST_READINGS or not self.asking:
            return False
        come_and_go = self.together >= 0.6 or (np.isnan(self.together) and self.full_part >= 0.5)
        return come_and_go and 0.5 <= self.idle / self.asking <= 1.25


def kept_out(recording: Recording) -> KeptOut | None:
    """Return what the app's pools lend out beside model calls; None where no metrics of pools or no sessions were seen.

    PgBouncer's pools are another matter: they are between the app and the server.
    """
    readings = pool_metrics.over_time(recording)
    readings = readings[~readings["pool"].str.startswith("PgBouncer") & readings["used"].notna()]
    if readings.empty or not recording.has("activity"):
        return None
    calls = (
        prepare(recording)
        .query("SELECT min(start_time) AS start_time, max(end_time) AS end_time FROM owned_calls GROUP BY coalesce(request_id, call_id)")
        .astype("int64")
    )  # fmt: skip
    used = _together(readings)
    asking = _under_way(calls, used.index.to_numpy())
    known = readings.dropna(subset=["most"])
    return KeptOut(
        readings=len(used),
        used=float(used.mean()),
        busy=float(session_looks(recording)["busy"].mean()),
        asking=float(asking.mean()),
        together=float(pd.Series(asking, used.index).corr(used)) if asking.std() and used.std() else float("nan"),
        full_part=float((known["used"] >= known["most"]).mean()) if len(known) else 0.0,
    )


def _together(readings: pd.DataFrame) -> "pd.Series[float]":
    """Return what all pools lend out by time: processes tell theirs at different moments of the same interval."""
    apart = readings.groupby("pool")["time"].diff().median()
    interval = int(apart) if pd.notna(apart) and apart > 0 else 1_000_000_000
    slots = readings.assign(slot=readings["time"] // interval).groupby(["slot", "pool"], as_index=False)
    frame = slots.agg(time=("time", "first"), used=("used", "mean"))
    return frame.groupby("slot").agg(time=("time", "first"), used=("used", "sum")).set_index("time")["used"]


def _under_way(calls: pd.DataFrame, moments: np.ndarray) -> np.ndarray:
    starts, ends = np.sort(calls["start_time"].to_numpy()), np.sort(calls["end_time"].to_numpy())
    return np.asarray(np.searchsorted(starts, moments, side="right") - np.searchsorted(ends, moments, side="right"))
