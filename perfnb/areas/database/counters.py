"""What the server counted of a whole database, step by step."""

import pandas as pd

from perfnb.attribution import observed
from perfnb.attribution.objects import objects
from perfnb.recording import Recording

BY_FORCE = ("sessions_fatal", "sessions_killed")
"""Counters of sessions that were ended by the server or an administrator."""


def counted(recording: Recording, *metrics: str) -> pd.DataFrame:
    """Return by how much the server's counters of the database looked at grew, step by step: time, metric, step, value."""
    name = objects(recording, "server")["database"].dropna().tolist()
    frame = observed(recording).query(
        "SELECT time, entity, metric, value FROM observed_samples WHERE source = 'postgres' "
        "AND entity LIKE 'database %' ORDER BY time"
    )
    of_database = frame["entity"] == f"database {name[0]}" if name else frame["entity"].notna()
    frame = frame[frame["metric"].isin(metrics) & of_database]
    step = frame.groupby(["entity", "metric"])["value"].diff()
    return frame.assign(step=step.where(step >= 0, frame["value"]).where(step.notna(), 0.0))
