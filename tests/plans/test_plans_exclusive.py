"""What each node took by itself: the traps are loops, workers, CTEs, InitPlans and steps that never ran."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_plans import FILES, named, real

from perfnb.plans import Plan, plan_of, read_plan

Fields = dict[str, Any]


def node(kind: str, ms: float, *plans: Fields, loops: int = 1, rows: float = 1, **fields: Any) -> Fields:
    """Return a node of FORMAT JSON; names of further fields are written with underscores."""
    ran = {"Actual Total Time": ms, "Actual Rows": rows, "Actual Loops": loops, "Plan Rows": rows}
    given_ = {name.replace("_", " "): value for name, value in fields.items()}
    relations = ({"Parent Relationship": "Outer", **each} for each in plans)
    return {"Node Type": kind, **ran, **given_, **({"Plans": list(relations)} if plans else {})}


def inner(fields: Fields) -> Fields:
    return fields | {"Parent Relationship": "Inner"}


def init(fields: Fields, name: str) -> Fields:
    return fields | {"Parent Relationship": "InitPlan", "Subplan Name": name}


def own(plan: Plan) -> list[float]:
    return [round(each.exclusive_ms or 0.0, 6) for each in plan.nodes()]


def test_loops_are_multiplied() -> None:
    plan = plan_of(node("Nested Loop", 100, node("Seq Scan", 10), inner(node("Index Scan", 0.08, loops=1000))))
    assert own(plan) == [10, 10, 80]


def test_processes_that_share_the_work_are_not_added_up() -> None:
    scan = node("Seq Scan", 90, loops=3, rows=1000, Parallel_Aware=True)
    plan = plan_of(node("Gather", 100, scan, Workers_Planned=2, Workers_Launched=2, rows=3000))
    assert own(plan) == [10, 90]
    seq = list(plan.nodes())[1]
    assert (seq.rows_actual, seq.executions, seq.rows_each) == (3000, 1, 3000)


def test_a_worker_that_came_too_late_for_a_scan() -> None:
    scan = node("Seq Scan", 90, loops=2, rows=1500, Parallel_Aware=True)
    join = node("Hash Join", 95, scan, loops=3, rows=1000)
    seq = list(plan_of(node("Gather", 100, join, Workers_Planned=2, Workers_Launched=2, rows=3000)).nodes())[2]
    assert (seq.rows_actual, seq.rows_each) == (3000, 3000)


def test_workers_that_did_not_come() -> None:
    """Source: dalibo/pev2#96"""
    scan = node("Seq Scan", 90, loops=1, rows=3000, Parallel_Aware=True, Plan_Rows=1250)
    plan = plan_of(node("Gather", 100, scan, Workers_Planned=2, Workers_Launched=0, rows=3000))
    assert own(plan) == [10, 90]
    assert list(plan.nodes())[1].rows_estimated == 1250 * 2.4  # what get_parallel_divisor divided by
    assert list(plan.nodes())[1].factor == 1


def test_what_each_process_does_whole_is_estimated_whole() -> None:
    """The hash of a Hash Join that is not Parallel is built in every process, from all rows."""
    hashed = inner(node("Hash", 5, node("Seq Scan", 4, loops=3, rows=100), loops=3, rows=100))
    join = node("Hash Join", 50, node("Seq Scan", 30, loops=3, rows=500, Parallel_Aware=True), hashed, loops=3)
    plan = plan_of(node("Gather", 60, join, Workers_Planned=2, Workers_Launched=2))
    whole = [each for each in plan.nodes() if each.type == "Seq Scan"][1]
    assert (whole.rows_estimated, whole.rows_each, whole.factor) == (100, 100, 1)


def test_one_process_makes_the_bitmap_for_all() -> None:
    """Source: dalibo/pev2#696"""
    heap = node("Bitmap Heap Scan", 90, node("Bitmap Index Scan", 60), loops=3, Parallel_Aware=True)
    plan = plan_of(node("Gather", 100, heap, Workers_Planned=2, Workers_Launched=2))
    assert own(plan) == [10, 30, 60]


def test_an_init_plan_is_paid_for_by_who_asks_for_it() -> None:
    scan = node("Seq Scan", 70, Filter="(price > $0)")
    plan = plan_of(node("Sort", 80, init(node("Aggregate", 50), "InitPlan 1 (returns $0)"), scan))
    assert own(plan) == [10, 50, 20]


def test_an_init_plan_as_version_17_names_it() -> None:
    scan = node("Seq Scan", 70, Filter="(price > (InitPlan 1).col1)")
    plan = plan_of(node("Sort", 80, init(node("Aggregate", 50), "InitPlan 1"), scan))
    assert own(plan) == [10, 50, 20]


def test_an_init_plan_that_nobody_is_seen_to_ask_for() -> None:
    plan = plan_of(node("Result", 80, init(node("Aggregate", 50), "InitPlan 1 (returns $0)")))
    assert own(plan) == [30, 50]


def test_number_ten_is_not_number_one() -> None:
    asking = node("Seq Scan", 70, Filter="(price > $1)")
    other = inner(node("Seq Scan", 90, Filter="(price > $10)"))
    plan = plan_of(node("Hash Join", 170, init(node("Aggregate", 50), "InitPlan 1 (returns $1)"), asking, other))
    assert own(plan) == [10, 50, 20, 90]


def test_a_gather_runs_init_plans_before_its_workers() -> None:
    scan = node("Seq Scan", 20, loops=3, Filter="(price > $0)", Parallel_Aware=True)
    gather = node("Gather", 75, scan, Workers_Planned=2, Workers_Launched=2)
    plan = plan_of(node("Sort", 80, init(node("Aggregate", 50), "InitPlan 1 (returns $0)"), gather))
    assert own(plan) == [5, 50, 5, 20]


def test_a_sub_plan_is_part_of_its_node() -> None:
    sub = node("Index Scan", 0.5, loops=100) | {"Parent Relationship": "SubPlan", "Subplan Name": "SubPlan 1"}
    assert own(plan_of(node("Seq Scan", 60, sub, rows=100))) == [10, 50]


def test_scans_of_a_cte_share_what_its_body_took() -> None:
    body = init(node("Seq Scan", 60), "CTE recent")
    scans = node("CTE Scan", 66, CTE_Name="recent"), inner(node("CTE Scan", 22, CTE_Name="recent"))
    plan = plan_of(node("Hash Join", 100, body, *scans))
    assert own(plan) == [12, 60, 21, 7]
    assert sum(own(plan)) == 100


def test_an_inner_cte_hides_an_outer_one_of_its_name() -> None:
    deep = node("Aggregate", 30, init(node("Seq Scan", 20), "CTE r"), node("CTE Scan", 25, CTE_Name="r"))
    plan = plan_of(node("Append", 70, init(node("Seq Scan", 40), "CTE r"), deep, node("CTE Scan", 40, CTE_Name="r")))
    assert own(plan) == [0, 40, 5, 20, 5, 0]


def test_what_never_ran_took_nothing() -> None:
    never = inner({"Node Type": "Index Scan", "Actual Loops": 0, "Actual Rows": 0, "Plan Rows": 9})
    plan = plan_of(node("Nested Loop", 10, node("Seq Scan", 9), never))
    scan = list(plan.nodes())[2]
    assert (own(plan), scan.was_executed, scan.rows_each, scan.factor) == ([1, 9, 0], False, None, None)


def test_without_timing_there_is_no_time() -> None:
    root = real("15_psql_timing_off.txt").root
    assert (root.exclusive_ms, root.rows_actual) == (None, 2)


def test_buffers_are_taken_apart_likewise() -> None:
    plan = real("18_parallel_spill.txt")
    sort, gather = named(plan, "Sort"), named(plan, "Gather Merge")
    assert (sort.own_blocks.temp_written, sort.own_blocks.hit, gather.own_blocks.temp_written) == (1436, 16, 0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_parts_of_real_plans_add_up_to_the_whole(path: Any) -> None:
    plan = read_plan(path.read_text())
    if plan.root.total_ms:
        assert sum(each.exclusive_ms or 0.0 for each in plan.nodes()) == pytest.approx(plan.root.total_ms, rel=0.02)
    assert sum(each.own_blocks.touched for each in plan.nodes()) == plan.root.blocks.touched
    assert sum(each.own_blocks.temp_written for each in plan.nodes()) == plan.root.blocks.temp_written


trees = st.recursive(
    st.builds(lambda ms: node("Seq Scan", ms), st.floats(0, 1e6)),
    lambda below: st.builds(
        lambda own_ms, plans: node("Append", own_ms + sum(each["Actual Total Time"] for each in plans), *plans),
        st.floats(0, 1e6),
        st.lists(below, min_size=1, max_size=3),
    ),
    max_leaves=20,
)


@given(trees)
def test_plain_trees_add_up(tree: Fields) -> None:
    plan = plan_of(tree)
    assert sum(own(plan)) == pytest.approx(plan.root.total_ms, rel=1e-6, abs=1e-3)


@given(trees, st.integers(0, 5))
def test_no_node_took_less_than_nothing(tree: Fields, launched: int) -> None:
    plan = plan_of(node("Gather", 1.0, tree, Workers_Planned=launched, Workers_Launched=launched))
    assert all(each >= 0 for each in own(plan))
