"""From an EXPLAIN document, as FORMAT JSON has it, to a plan."""

from collections.abc import Mapping, Sequence
from typing import Any

from perfnb.errors import WrongUse
from perfnb.plans.exclusive import exclusive
from perfnb.plans.naming import name_of
from perfnb.plans.plan import Blocks, Node, Plan, Trigger
from perfnb.plans.raw import Raw, as_number, as_objects, divisor, is_true, raw_nodes
from perfnb.plans.workspaces import workspace

CONDITIONS = (
    "Index Cond", "Recheck Cond", "Hash Cond", "Merge Cond", "TID Cond", "Join Filter", "Filter", "One-Time Filter",
    "Order By", "Sort Key", "Presorted Key", "Group Key", "Cache Key", "Function Call", "Run Condition",
)  # fmt: skip
_REMOVED = ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
_BLOCKS = {
    "hit": ("Shared Hit Blocks", "Local Hit Blocks"),
    "read": ("Shared Read Blocks", "Local Read Blocks"),
    "dirtied": ("Shared Dirtied Blocks", "Local Dirtied Blocks"),
    "written": ("Shared Written Blocks", "Local Written Blocks"),
    "temp_read": ("Temp Read Blocks",),
    "temp_written": ("Temp Written Blocks",),
}


def plan_of(document: Any) -> Plan:
    """Return the plan in ``document``: an object with ``Plan``, or the root node itself.

    Raises WrongUse where it is no plan.
    """
    if not isinstance(document, Mapping):
        raise WrongUse("no plan", hint="paste what EXPLAIN prints")
    around = document if "Plan" in document else {"Plan": document}
    nodes = raw_nodes(around["Plan"])
    return Plan(
        root=_tree(nodes),
        document=around,
        planning_ms=as_number(around.get("Planning Time"), "Planning Time"),
        execution_ms=as_number(around.get("Execution Time", around.get("Total Runtime")), "Execution Time"),
        jit_ms=_jit_ms(around.get("JIT")),
        triggers=tuple(map(_trigger, as_objects(around.get("Triggers")))),
        settings={str(name): str(value) for name, value in _mapping(around.get("Settings")).items()},
        query=str(around.get("Query Text") or ""),
        queryid=_queryid(around),
    )


def _tree(nodes: Sequence[Raw]) -> Node:
    """Return the root, children made before their parents."""
    totals = [_total_ms(node) for node in nodes]
    own_ms = exclusive(nodes, [each or 0.0 for each in totals])
    inclusive = {name: [_blocks_of(node, name) for node in nodes] for name in _BLOCKS}
    own = {name: exclusive(nodes, values) for name, values in inclusive.items()}
    made: dict[int, Node] = {}
    for raw in reversed(nodes):
        number = raw.number
        made[number] = _node(
            raw,
            total_ms=totals[number],
            exclusive_ms=None if totals[number] is None else own_ms[number],
            blocks=Blocks(**{name: values[number] for name, values in inclusive.items()}),
            own_blocks=Blocks(**{name: values[number] for name, values in own.items()}),
            children=tuple(made[child.number] for child in raw.children),
        )
    return made[0]


def _node(raw: Raw, **reckoned: Any) -> Node:
    loops, rows = raw.loops, raw.number_of("Actual Rows")
    return Node(
        number=raw.number,
        type=raw.type,
        name=name_of(raw.fields),
        relation=raw.text("Relation Name", "CTE Name", "Function Name", "Tuplestore Name", "Table Function Name"),
        schema=raw.text("Schema"),
        index=raw.text("Index Name"),
        alias=raw.text("Alias"),
        relationship=raw.relationship,
        subplan=raw.text("Subplan Name"),
        is_parallel=is_true(raw.fields.get("Parallel Aware")),
        rows_estimated=_rows_estimated(raw),
        rows_actual=None if rows is None or loops is None else rows * loops,
        width_bytes=_whole(raw, "Plan Width"),
        startup_cost=raw.number_of("Startup Cost"),
        cost=raw.number_of("Total Cost"),
        loops=loops,
        executions=min(loops, raw.rounds) if loops is not None and raw.is_partial else loops,
        conditions=tuple((name, _condition(raw.fields[name])) for name in CONDITIONS if raw.fields.get(name)),
        rows_removed=sum(raw.number_of(name) or 0.0 for name in _REMOVED) * (loops or 0.0),
        heap_fetches=raw.number_of("Heap Fetches"),
        lossy_blocks=raw.number_of("Lossy Heap Blocks") or 0.0,
        index_searches=raw.number_of("Index Searches"),
        workspace=workspace(raw),
        workers_planned=_whole(raw, "Workers Planned"),
        workers_launched=_whole(raw, "Workers Launched"),
        is_disabled=is_true(raw.fields.get("Disabled")),
        **reckoned,
    )


def _total_ms(raw: Raw) -> float | None:
    """Return the time on the clock: what is printed is an average of one loop of one process."""
    each, loops = raw.number_of("Actual Total Time"), raw.loops
    if loops == 0:
        return 0.0
    return None if each is None or loops is None else each * loops / raw.sharing


def _rows_estimated(raw: Raw) -> float | None:
    rows = raw.number_of("Plan Rows")
    return rows if rows is None or not raw.is_partial else rows * divisor(raw.planned)


def _blocks_of(raw: Raw, name: str) -> float:
    return sum(raw.number_of(field) or 0.0 for field in _BLOCKS[name])


def _whole(raw: Raw, name: str) -> int | None:
    value = raw.number_of(name)
    return None if value is None else int(value)


def _condition(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _trigger(fields: Mapping[str, Any]) -> Trigger:
    name = str(fields.get("Trigger Name") or fields.get("Constraint Name") or "")
    ms, calls = as_number(fields.get("Time"), "Time"), as_number(fields.get("Calls"), "Calls")
    return Trigger(name, str(fields.get("Relation") or ""), ms, calls or 0.0)


def _jit_ms(jit: Any) -> float | None:
    return as_number(_mapping(_mapping(jit).get("Timing")).get("Total"), "Total")


def _queryid(around: Mapping[str, Any]) -> str:
    return str(around.get("Query Identifier") or "")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
