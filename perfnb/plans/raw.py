"""The nodes of an EXPLAIN document in the order they are printed, with what only the tree around them tells."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from perfnb.errors import WrongUse

DEEPEST = 400
LEADER_SHARE = 0.3  # part of its time that the leader is reckoned to lose per worker: get_parallel_divisor
BITMAPS = ("Bitmap Index Scan", "BitmapAnd", "BitmapOr")


@dataclass
class Raw:
    """One node as printed, its place in the tree, and how it is run: by how many ``processes`` (so many workers were
    ``planned``), in how many ``rounds`` of the Gather above."""

    number: int
    fields: Mapping[str, Any]
    parent: "Raw | None"
    processes: float = 1.0
    planned: int = 0
    rounds: float = 1.0
    is_partial: bool = False
    children: list["Raw"] = field(default_factory=list)

    def text(self, *names: str) -> str:
        """Return the first of the fields that is there, as text."""
        return next((str(self.fields[name]) for name in names if self.fields.get(name) is not None), "")

    def number_of(self, name: str) -> float | None:
        """Return a field as a number, None where it is missing; raises WrongUse where it is something else."""
        return as_number(self.fields.get(name), name)

    @property
    def type(self) -> str:
        """Return the node's type."""
        return self.text("Node Type")

    @property
    def relationship(self) -> str:
        """Return how it hangs on its parent."""
        return self.text("Parent Relationship")

    @property
    def is_init_plan(self) -> bool:
        """Tell whether it runs when it is first needed, maybe deep below the node it is printed under."""
        return self.relationship == "InitPlan"

    @property
    def cte(self) -> str:
        """Return the name of the CTE that this is the body of."""
        name = self.text("Subplan Name")
        return name[4:] if name.startswith("CTE ") else ""

    @property
    def loops(self) -> float | None:
        """Return executions by all processes."""
        return self.number_of("Actual Loops")

    @property
    def sharing(self) -> float:
        """Return among how many processes the printed times are spread."""
        loops = self.loops or 1.0
        if self.type in BITMAPS and self._is_under_parallel_heap_scan():
            return 1.0  # one process makes the bitmap while the others wait for it
        return max(1.0, min(self.processes, loops) if self.is_init_plan else self.processes)

    def _is_under_parallel_heap_scan(self) -> bool:
        above = self.parent
        while above is not None and above.type in BITMAPS:
            above = above.parent
        return above is not None and above.type == "Bitmap Heap Scan" and is_true(above.fields.get("Parallel Aware"))

    def below(self) -> Iterator["Raw"]:
        """Yield this node and all below it."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))

    def above(self, top: "Raw") -> Iterator["Raw"]:
        """Yield the node and those above it, up to ``top``."""
        node: Raw | None = self
        while node is not None:
            yield node
            node = None if node is top else node.parent


def raw_nodes(fields: Any) -> list[Raw]:
    """Return the nodes of a document's plan, as printed; raises WrongUse where it is none."""
    found: list[Raw] = []
    _add(fields, None, found, 0)
    for node in reversed(found):  # children before parents
        node.is_partial = is_true(node.fields.get("Parallel Aware")) or any(
            child.is_partial for child in node.children if child.relationship in ("Outer", "Member", "Subquery")
        )
    for node in found:  # what feeds a Gather is partial, the Gather is not
        if node.type.startswith("Gather"):
            _close_off(node)
    return found


def _add(fields: Any, parent: Raw | None, found: list[Raw], depth: int) -> None:
    if not isinstance(fields, Mapping) or not isinstance(fields.get("Node Type"), str):
        raise WrongUse("a node of the plan has no Node Type", hint="paste the whole output of EXPLAIN")
    if depth > DEEPEST:
        raise WrongUse(f"the plan is nested deeper than {DEEPEST} steps", hint="it can't be shown")
    node = Raw(len(found), fields, parent)
    found.append(node)
    if parent is not None:
        parent.children.append(node)
        _share(node, parent)
    below = fields.get("Plans") or []
    if not isinstance(below, list):
        raise WrongUse("Plans of a node is no list", hint="paste the whole output of EXPLAIN (FORMAT JSON)")
    for each in below:
        _add(each, node, found, depth + 1)


def _share(node: Raw, parent: Raw) -> None:
    """Tell ``node`` by how many processes it is run: those of the Gather above it."""
    node.processes, node.planned, node.rounds = parent.processes, parent.planned, parent.rounds
    if parent.type.startswith("Gather") and not node.is_init_plan:
        launched = parent.number_of("Workers Launched")
        most = (launched if launched is not None else parent.number_of("Workers Planned") or 0) + 1
        ran = (node.loops or 0) / (parent.loops or 1)
        node.processes = max(1.0, min(ran, most) if node.loops is not None else 1.0)
        node.planned, node.rounds = int(parent.number_of("Workers Planned") or 0), parent.loops or 1.0


def _close_off(gather: Raw) -> None:
    node: Raw | None = gather
    while node is not None:
        node.is_partial = False
        node = node.parent


def divisor(workers: int) -> float:
    """Return by how many the planner divides the rows of a scan that ``workers`` and the leader share.

    Source: PostgreSQL, src/backend/optimizer/path/costsize.c, get_parallel_divisor
    """
    return workers + max(0.0, 1.0 - LEADER_SHARE * workers)


def as_objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects in a list; anything else is none."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def as_number(value: Any, name: str) -> float | None:
    """Return ``value`` as a finite number; raises WrongUse where it is none."""
    if value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = float("nan")
    if isinstance(value, bool) or not abs(found) < 1e300:
        raise WrongUse(f"{name} of a node is {str(value)[:40]!r}", hint="paste the output of EXPLAIN unchanged")
    return found


def is_true(value: Any) -> bool:
    """Tell whether a flag is set, in JSON or as XML and text write it."""
    return value is True or (isinstance(value, str) and value.lower() == "true")
