"""Odd values survive, or are mended, and never take the batch with them."""

import datetime
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfnb.recording import Recording
from perfnb.recording.encode import encoded

BEFORE, AFTER = {"time": 1, "metric": "before"}, {"time": 3, "metric": "after"}


def kept(path: Path, row: dict[str, Any], column: str) -> list[Any]:
    """Return ``column`` of ``row`` as read live and sealed, after checking that its neighbours are there."""
    recording = Recording.create(path)
    writer = recording.writer()
    assert writer.write("samples", [BEFORE, {"time": 2, "metric": "odd", **row}, AFTER]) == 3
    values = []
    for _ in ("live", "sealed"):
        frame = recording.query(f"SELECT time, {column} AS v FROM samples ORDER BY time")
        assert frame["time"].to_list() == [1, 2, 3]
        values.append(frame["v"][1])
        writer.close()
    assert recording.torn_lines == 0
    recording.close()
    return values


@pytest.mark.parametrize(
    ("column", "written", "read"),
    [
        ("value", math.nan, math.nan),
        ("value", 10**400, math.inf),
        ("value", 2**63, 2.0**63),
        ("value", 1e308, 1e308),
        ("value", np.float32(1.5), 1.5),
        ("metric", "\x00 NUL \x00", "\x00 NUL \x00"),
        ("metric", "line\nbreak\r\u2028 \"quoted\" \\ 'single'", "line\nbreak\r\u2028 \"quoted\" \\ 'single'"),
        ("metric", "naïve 💡 漢字 \u202e", "naïve 💡 漢字 \u202e"),
        ("metric", "half \ud83d a pair", "half \\ud83d a pair"),
        ("metric", "x" * 5_000_000, "x" * 5_000_000),
        ("metric", 10**30, str(10**30)),
        ("metric", b"\xff\x00", "b'\\xff\\x00'"),
        ("metric", Path("a") / "b", "a/b"),
        ("metric", {"a": 1}, '{"a":1}'),
        ("time", 2, 2),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_value_is_read_as_it_was_written(tmp_path: Path, column: str, written: Any, read: Any) -> None:
    for value in kept(tmp_path / "x.perfnb", {column: written}, column):
        assert value == read or (read != read and value != value)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"big": 2**70, "nan": math.nan}, {"big": str(2**70), "nan": None}),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
        ({"\ud800": {"\udfff"}}, {"\\ud800": ["\\udfff"]}),
        ({"at": datetime.date(2026, 1, 2), "bytes": b"x"}, {"at": "2026-01-02", "bytes": "b'x'"}),
        ([1, "\x00", []], [1, "\x00", []]),
        ("text", "text"),
    ],
)
def test_json_is_read_as_it_was_written(tmp_path: Path, written: Any, read: Any) -> None:
    for value in kept(tmp_path / "x.perfnb", {"attributes": written}, "attributes"):
        assert json.loads(value) == read


def test_what_is_nested_too_deep_is_kept_as_text(tmp_path: Path) -> None:
    deep: Any = "end"
    for _ in range(2_000):
        deep = [deep]
    for value in kept(tmp_path / "x.perfnb", {"attributes": deep}, "attributes"):
        assert value.startswith("[[[[")


def test_a_row_too_long_to_read_loses_its_longest_values_only(tmp_path: Path) -> None:
    huge = "x" * (61 * 2**20)
    assert kept(tmp_path / "x.perfnb", {"attributes": {"huge": huge}, "unit": "ms"}, "unit") == ["ms", "ms"]


def test_a_row_without_a_time_is_left_out_and_counted(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    with recording.writer() as writer:
        writer.write("samples", [BEFORE, {"metric": "timeless"}, AFTER])
    assert recording.query("SELECT metric FROM samples ORDER BY time")["metric"].to_list() == ["before", "after"]
    assert recording.torn_lines == 1


def test_a_column_nobody_declared_is_left_out(tmp_path: Path) -> None:
    assert kept(tmp_path / "x.perfnb", {"unit": "ms", "surprise": 1}, "unit") == ["ms", "ms"]


def test_a_generator_of_rows_with_an_odd_one_is_written_whole(tmp_path: Path) -> None:
    recording = Recording.create(tmp_path / "x.perfnb")
    with recording.writer() as writer:
        assert writer.write("samples", ({"time": n, "value": 2**80} for n in range(1, 4))) == 3
        assert writer.write("samples", []) == 0
    assert recording.query("SELECT count(*) AS n FROM samples")["n"][0] == 3


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.text(st.characters(), max_size=5), anything, max_size=3), max_size=3))
def test_every_row_becomes_one_line_of_json(rows: list[dict[str, Any]]) -> None:
    lines = encoded(rows)
    assert len(lines) == len(rows)
    assert all(line.count(b"\n") == 1 and isinstance(orjson.loads(line), dict) for line in lines)


def test_even_what_has_no_text_becomes_a_line() -> None:
    (line,) = encoded([{"time": 1, "metric": Unprintable()}])
    assert orjson.loads(line) == {"time": 1, "metric": "<Unprintable>"}
