"""Query vectors: the user's own, or rows of the table, which is said; in random order, part of them held back."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perfnb.errors import WrongUse
from perfnb.tuner.choosing import Split
from perfnb.tuner.engines.base import Engine, Question

CHOOSING = 200
HELD_BACK = 200
LEAST = 4
SAMPLED = "rows of the table, each without itself: rows are easier than real questions, so expect less recall of those"
NOT_RECORDED = "a recording keeps no query vectors; give the app's own: queries=[…] or a .npy, .json or .jsonl file"


def questions(
    engine: Engine, given: Any = None, *, choosing: int = CHOOSING, held_back: int = HELD_BACK, seed: int = 0
) -> tuple[list[Question], Split, str]:
    """Return the queries, how they are split, and where they come from.

    ``given`` is an array, a list of vectors, or a file (.npy, .json, .jsonl); None draws rows of the table. Raises
    WrongUse for vectors of the wrong length, that hold what is no number, or too few of them.
    """
    if given is None:
        found = engine.sample(choosing + held_back, seed)
        told = SAMPLED
    else:
        found = [Question(vector) for vector in vectors(given)]
        told = f"given, {len(found)} of them"
    checked(found, engine.describe().dimensions)
    random.Random(f"queries {seed}").shuffle(found)
    split = split_of(len(found), choosing, held_back)
    return found[: split.choosing + split.held_back], split, told


def split_of(number: int, choosing: int, held_back: int) -> Split:
    """Return how ``number`` queries are split: as asked where there are enough, else in the same proportion."""
    if number >= choosing + held_back:
        return Split(choosing, held_back)
    part = max(1, round(number * held_back / (choosing + held_back)))
    return Split(number - part, part)


def vectors(given: Any) -> list[Any]:
    """Return the vectors in an array, a list or a file."""
    if isinstance(given, str | Path):
        return read(Path(given))
    return [np.asarray(each, np.float32) for each in given]


def read(path: Path) -> list[Any]:
    """Return the vectors in a .npy, .json (a list of lists) or .jsonl file; never unpickles. Raises WrongUse."""
    try:
        if path.suffix == ".npy":
            return list(np.load(path, allow_pickle=False).astype(np.float32))
        text = path.read_text()
        rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines() if line]
        return [np.asarray(row, np.float32) for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise WrongUse(
            f"{path.name} holds no vectors: {error}", hint="a .npy array, or JSON lists of numbers"
        ) from None


def checked(found: Sequence[Question], dimensions: int) -> None:
    """Raise WrongUse where the queries can't be used."""
    if len(found) < LEAST:
        raise WrongUse(f"{len(found)} queries are too few", hint="give some hundreds, or a table with more rows")
    for each in found:
        values = np.asarray(each.vector)
        if values.ndim != 1 or (dimensions and len(values) != dimensions):
            raise WrongUse(
                f"a query has the shape {values.shape}, the table {dimensions} dimensions",
                hint="the same model for both",
            )
        if not np.isfinite(values).all():
            raise WrongUse("a query holds what is no number", hint="leave out NaN and infinity")
