"""Indexes whose work another does, and invalid ones: which of two stays, and why the other is not needed."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from perfnb.areas.database.index_inventory import OF_A_FOREIGN_KEY, UNIQUENESS, indexes
from perfnb.attribution.objects import objects
from perfnb.recording import Recording

Row = dict[str, Any]

_ALIKE = ("keys", "descending", "opclasses", "collations")
_BUILT_WITH = ("hnsw", "ivfflat", "brin")  # methods whose options decide what they answer


def redundant(recording: Recording) -> pd.DataFrame:
    """Return indexes whose work another index of the table does, with ``cover`` (its name) and ``how`` (in words)."""
    frame = indexes(recording)
    frame = frame[frame["is_valid"].fillna(True) & ~frame["is_building"].fillna(False)]
    rows = [
        {**one, "cover": other["name"], "how": how, "times_larger": other["bytes"] / max(1, one["bytes"])}
        for _, group in frame.groupby(["server", "table", "method"])
        for one, other, how in _pairs(group.to_dict("records"))
    ]
    return pd.DataFrame(rows, columns=[*frame.columns, "cover", "how", "times_larger"])


def _pairs(group: list[Row]) -> list[tuple[Row, Row, str]]:
    """Return (index, the one that covers it, how), each index once."""
    ranked = sorted(group, key=_worth, reverse=True)
    covered = {each["name"]: (each, cover, how) for each, cover, how in reversed(list(_covers(ranked)))}
    return list(covered.values())


def _covers(ranked: list[Row]) -> Iterator[tuple[Row, Row, str]]:
    gone = set()
    for at, cover in enumerate(ranked):
        for one in ranked[at + 1 :]:
            if cover["name"] not in gone and is_same(one, cover) and not _wanted_for_more(one, cover):
                gone.add(one["name"])
                yield one, cover, "the same as"
    for one in ranked:
        longer = [other for other in ranked if _is_prefix(one, other) and other["name"] not in gone]
        if one["name"] not in gone and longer and _stays(longer[0]) and not _wanted_for_more(one, longer[0]):
            yield one, longer[0], "the first columns of"


def _worth(row: Row) -> tuple[bool, int, int, float, int, list[int]]:
    """Return what makes one of two equal indexes the one that stays; copies tend to have the longer name."""
    scans = 0.0 if pd.isna(row["scans"]) else float(row["scans"])
    return (
        row["is_primary"] is True,
        len(_reasons(row)),
        len(_told(row, "included")),
        scans,
        -len(row["name"]),
        [-ord(each) for each in row["name"]],
    )


def _wanted_for_more(one: Row, cover: Row) -> bool:
    """Tell whether something leans on ``one`` that ``cover`` does not do; foreign keys are served by either."""
    done = {OF_A_FOREIGN_KEY} | ({UNIQUENESS} if cover["is_unique"] is True and is_same(one, cover) else set())
    return bool(_reasons(one) - done)


def _reasons(row: Row) -> set[str]:
    return set(row["leans"].split(", ")) - {""}


def _stays(cover: Row) -> bool:
    """Tell whether the longer index is used or needed: else it is the one to go, as unused."""
    return bool(cover["leans"]) or pd.isna(cover["scans"]) or bool(cover["scans"])


def is_same(one: Row, other: Row) -> bool:
    """Tell whether two indexes of a table answer the same questions."""
    return (
        one["method"] == other["method"]
        and all(_told(one, name) == _told(other, name) for name in _ALIKE)
        and _text(one, "predicate") == _text(other, "predicate")
        and set(_told(one, "included")) <= set(_told(other, "included"))
        and (one["method"] not in _BUILT_WITH or one["options"] == other["options"])
    )


def _is_prefix(one: Row, other: Row) -> bool:
    keys, longer = _told(one, "keys"), _told(other, "keys")
    if one["method"] != "btree" or not keys or len(keys) >= len(longer) or one["is_unique"] is True:
        return False
    return (
        all(_told(one, name) == _told(other, name)[: len(_told(one, name))] for name in _ALIKE)
        and _text(one, "predicate") == _text(other, "predicate")
        and set(_told(one, "included")) <= {*longer, *_told(other, "included")}
    )


def _told(row: Row, name: str) -> list[str]:
    return [str(each) for each in row[name]] if isinstance(row[name], list) else []


def _text(row: Row, name: str) -> str:
    return str(row[name]) if isinstance(row[name], str) else ""


def invalid(recording: Recording, *, least_rows: float = 1000) -> pd.DataFrame:
    """Return indexes that no query may use and no build is making, on tables of ``least_rows`` or more.

    A CREATE INDEX or REINDEX CONCURRENTLY that failed leaves one behind; it is kept up with every write all the same.
    """
    frame = indexes(recording)
    building = set(objects(recording, "progress")["index"].dropna())
    broken = (frame["is_valid"] == False) & ~frame["is_building"].fillna(False)  # noqa: E712 - NA is not False
    large = frame["rows"] >= least_rows
    told = frame[broken.fillna(False) & large & (frame["relation"] != "partitioned table")]
    return told[~told["name"].isin(building)].reset_index(drop=True)
