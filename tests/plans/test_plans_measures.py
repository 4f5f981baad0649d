from typing import Any

import pytest
from real_plans import named, real
from test_plans_exclusive import Fields, init, inner, node

from perfnb.plans import costliest, misestimates, plan_of, spills, warnings, wasteful_scans


def off(kind: str, expected: float, came: float, *plans: Fields, **fields: Any) -> Fields:
    return node(kind, 1.0, *plans, rows=came, Plan_Rows=expected, **fields)


def blamed(fields: Fields) -> list[str]:
    return [each.node.type for each in misestimates(plan_of(fields))]


SCAN = off("Seq Scan", 10, 5000)


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        (SCAN, ["Seq Scan"]),
        (off("Seq Scan", 5000, 10), ["Seq Scan"]),
        (off("Seq Scan", 100, 1000), ["Seq Scan"]),  # at the factor
        (off("Seq Scan", 101, 1000), []),  # under it
        (off("Seq Scan", 1, 50), []),  # too few to matter
        (off("Seq Scan", 0, 0), []),
        (off("Sort", 10, 5000, SCAN), ["Seq Scan"]),  # the lowest is to blame
        (off("Aggregate", 1, 1, off("Nested Loop", 10, 5000, off("Seq Scan", 10, 10))), ["Nested Loop"]),
        (off("Limit", 10, 10, off("Index Scan", 90_000, 10)), []),  # it was stopped
        (off("Limit", 10, 10, off("Index Scan", 10, 90_000)), ["Index Scan"]),
        (off("Limit", 10, 10, off("Sort", 10, 10, off("Seq Scan", 90_000, 10))), ["Seq Scan"]),  # a sort reads all
        (off("Limit", 9, 9, off("Unique", 99, 9, off("Index Scan", 90_000, 20))), []),
        (
            off("Limit", 9, 9, off("Aggregate", 9, 9, off("Seq Scan", 90_000, 20), Strategy="Hashed")),
            ["Seq Scan"],
        ),
        (off("Limit", 9, 9, off("Aggregate", 99, 9, off("Index Scan", 9000, 20), Strategy="Sorted")), []),
        (off("Merge Join", 10, 10, off("Index Scan", 90_000, 10), inner(off("Sort", 10, 90_000))), []),
        (off("Bitmap Heap Scan", 90, 90, off("BitmapOr", 9000, 0, off("Bitmap Index Scan", 9000, 0))), []),
        (off("ModifyTable", 1, 0, SCAN), ["Seq Scan"]),
        (off("Seq Scan", 9000, 0, **{"Actual_Loops": 0}), []),
        (off("Hash Join", 5, 5, init(SCAN, "CTE r"), off("CTE Scan", 10, 5000, CTE_Name="r")), ["Seq Scan"]),
    ],
)
def test_who_is_to_blame(tree: Fields, names: list[str]) -> None:
    assert blamed(tree) == names


def test_rows_are_held_against_the_estimate_of_one_execution() -> None:
    loop = off("Nested Loop", 900, 900, off("Seq Scan", 300, 300), inner(off("Index Scan", 3, 3, loops=300)))
    assert blamed(loop) == []


def test_the_words_of_a_misestimate() -> None:
    (found,) = misestimates(plan_of(SCAN))
    assert found.words == "5,000 rows came, 10 were expected: 500 times more"
    (found,) = misestimates(plan_of(off("Seq Scan", 5000, 10)))
    assert found.words.endswith("500 times fewer")


def test_a_join_of_real_plans() -> None:
    (found,) = misestimates(real("13_cte_on_disk.txt"))
    assert (found.node.type, round(found.times)) == ("Merge Join", 278)


SORTED = {"Sort_Method": "external merge", "Sort_Space_Type": "Disk", "Sort_Space_Used": 1024}
KEPT = {"Sort_Method": "quicksort", "Sort_Space_Type": "Memory", "Sort_Space_Used": 1024}
HASH = {"Hash_Batches": 4, "Original_Hash_Batches": 1, "Peak_Memory_Usage": 512}


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        (node("Sort", 1, **SORTED), 3 * 2**20),
        (node("Sort", 1, **KEPT, Workers=[{"Worker Number": 0, "Sort Method": "external merge", "Sort Space Type": "Disk", "Sort Space Used": 1024}]), 3 * 2**20),
        (node("Hash", 1, **HASH), 2 * 2**20),
        (node("Aggregate", 1, **{"HashAgg_Batches": 5, "Peak_Memory_Usage": 512, "Disk_Usage": 512}), 2 * 2**20),
        (node("Materialize", 1, Storage="Disk", Maximum_Storage=1024), 3 * 2**20),
        (node("Aggregate", 1, Temp_Written_Blocks=128), None),
    ],
)  # fmt: skip
def test_what_goes_to_disk(fields: Fields, needed: float | None) -> None:
    (found,) = spills(plan_of(fields))
    assert found.needed_bytes == needed
    assert "work_mem" in found.words


@pytest.mark.parametrize(
    "fields",
    [node("Sort", 1, **KEPT), node("Hash", 1, **HASH | {"Hash_Batches": 1}), node("Sort", 1, Temp_Written_Blocks=127)],
)
def test_what_stays_in_memory(fields: Fields) -> None:
    assert spills(plan_of(fields)) == ()


def test_whoever_is_above_a_spill_is_not_blamed() -> None:
    plan = real("18_parallel_spill.txt")
    assert [each.node.type for each in spills(plan)] == ["Sort"]


@pytest.mark.parametrize(
    ("removed", "kept", "is_wasteful"),
    [(90_000, 10, True), (90_000, 10_000, True), (90_000, 10_001, False), (9_999, 1, False), (10_000, 0, True)],
)
def test_scans_that_throw_most_away(removed: float, kept: float, is_wasteful: bool) -> None:
    scan = node("Seq Scan", 1, rows=kept, Rows_Removed_by_Filter=removed)
    assert bool(wasteful_scans(plan_of(scan))) is is_wasteful


def test_rows_removed_are_counted_over_all_loops() -> None:
    (found,) = wasteful_scans(plan_of(node("Seq Scan", 1, rows=1, loops=100, Rows_Removed_by_Filter=200)))
    assert (found.removed, found.kept) == (20_000, 100)
    assert found.words == "reads 20,100 rows to keep 100"


def test_where_time_goes() -> None:
    (first, share), *_ = costliest(real("13_bitmap_or.txt"))
    assert first.type == "Sort"
    assert share == pytest.approx((71.370 - 11.171) / 71.551, abs=0.01)


def test_where_cost_goes_without_execution() -> None:
    (first, share), *_ = costliest(real("15_psql_generic.txt"))
    assert (first.type, round(share, 2)) == ("Bitmap Heap Scan", 0.98)
    assert costliest(real("15_psql_costs_off.txt")) == ()


def test_warnings_are_by_node() -> None:
    plan = real("13_bitmap_or.txt")
    assert list(warnings(plan)) == [named(plan, "Sort").number]
    launched = plan_of(node("Gather", 1, node("Seq Scan", 1), Workers_Planned=2, Workers_Launched=1))
    assert warnings(launched) == {0: ("1 of 2 workers were there",)}
