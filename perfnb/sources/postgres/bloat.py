"""How much of a table's heap is neither row nor free below its fillfactor, estimated from column statistics.

The estimate known from check_postgres and pgsql-bloat-estimation (rows times their mean width, against the pages there
are), with each column's alignment counted in. It reads no page; pgstattuple, which reads all, is the exact answer.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

PAGE_HEADER_BYTES = 24
ITEM_BYTES = 4
ROW_HEADER_BYTES = 23
ALIGNED_BYTES = 8
SHORT_BYTES = 127
"""Values of varying length below this have a header of one byte and are not aligned."""

_ALIGNMENT = {"c": 1, "s": 2, "i": 4, "d": 8}


def bloat_fraction(
    rows: float, pages: int, columns: Iterable[Mapping[str, Any]], *, fillfactor: float = 100, page_bytes: int = 8192
) -> float | None:
    """Return the fraction of ``pages`` that packing ``rows`` anew would free; None where a column has no statistics.

    ``columns`` have average_bytes, null_fraction, fixed_bytes and alignment, in the order of the table.
    """
    listed = list(columns)
    if rows <= 0 or pages <= 0 or not listed or any(each.get("average_bytes") is None for each in listed):
        return None
    per_page = (page_bytes - PAGE_HEADER_BYTES) * fillfactor / 100 / (ITEM_BYTES + row_bytes(listed))
    needed = math.ceil(rows / max(1.0, math.floor(per_page) if per_page >= 1 else per_page))
    return max(0.0, 1 - needed / pages)


def row_bytes(columns: Iterable[Mapping[str, Any]]) -> float:
    """Return the mean size of a row with its header, padded as the server pads."""
    listed = list(columns)
    has_nulls = any((each.get("null_fraction") or 0) > 0 for each in listed)
    header = _padded(ROW_HEADER_BYTES + (math.ceil(len(listed) / 8) if has_nulls else 0), ALIGNED_BYTES)
    data = 0.0
    for each in listed:
        there = 1 - (each.get("null_fraction") or 0)
        aligned = _padded(data, _alignment(each))
        data += there * (aligned - data + each["average_bytes"])
    return header + _padded(data, ALIGNED_BYTES)


def _alignment(column: Mapping[str, Any]) -> int:
    if column.get("fixed_bytes", 0) < 0 and column["average_bytes"] <= SHORT_BYTES:
        return 1
    return _ALIGNMENT.get(column.get("alignment", "c"), 1)


def _padded(size: float, to: int) -> float:
    return math.ceil(size / to) * to
