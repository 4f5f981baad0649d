import re
from pathlib import Path

import pytest
from real_plans import FILES, FOLDER, named, real

from perfnb.errors import WrongUse
from perfnb.plans import looks_like_plan, read_plan, read_plans

SIZES = {
    "13_bitmap_or.txt": ("Append", 10, 71.551, 72.976),
    "13_cte_on_disk.txt": ("HashAggregate", 15, 27.689, None),
    "14_cte.yaml": ("HashAggregate", 15, None, None),
    "15_psql_border.txt": ("HashAggregate", 15, 40.976, 42.384),
    "15_psql_costs_off.txt": ("Limit", 7, None, None),
    "15_psql_generic.txt": ("Bitmap Heap Scan on tickets", 2, None, None),
    "15_psql_json.txt": ("Limit", 7, 19.373, 19.486),
    "15_psql_parallel_jit.txt": ("Limit", 10, 103.244, 368.750),
    "15_psql_timing_off.txt": ("Limit", 7, None, 18.567),
    "15_psql_trigger.txt": ("Delete on customers", 2, 0.087, 0.854),
    "15_psql_unicode.txt": ("Append", 11, 8.625, 8.743),
    "15_psql_yaml.txt": ("Limit", 7, 57.612, None),
    "16_incremental_sort.xml": ("WindowAgg", 3, None, None),
    "17_modifying_cte.txt": ("Insert on tickets", 4, 20.513, None),
    "17_set_operation.json": ("Limit", 8, None, None),
    "18_cte.txt": ("HashAggregate", 14, 14.370, 14.438),
    "18_parallel_spill.txt": ("Aggregate", 7, 107.146, 107.637),
}


def test_every_real_plan_is_expected_here() -> None:
    assert {path.name for path in FILES} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_real_plan_is_read(name: str) -> None:
    root, nodes, root_ms, execution_ms = SIZES[name]
    plan = real(name)
    assert looks_like_plan((FOLDER / name).read_text())
    assert plan.root.name == root
    assert nodes is None or len(list(plan.nodes())) == nodes
    assert root_ms is None or plan.root.total_ms == root_ms
    assert execution_ms is None or plan.execution_ms == execution_ms
    assert plan.is_executed == (plan.root.rows_actual is not None)


def test_what_stands_around_a_plan() -> None:
    plan = real("18_parallel_spill.txt")
    assert (plan.queryid, plan.planning_ms) == ("3183923870754336428", 0.222)
    assert plan.settings["work_mem"] == "256kB"
    assert real("15_psql_parallel_jit.txt").jit_ms == 17.983
    (trigger,) = real("15_psql_trigger.txt").triggers
    assert (trigger.name, trigger.total_ms, trigger.calls) == ("tickets_customer_id_fkey", 0.742, 4)


def test_figures_of_a_node() -> None:
    heap = named(real("13_bitmap_or.txt"), "Bitmap Heap Scan")
    assert (heap.relation, heap.rows_estimated, heap.rows_actual, heap.cost) == ("tickets", 303, 296, 842.66)
    assert heap.blocks.hit == 73
    assert dict(heap.conditions)["Recheck Cond"].startswith("((customer_id = ANY")
    scan = named(real("18_parallel_spill.txt"), "Parallel Seq Scan on tickets")
    assert (scan.schema, scan.relation, scan.alias, scan.is_parallel) == ("public", "tickets", "t", True)
    assert scan.filter == "(t.price > '3'::numeric)"
    assert scan.rows_removed == 960
    assert named(real("18_cte.txt"), "Index Only Scan Backward").index_searches == 1


def test_workers_do_not_overwrite_what_the_node_did() -> None:
    sort = named(real("18_parallel_spill.txt"), "Sort")
    assert sort.blocks.hit == 2109
    assert sort.workspace is not None
    assert sort.workspace.disk_bytes == (2264 + 1896 + 1464) * 1024


LINES = (FOLDER / "18_cte.txt").read_text().splitlines()
WRAPPED = re.sub(r"  (\(actual time)", r"\n\1", "\n".join(LINES))


@pytest.mark.parametrize(
    "pasted",
    [
        "\n".join(f"> {line}" for line in LINES),
        "\n".join(f"-- {line}" for line in LINES),
        "It got slow:\n```sql\n" + "\n".join(LINES) + "\n```\nany ideas?",
        "\n".join('"' + line.replace('"', '""') + '"' for line in LINES),
        "\r\n".join(LINES),
        "\n".join("\t" + line for line in LINES),
        "\n".join("\u00a0" * (len(line) - len(line.lstrip())) + line.lstrip() for line in LINES),
        "\ufeff" + "\n".join(LINES),
        "                QUERY PLAN\n--------------------------\n"
        + "\n".join(f" {line}" for line in LINES)
        + "\n(44 rows)",
        "|QUERY PLAN|\n|----|\n" + "\n".join(f"|{line}|" for line in LINES),
        WRAPPED,
        "EXPLAIN (ANALYZE, BUFFERS) SELECT 1;\n" + "\n".join(LINES),
    ],
    ids=["mail", "comments", "fence", "quoted", "crlf", "log", "web", "bom", "psql", "markdown", "wrapped", "echo"],
)
def test_however_it_was_pasted(pasted: str) -> None:
    assert read_plan(pasted).root == read_plan("\n".join(LINES)).root


def test_several_plans_in_one_text() -> None:
    both = "\n".join(LINES) + "\n\n" + (FOLDER / "15_psql_trigger.txt").read_text()
    assert [plan.root.name for plan in read_plans("\n".join(LINES) + "\n" + "\n".join(LINES))] == ["HashAggregate"] * 2
    assert looks_like_plan(both)


def test_part_of_a_plan_with_its_arrow() -> None:
    part = "->  Sort  (cost=1.0..2.0 rows=3 width=4)\n      Sort Key: a, (b || ','), c DESC\n"
    node = read_plan(part).root
    assert node.name == "Sort"
    assert dict(node.conditions)["Sort Key"] == "a, (b || ','), c DESC"


def test_auto_explain_with_its_query() -> None:
    plan = read_plan(
        "Query Text: SELECT *\nFROM t\n  WHERE x: y\nLimit\nSeq Scan on t  (cost=0.00..1.00 rows=9 width=4)"
    )
    assert plan.query == "SELECT *\nFROM t\nWHERE x: y\nLimit"
    assert plan.root.name == "Seq Scan on t"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no plan"),
        ("hello", "no plan"),
        ("[]", "no plan"),
        ('{"Plan": {}}', "no Node Type"),
        ('[{"Plan": {"Node Type": "Sort", "Plans": [3]}}]', "no Node Type"),
        ('[{"Plan": {"Node Type": "Sort", "Plans": 3}}]', "no list"),
        ('{"Plan": {"Node Type": "Sort", "Actual Rows": "many", "Actual Loops": 1}}', "Actual Rows"),
        ('{"Plan": {"Node Type": "Sort"', "no JSON"),
        ("<explain><Query><Plan>", "no XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><explain/>', "entities"),
        ("- Plan:\n    Node Type: &a x\n    Other: *a\n", "aliases"),
        ("\n".join(line.strip() for line in LINES), "indentation"),
        ('{"Plan": ' + '{"Node Type": "Sort", "Plans": [' * 450 + '{"Node Type": "Sort"}' + "]}" * 450 + "}", "deep"),
    ],
)
def test_what_is_no_plan_is_told(text: str, message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        read_plan(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21 10:00:00 INFO started in 3.2 s",
        '{"event": "retrieve", "duration_ms": 12}',
        "main;work;query 12",
        "# Plan for tomorrow\n- write (cost=low)",
    ],
)
def test_what_does_not_look_like_a_plan(text: str) -> None:
    assert not looks_like_plan(text)


def test_a_plan_that_is_read_can_be_written_and_read_again(tmp_path: Path) -> None:
    import orjson

    for path in FILES:
        plan = read_plan(path.read_text())
        assert read_plan(orjson.dumps(plan.document).decode()).root == plan.root, path.name
