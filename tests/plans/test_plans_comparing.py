import pytest
from real_plans import real
from test_plans_exclusive import Fields, inner, node

from perfnb.plans import compare, plan_of, read_plan

SLOW = """Sort  (cost=1.0..900.0 rows=10 width=8) (actual time=480.0..480.0 rows=12 loops=1)
  Sort Key: opened
  Sort Method: external merge  Disk: 20480kB
  Buffers: shared read=25000
  ->  Seq Scan on tickets t  (cost=0.0..890.0 rows=9 width=8) (actual time=0.1..470.0 rows=12000 loops=1)
        Filter: (status = 'open'::text)
        Rows Removed by Filter: 250000
        Buffers: shared read=25000
Execution Time: 481.0 ms
"""
FAST = """Index Scan using tickets_by_status on tickets t  (cost=0.4..9.0 rows=10000 width=8) (actual time=0.1..12.0 rows=12000 loops=1)
  Index Cond: (status = 'open'::text)
  Buffers: shared hit=120
Execution Time: 12.0 ms
"""


def test_what_an_index_changed() -> None:
    compared = compare(read_plan(SLOW), read_plan(FAST))
    assert compared.changes == (
        "it takes 12 ms instead of 481 ms: 40 times less",
        "it touches 120 blocks instead of 25,000 blocks: 208 times less",
        "t is read by Index Scan using tickets_by_status instead of Seq Scan",
        "gone: Sort",
        "nothing goes to disk any more, 20.0 MiB did",
        "the worst estimate of rows is off by less than 10 times; it was by 1,333 times",
    )


def test_and_back() -> None:
    told = compare(read_plan(FAST), read_plan(SLOW)).changes
    assert told[0] == "it takes 481 ms instead of 12 ms: 40 times more"
    assert "new: Sort" in told
    assert "20.0 MiB go to temporary files, nothing did" in told


@pytest.mark.parametrize("name", ["18_cte.txt", "13_bitmap_or.txt", "15_psql_generic.txt"])
def test_the_same_plan_has_not_changed(name: str) -> None:
    compared = compare(real(name), real(name))
    assert all(pair.before == pair.after for pair in compared.pairs)
    assert compared.changes == ("nothing changed but the figures of single steps",)


def scan(alias: str, kind: str = "Seq Scan") -> Fields:
    return node(kind, 1, Relation_Name=f"table_{alias}", Alias=alias)


def test_joins_correspond_by_what_they_join() -> None:
    before = plan_of(node("Hash Join", 9, scan("a"), inner(node("Hash", 2, scan("b")))))
    after = plan_of(node("Nested Loop", 9, scan("a"), inner(scan("b", "Index Scan"))))
    compared = compare(before, after)
    assert "a and b are joined by Nested Loop instead of Hash Join" in compared.changes
    assert not any("Hash" in change and "gone" in change for change in compared.changes)
    joined = compared.pairs[0]
    assert joined.before is not None
    assert joined.before.type == "Hash Join"


def test_two_scans_of_one_alias_are_matched_in_order() -> None:
    plan = plan_of(node("Append", 9, scan("a"), scan("a", "Index Scan")))
    assert [
        (pair.before.type, pair.after.type) for pair in compare(plan, plan).pairs if pair.before and pair.after
    ] == [
        ("Append", "Append"),
        ("Seq Scan", "Seq Scan"),
        ("Index Scan", "Index Scan"),
    ]


def test_plans_that_were_not_executed_are_compared_by_cost() -> None:
    before = read_plan("Seq Scan on t  (cost=0.00..1000.00 rows=9 width=4)")
    after = read_plan("Index Scan using i on t  (cost=0.00..10.00 rows=9 width=4)")
    assert compare(before, after).changes == (
        "the planner's cost is 10 instead of 1,000: 100 times less",
        "t is read by Index Scan using i instead of Seq Scan",
    )
