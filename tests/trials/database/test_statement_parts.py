import math
from pathlib import Path
from typing import Any

import pytest

from perfnb.errors import WrongUse
from perfnb.recording import Recording
from perfnb.trials.database.outcome import Tried, between, drift_of
from perfnb.trials.database.statement import Run, Statement
from perfnb.trials.database.values import places_of, read_values
from perfnb.trials.result import TrialResult

PLAN: dict[str, Any] = {"Plan": {"Node Type": "Seq Scan", "Relation Name": "t", "Alias": "t", "Total Cost": 9.0,
                                 "Startup Cost": 0.0, "Plan Rows": 1, "Plan Width": 4}}  # fmt: skip


def run(arm: str, ms: float, *, turn: int = 0, rows: float = 10, blocks: int = 100, temp: int = 0) -> Run:
    return Run(arm, turn, 0, ms, rows, blocks, temp, PLAN)


def judged(folder: Path, a: list[float], b: list[float], *, drift: float = 0.0, **more: Any) -> TrialResult:
    with Recording.create(folder / "r.perfnb") as recording:
        pairs = [(run("A", x), run("B", y, **more)) for x, y in zip(a, b, strict=True)]
        tried = Tried(recording, Statement("SELECT 1"), "postgres.work_mem", "work_mem", "session", {}, {})
        return tried.judged([each for pair in pairs for each in pair], pairs, drift=drift).result


NOISY = [10.0, 10.3, 9.9, 10.1, 10.2, 9.8]


@pytest.mark.parametrize(
    ("factor", "drift", "more", "outcome"),
    [
        (0.5, 0.0, {}, "better"),
        (2.0, 0.0, {}, "worse"),
        (1.0, 0.0, {}, "no practical change"),
        (0.9, 0.02, {}, "better"),
        (0.9, 0.5, {}, "undecided"),
        (2.0, 0.0, {"rows": 20}, "better"),
        (0.5, 0.0, {"rows": 5}, "worse"),
        (0.5, 0.0, {"rows": 0}, "worse"),
    ],
)
def test_time_decides_unless_rows_differ_and_drift_makes_unsure(
    tmp_path: Path, factor: float, drift: float, more: dict[str, Any], outcome: str
) -> None:
    wobble = [1.0, 1.01, 0.99, 1.0, 1.005, 0.995]
    b = [each * factor * by for each, by in zip(NOISY, wobble, strict=True)]
    result = judged(tmp_path, NOISY, b, drift=drift, **more)
    assert result.outcome == outcome
    assert result.primary == ("statement_rows" if "rows" in more else "statement_ms")
    assert TrialResult.from_dict(result.as_dict()) == result


def test_too_few_pairs_decide_nothing(tmp_path: Path) -> None:
    assert judged(tmp_path, [10.0, 10.0], [1.0, 1.0]).outcome == "undecided"


def test_a_steady_drift_cancels_between_runs_before_and_after() -> None:
    before, after = [run("A", 10.0), run("A", 10.0)], [run("A", 12.1), run("A", 12.1)]
    assert between(before[0], after[0]).ms == pytest.approx(11.0)
    assert drift_of(before, after) == pytest.approx(math.log(1.21))
    assert drift_of(before, []) == 0.0


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("SELECT a FROM t WHERE b = $1 AND c > $2 LIMIT $3 OFFSET $4",
         {1: ("t", "b"), 2: ("t", "c"), 3: "LIMIT", 4: "OFFSET"}),
        ("SELECT * FROM s.t x JOIN u ON u.id = x.u WHERE u.k = $1 AND x.d BETWEEN $2 AND $3",
         {1: ("u", "k"), 2: ("s.t", "d"), 3: ("s.t", "d")}),
        ("SELECT * FROM t WHERE id IN ($1 /*, ... */) ORDER BY e <=> $2::vector LIMIT $3",
         {1: ("t", "id"), 2: ("t", "e"), 3: "LIMIT"}),
        ("SELECT * FROM t WHERE lower(name) = lower($1) AND id = ANY($2)", {1: ("t", "name"), 2: ("t", "id")}),
        ("SELECT * FROM t, u WHERE x = $1", {}),
        ("SELECT $1", {}),
        ("SELECT FROM WHERE (", {}),
    ],
)  # fmt: skip
def test_what_a_parameter_is_compared_with(text: str, places: dict[int, Any]) -> None:
    assert places_of(text) == places


@pytest.mark.parametrize(
    ("text", "values"),
    [("", None), ("  ", None), ('[1, "a", null]', [1, "a", None]), ("7", [7]), ("[[1,2], 3]", [[1, 2], 3])],
)
def test_values_are_read_from_json(text: str, values: Any) -> None:
    assert read_values(text) == values


def test_values_that_are_no_json_are_refused() -> None:
    with pytest.raises(WrongUse, match="no JSON list"):
        read_values("[1,")


@pytest.mark.parametrize(
    ("text", "is_fine"),
    [
        ("SELECT 1", True),
        ("  -- why\n/* what */ (select 1)", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", True),
        ("TABLE t", True),
        ("VALUES (1)", True),
        ("UPDATE t SET a = 1", False),
        ("selection", False),
        ("", False),
        ("BEGIN", False),
    ],
)
def test_only_reading_statements_are_taken(text: str, is_fine: bool) -> None:
    if is_fine:
        assert Statement(text).text == text
        return
    with pytest.raises(WrongUse, match="only a statement that reads"):
        Statement(text)
