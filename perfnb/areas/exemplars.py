"""Which requests show a cause best."""

import pandas as pd


def exemplars(calls: pd.DataFrame, by: str, count: int = 3) -> tuple[str, ...]:
    """Return the different requests whose calls have most of the column ``by``, first the one with most."""
    ordered = calls.sort_values(by, ascending=False, kind="stable")["request_id"].dropna()
    return tuple(ordered.drop_duplicates().head(count))
