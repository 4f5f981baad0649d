"""Tunings on a recording's timeline."""

import json

import pandas as pd

from perfnb.errors import NotMeasured
from perfnb.recording import Recording
from perfnb.tuner.tuning import Tuning

HOW = "a tuning: perfnb.tuner.tune(…, recording=incident.recording)"


def tunings(recording: Recording) -> list[Tuning]:
    """Return the tunings on the timeline, the oldest first. Raises NotMeasured where there is none."""
    bodies = recording.query("SELECT body FROM events WHERE kind = 'tuning' ORDER BY time")["body"]
    if bodies.empty:
        raise NotMeasured("no vector search was tuned", hint=HOW)
    return [Tuning.from_dict(json.loads(body) if isinstance(body, str) else body) for body in bodies]


def tuned_points(recording: Recording) -> pd.DataFrame:
    """Return the points of the last tuning that made a pick: those of Point, and k, target, is_pick, name.

    Raises NotMeasured where nothing was tuned.
    """
    found = tunings(recording)
    return points_of(next((each for each in reversed(found) if each.picks), found[-1]))


def points_of(tuning: Tuning) -> pd.DataFrame:
    """Return the points with ``k``, ``target``, ``name`` and whether they are the pick: what :func:`curve` draws."""
    frame = tuning.frame
    picked = {each.point for each in tuning.picks}
    frame["is_pick"] = [point in picked for point in tuning.points]
    return frame.assign(k=tuning.k, target=tuning.target, name=tuning.described["name"])
