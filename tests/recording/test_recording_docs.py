"""The page on the tables says what the schema says."""

import re
from pathlib import Path

from perfnb.recording.schema import TABLES, as_markdown

PAGE = Path(__file__).parents[2] / "docs" / "recording.md"
REMAKE = 'python -c "from perfnb.recording.schema import as_markdown as a; print(a(), end=str())" > docs/recording.md'


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == as_markdown(), f"make it anew: {REMAKE}"


def test_every_column_is_declared_with_what_it_means() -> None:
    for table in TABLES.values():
        assert table.time in table.types
        assert len(table.types) == len(table.columns), "a name is there twice"
        for column in table.columns:
            assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
            assert column.meaning
            assert "|" not in column.meaning


def test_units_agree_with_names() -> None:
    units = {"_ms": "ms", "_bytes": "bytes", "_tokens": "tokens"}
    for table in TABLES.values():
        for column in table.columns:
            for ending, unit in units.items():
                if column.name.endswith(ending):
                    assert column.unit == unit, f"{table.name}.{column.name}"
