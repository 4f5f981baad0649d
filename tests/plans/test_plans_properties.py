"""Whatever the text: a plan, or a clear error; and a plan that is written as text is the one that was written as JSON."""

from pathlib import Path
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real_plans import FILES

from perfnb.errors import WrongUse
from perfnb.plans import compare, looks_like_plan, misestimates, plan_of, read_plan, spills, warnings

Fields = dict[str, Any]
TEXTS = [path.read_text() for path in FILES]


def taken(text: str) -> None:
    looks_like_plan(text)
    try:
        plan = read_plan(text)
    except WrongUse:
        return
    warnings(plan)
    misestimates(plan)
    spills(plan)
    compare(plan, plan)


@given(st.text(max_size=400))
def test_any_text(text: str) -> None:
    taken(text)


KEYS = (
    "Plans", "Actual Rows", "Actual Loops", "Actual Total Time", "Plan Rows", "Workers", "Workers Planned", "Sort Method",
    "Sort Space Used", "Storage", "Full-sort Groups", "Hash Batches", "HashAgg Batches", "Alias", "CTE Name", "Strategy",
    "Subplan Name", "Parent Relationship", "Filter", "Relation Name", "Join Type", "Operation", "Sort Methods Used",
)  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS), below, max_size=3),
    max_leaves=8,
)
odd = st.dictionaries(st.sampled_from(KEYS), anything, max_size=5)


@given(st.dictionaries(st.sampled_from(["JIT", "Triggers", "Settings", "Planning Time", "Query Text"]), anything), odd)
def test_any_document(around: dict[str, Any], fields: dict[str, Any]) -> None:
    try:
        plan = plan_of({**around, "Plan": {"Node Type": "Sort", **fields}})
    except WrongUse:
        return
    warnings(plan)
    compare(plan, plan)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TEXTS), st.data())
def test_real_plans_that_were_damaged(text: str, data: st.DataObject) -> None:
    lines = text.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(lines) - 1, 0)))
        what = data.draw(st.sampled_from(["drop", "twice", "cut", "indent", "letters"]))
        if not lines:
            break
        if what == "drop":
            del lines[at]
        elif what == "twice":
            lines.insert(at, lines[at])
        elif what == "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        elif what == "indent":
            lines[at] = " " * data.draw(st.integers(0, 9)) + lines[at].lstrip()
        else:
            lines[at] += data.draw(st.text(max_size=5))
    taken("\n".join(lines))


names = st.text("abcdefghij_", min_size=1, max_size=6)
numbers = st.integers(0, 10**7).map(float) | st.floats(0, 10**6).map(lambda each: round(each, 2))


@st.composite
def nodes(draw: st.DrawFn, depth: int = 3) -> Fields:
    """Return a node of one of several kinds, as FORMAT JSON has it."""
    kind = draw(st.sampled_from(["Seq Scan", "Index Scan", "Sort", "Hash Join", "Append", "Aggregate", "Limit"]))
    relation, alias = draw(names), draw(names)
    fields: Fields = {"Node Type": kind}
    if kind.endswith("Scan"):
        fields |= {"Relation Name": relation, "Alias": alias}
        fields |= {"Index Name": draw(names)} if kind == "Index Scan" else {}
    if kind == "Hash Join":
        fields["Join Type"] = draw(st.sampled_from(["Inner", "Left", "Right", "Full", "Semi", "Anti"]))
    if kind == "Aggregate":
        fields |= {"Strategy": draw(st.sampled_from(["Plain", "Hashed", "Sorted", "Mixed"])), "Partial Mode": "Simple"}
    fields |= {"Startup Cost": draw(numbers), "Total Cost": draw(numbers), "Plan Rows": draw(numbers), "Plan Width": 8}
    loops = draw(st.integers(0, 9))
    timed = {"Actual Startup Time": draw(numbers), "Actual Total Time": draw(numbers)} if loops else {}
    fields |= timed | {"Actual Rows": draw(numbers) if loops else 0, "Actual Loops": loops}
    if kind.endswith("Scan"):
        fields |= {"Filter": f"({alias} > 3)", "Rows Removed by Filter": draw(st.integers(0, 999))}
        fields |= {"Shared Hit Blocks": draw(st.integers(0, 99)), "Temp Written Blocks": draw(st.integers(0, 99))}
        return fields
    below = st.nothing() if depth == 0 else nodes(depth - 1)
    count = 0 if depth == 0 else 2 if kind == "Hash Join" else draw(st.integers(1, 3)) if kind == "Append" else 1
    relations = ["Member"] * 3 if kind == "Append" else ["Outer", "Inner"]
    plans = [{**draw(below), "Parent Relationship": relations[at]} for at in range(count)]
    if depth and draw(st.booleans()):
        plans.insert(0, {**draw(below), "Parent Relationship": "InitPlan", "Subplan Name": f"CTE {draw(names)}"})
    return fields | ({"Plans": plans} if plans else {})


def written(fields: Fields, indent: int = 0, arrow: str = "") -> str:
    """Return the node as text EXPLAIN writes it."""
    cost = f"(cost={fields['Startup Cost']:.2f}..{fields['Total Cost']:.2f} rows={fields['Plan Rows']:.2f} width=8)"
    came = f"rows={fields['Actual Rows']:.2f} loops={fields['Actual Loops']}"
    ran = f"(actual time={fields.get('Actual Startup Time', 0):.2f}..{fields.get('Actual Total Time', 0):.2f} {came})"
    ran = ran if fields["Actual Loops"] else "(never executed)"
    head = " " * indent + arrow + plan_of(fields).root.name + f"  {cost} {ran}\n"
    inside = indent + (len(arrow) or 0) + 2
    if "Filter" in fields:
        head += " " * inside + f"Filter: {fields['Filter']}\n"
        head += " " * inside + f"Rows Removed by Filter: {fields['Rows Removed by Filter']}\n"
        hit, temp = fields["Shared Hit Blocks"], fields["Temp Written Blocks"]
        head += " " * inside + f"Buffers: shared hit={hit}, temp written={temp}\n"
    for plan in fields.get("Plans", ()):
        if "Subplan Name" in plan:
            head += " " * inside + plan["Subplan Name"] + "\n" + written(plan, inside + 2, "->  ")
        else:
            head += written(plan, inside, "->  ")
    return head


@given(nodes())
def test_text_and_json_are_one_plan(fields: Fields) -> None:
    assert read_plan(written(fields)).root == read_plan(orjson.dumps([{"Plan": fields}]).decode()).root


def test_the_writer_writes_what_servers_write() -> None:
    text = (Path(__file__).parent / "real" / "13_bitmap_or.txt").read_text()
    sort = next(line for line in text.splitlines() if "Seq Scan on tickets tickets_1" in line)
    fields = plan_of(read_plan(sort.strip().removeprefix("->").strip()).document).document["Plan"]
    assert (
        written({**fields, "Plan Rows": 120000, "Actual Rows": 120000}).split("  (")[0]
        == "Seq Scan on tickets tickets_1"
    )
