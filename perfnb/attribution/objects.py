"""Objects of the database as the catalog has them: how they are now, and how their counters grew while observed."""

import pandas as pd

from perfnb.errors import NotMeasured
from perfnb.recording import Recording
from perfnb.recording.kinds import KINDS
from perfnb.recording.recording import HOW_TO_MEASURE

_MOMENT = {"last": "max", "first": "min"}
_FRAME_TYPES = {"BIGINT": "Int64", "DOUBLE": "float64", "BOOLEAN": "boolean"}


def objects(recording: Recording, kind: str, *, at: str = "last") -> pd.DataFrame:
    """Return the objects of ``kind`` at the last (or first) snapshot that holds any: server, name, time, its properties.

    Whole numbers are Int64 and flags boolean, both with NA for what the server did not tell; JSON is decoded.
    """
    frame: pd.DataFrame = recording.derived(f"objects {kind} {at}", lambda: _objects(recording, kind, at))
    return frame.copy(deep=False)  # columns are copied once they are written to


def _objects(recording: Recording, kind: str, at: str) -> pd.DataFrame:
    rows = recording.query(
        f"""
        SELECT server, name, time, properties FROM catalog
        WHERE kind = $kind AND (server, time) IN (
            SELECT (server, {_MOMENT[at]}(time)) FROM catalog WHERE kind = $kind GROUP BY server
        ) ORDER BY server, name
        """,
        {"kind": kind},
    )
    return _typed(kind, rows)


def require_objects(recording: Recording, kind: str) -> pd.DataFrame:
    """Return :func:`objects` at the last snapshot; raises NotMeasured where the catalog was never read."""
    if not recording.has("catalog"):
        raise NotMeasured("no catalog", hint=HOW_TO_MEASURE["catalog"])
    return objects(recording, kind)


def grown(recording: Recording, kind: str) -> pd.DataFrame:
    """Return the objects of ``kind`` now, with each counter also as ``NAME_grown``: what was added since the first snapshot.

    NA where there is one snapshot alone; the value itself where the object is new or its counter fell (a reset).
    """
    frame: pd.DataFrame = recording.derived(f"grown {kind}", lambda: _grown(recording, kind))
    return frame.copy(deep=False)


def _grown(recording: Recording, kind: str) -> pd.DataFrame:
    now, before = objects(recording, kind), objects(recording, kind, at="first")
    joined = now.merge(before, on=["server", "name"], how="left", suffixes=("", "_before"))
    is_single = bool(len(now)) and bool(now["time"].max() == before["time"].min())
    for each in KINDS[kind].properties:
        if each.type not in ("BIGINT", "DOUBLE"):
            continue
        value, earlier = joined[each.name], joined[f"{each.name}_before"]
        added = (value - earlier).where(earlier.notna() & (value >= earlier), value)
        joined[f"{each.name}_grown"] = added.mask(pd.Series(is_single, joined.index))
    return joined[[name for name in joined.columns if not name.endswith("_before")]]


def _typed(kind: str, rows: pd.DataFrame) -> pd.DataFrame:
    decoded = [_decode(text) for text in rows["properties"]]
    frame = rows.drop(columns="properties")
    for each in KINDS[kind].properties:
        values = [found.get(each.name) for found in decoded]
        frame[each.name] = pd.Series(values, index=frame.index, dtype=_FRAME_TYPES.get(each.type, "object"))
    return frame


def _decode(text: str) -> dict[str, object]:
    import orjson

    found = orjson.loads(text)
    return found if isinstance(found, dict) else {}
