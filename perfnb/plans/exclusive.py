"""What each node used by itself: its own figure less those of the nodes it feeds on.

Three things make this more than a subtraction. The body of a CTE is printed once and run by whoever scans it, several
scans together paying for it once. An InitPlan is printed under the top of its query and run by the node that first asks
for its value. And a SubPlan is run by the node it is printed under.

Source: dalibo/pev2#96, #482 and #696 on the same traps; PostgreSQL manual, Using EXPLAIN
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from perfnb.plans.raw import Raw

_RETURNS = re.compile(r"\$\d+")
_INIT_PLAN = re.compile(r"^InitPlan (\S+)")


def exclusive(nodes: Sequence[Raw], inclusive: Sequence[float]) -> list[float]:
    """Return for each node what is left of ``inclusive`` without the nodes it feeds on; never below 0."""
    own = list(inclusive)
    for node in nodes:
        for child in node.children:
            if not child.is_init_plan:
                own[node.number] -= inclusive[child.number]
    for node in nodes:
        if node.is_init_plan and not node.cte:
            own[_payer(node, own, inclusive[node.number]).number] -= inclusive[node.number]
    for node in nodes:
        if node.is_init_plan and node.cte:
            _spread(inclusive[node.number], _readers(node), own)
    return [max(0.0, each) for each in own]


def _payer(plan: Raw, own: Sequence[float], amount: float) -> Raw:
    """Return the node that ran the InitPlan ``plan``: one that asks for its value and took at least as long."""
    top = plan.parent or plan
    asking = [node for node in top.below() if node is not plan and _asks(node, plan)]
    paying = [_leader(node, top) for node in asking] or [top]
    return next((node for node in paying if own[node.number] >= amount), max(paying, key=lambda n: own[n.number]))


def _leader(node: Raw, top: Raw) -> Raw:
    """Return the Gather above ``node``, which runs InitPlans before it hands their values to workers; else ``node``."""
    gathers = [each for each in node.above(top) if each.type.startswith("Gather")]
    return gathers[-1] if gathers else node


def _asks(node: Raw, plan: Raw) -> bool:
    values = " ".join(_texts(node.fields))
    return any(re.search(rf"{re.escape(name)}(?!\d)", values) for name in _names(plan))


def _names(plan: Raw) -> list[str]:
    """Return how conditions name the value: ``$0`` up to version 16, ``(InitPlan 1).col1`` since."""
    name = plan.text("Subplan Name")
    _, _, returned = name.partition("(returns ")
    number = _INIT_PLAN.match(name)
    return _RETURNS.findall(returned) or ([f"(InitPlan {number[1]})."] if number else [])


def _texts(fields: Mapping[str, Any]) -> list[str]:
    shown = (value for name, value in fields.items() if name not in ("Plans", "Subplan Name", "Workers"))
    return [str(each) for value in shown for each in (value if isinstance(value, list) else [value])]


def _readers(body: Raw) -> list[Raw]:
    """Return the scans of the CTE whose body this is; an inner CTE of the same name hides an outer one."""
    top = body.parent or body
    scans = [node for node in top.below() if node.type == "CTE Scan" and node.text("CTE Name") == body.cte]
    return [node for node in scans if _scope(node, body.cte) in (top, None)]


def _scope(scan: Raw, cte: str) -> Raw | None:
    """Return the nearest node above ``scan`` under which a CTE of that name is printed."""
    node = scan.parent
    while node is not None:
        if any(child.cte == cte for child in node.children):
            return node
        node = node.parent
    return None


def _spread(amount: float, readers: Sequence[Raw], own: list[float]) -> None:
    """Take ``amount`` from the readers by what they took: which of them pulled how many rows is not told."""
    everything = sum(max(0.0, own[node.number]) for node in readers)
    if everything <= 0:
        return
    left = max(0.0, 1.0 - amount / everything)
    for node in readers:
        own[node.number] = max(0.0, own[node.number]) * left
