"""What the catalog knows of the tables a statement names: keys, foreign keys, rows, and how wide a row is."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from perfnb.attribution.objects import grown, objects
from perfnb.recording import Recording
from perfnb.sql import Statement

VECTOR = re.compile(r"^(vector|halfvec|bit)\((\d+)\)$")

# An out-of-line value counts 18 bytes in pg_stats: the pointer to it.
POINTER_BYTES = 18


@dataclass(frozen=True)
class Relations:
    """Facts on tables by their qualified names; all empty where the catalog was not read."""

    keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    targets: Mapping[tuple[str, str], str] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    widths: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def name(self, table: str) -> str:
        """Return the qualified name of a table as a statement writes it; as written where it is not known."""
        if table in self.tables:
            return table
        return next((name for name in self.tables if name.rpartition(".")[2] == table), table)

    def is_key(self, table: str, column: str) -> bool:
        """Tell whether ``column`` alone names one row; guessed from its name where the catalog does not tell."""
        known = self.keys.get(self.name(table))
        if known is not None:
            return column in known
        stem = table.rpartition(".")[2]
        return column in ("id", "uuid", "guid", "pk", f"{stem}_id", f"{stem.removesuffix('s')}_id")

    def target(self, table: str, column: str) -> str | None:
        """Return the table that ``column`` refers to by a foreign key."""
        return self.targets.get((self.name(table), column))

    def are_related(self, table: str, other: str) -> bool:
        """Tell whether a foreign key leads from one of the two tables to the other."""
        first, second = self.name(table), self.name(other)
        pairs = {(source, target) for (source, _), target in self.targets.items()}
        return (first, second) in pairs or (second, first) in pairs

    def rows(self, table: str) -> float | None:
        """Return about how many rows ``table`` has; None where that is not known or it was never counted."""
        facts = self.tables.get(self.name(table), {})
        count = max(facts.get("live_rows", 0), facts.get("rows_estimated", 0))
        return count if count > 0 else None

    def row_bytes(self, statement: Statement) -> float | None:
        """Return about how many bytes one row of what ``statement`` selects has; None where columns are not known."""
        if statement.selects_all:
            wanted = [(table, column) for table in statement.tables for column in self.widths.get(self.name(table), {})]
        else:
            lone = statement.tables[0] if len(statement.tables) == 1 else ""
            wanted = [(each.table or lone, each.column) for each in statement.selected]
        widths = [self._column_bytes(table, column) for table, column in wanted]
        known = [width for width in widths if width is not None]
        return sum(known) if known else None

    def _column_bytes(self, table: str, column: str) -> float | None:
        width = self.widths.get(self.name(table), {}).get(column)
        if width != POINTER_BYTES:
            return width
        facts = self.tables.get(self.name(table), {})
        return max(width, facts.get("toast_bytes", 0) / max(1.0, self.rows(table) or 1.0))


def relations(recording: Recording) -> Relations:
    """Return what the catalog's last snapshot knows of the tables; an empty one where there is none."""
    if not recording.has("catalog"):
        return Relations()

    def build() -> Relations:
        tables = grown(recording, "table")
        return Relations(
            keys=_keys(objects(recording, "index"), tables["name"]),
            targets=_targets(objects(recording, "foreign_key")),
            tables={row["name"]: _facts(row) for row in tables.to_dict("records")},
            widths=_widths(objects(recording, "column")),
        )

    found: Relations = recording.derived("relations", build)
    return found


_FACTS = (
    "live_rows", "rows_estimated", "toast_bytes", "heap_bytes", "bytes", "inserted_grown", "updated_grown",
    "deleted_grown", "sequential_rows_grown", "index_rows_grown",
)  # fmt: skip


def _facts(row: Mapping[str, object]) -> dict[str, float]:
    return {name: float(row[name]) for name in _FACTS if name in row and not pd.isna(row[name])}  # type: ignore[arg-type]


def _keys(indexes: pd.DataFrame, tables: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return the columns that alone are unique, for every table of which indexes are known."""
    if indexes.empty:
        return {}
    lone = indexes[indexes["is_unique"].fillna(False) & indexes["predicate"].isna() & (indexes["keys"].str.len() == 1)]
    keys = {table: frozenset(group["keys"].str[0]) for table, group in lone.groupby("table")}
    return {table: keys.get(table, frozenset()) for table in tables}


def _targets(foreign_keys: pd.DataFrame) -> dict[tuple[str, str], str]:
    return {
        (row["table"], column): row["target"]
        for row in foreign_keys.to_dict("records")
        for column in row["columns"] or ()
    }


def _widths(columns: pd.DataFrame) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for row in columns.to_dict("records"):
        table, _, column = row["name"].rpartition(".")
        found.setdefault(table, {})[column] = _width(str(row["type"]), row["average_bytes"])
    return found


def _width(kind: str, average: object) -> float:
    """Return the bytes of a value; a vector's follow from its type, as long ones are kept out of line."""
    if vector := VECTOR.match(kind):
        size = {"vector": 4.0, "halfvec": 2.0, "bit": 0.125}[vector[1]]
        return size * int(vector[2]) + 8
    return 0.0 if pd.isna(average) else float(average)  # type: ignore[arg-type]
