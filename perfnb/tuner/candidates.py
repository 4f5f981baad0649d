"""Other indexes, measured on a copy of the rows: denser, on halves, on bits, partial, by the filter's column, rebuilt.

The copy is a temporary table of at most 20,000 rows, so nothing of the user's is written, locked or left behind.
"""

from collections.abc import Callable, Sequence

from perfnb.errors import WrongUse
from perfnb.tuner.engines.base import Engine, Filter
from perfnb.tuner.tuning import Candidate

CANDIDATES = ("rebuilt", "denser", "ivfflat", "halfvec", "binary", "partial", "filter index")
MOST_ROWS = 20_000
MOST_BYTES = 512 * 1024 * 1024

Choose = Callable[[Engine, Filter | None, Candidate], None]


def measured_candidates(
    engine: Engine,
    names: Sequence[str],
    filters: Sequence[Filter],
    column: str | None,
    choose: Choose,
    *,
    most_rows: int = MOST_ROWS,
    most_bytes: int = MOST_BYTES,
    seed: int = 0,
) -> list[str]:
    """Build each index named on a copy and ``choose`` its setting; returns what was not measured and why.

    Raises WrongUse for an unknown name, and for an engine whose data can't be copied.
    """
    from perfnb.tuner.engines.pgvector import PgvectorTable
    from perfnb.tuner.engines.pgvector_copy import Copy

    if unknown := set(names) - set(CANDIDATES):
        raise WrongUse(f"unknown candidates: {', '.join(sorted(unknown))}", hint=f"some of {', '.join(CANDIDATES)}")
    if not isinstance(engine, PgvectorTable):
        return ["candidates: only pgvector's are built on a copy; another index there needs another collection"]
    left_out = []
    with Copy(engine, filters, most_rows=most_rows, most_bytes=most_bytes, seed=seed) as copy:
        left_out += copy.notes
        for name in names:
            plans = copy.plans(name, column)
            left_out += [] if plans else [f"candidate {name}: {copy.why_not(name)}"]
            for plan in plans:
                with copy.built(plan) as (built, candidate):
                    for condition in plan.filters:
                        choose(built, condition, candidate)
    return left_out
