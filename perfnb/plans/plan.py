"""A plan as one model, whatever format it was read from: a tree of nodes, with times and rows that can be compared.

What EXPLAIN prints is per loop and, below a Gather, an average over processes. Here rows, blocks and times are totals:
``total_ms`` is the time a node and what it feeds on took on the clock, ``exclusive_ms`` what is left without that.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

BLOCK_BYTES = 8192


@dataclass(frozen=True)
class Blocks:
    """Blocks of 8 KiB a node touched; ``shared`` and ``local`` (temporary tables) are told apart only by their sums."""

    hit: float = 0.0
    read: float = 0.0
    dirtied: float = 0.0
    written: float = 0.0
    temp_read: float = 0.0
    temp_written: float = 0.0

    @property
    def touched(self) -> float:
        """Return blocks looked at, wherever they were."""
        return self.hit + self.read


@dataclass(frozen=True)
class Workspace:
    """Memory a sort, hash or tuple store used, its largest process; ``disk_bytes`` is what all of them wrote to disk."""

    kind: str
    method: str = ""
    memory_bytes: float = 0.0
    disk_bytes: float = 0.0
    batches: int = 1
    batches_planned: int = 1

    @property
    def is_on_disk(self) -> bool:
        """Tell whether it did not fit into work_mem."""
        return self.disk_bytes > 0 or self.batches > 1


@dataclass(frozen=True)
class Node:
    """One step of a plan.

    Attributes:
        number: Position in the plan as printed, 0 for the root.
        type: As FORMAT JSON names it: Seq Scan, Hash Join, Aggregate …
        name: As text EXPLAIN names it: "Parallel Seq Scan on tickets t".
        relationship: How it hangs on its parent: Outer, Inner, Member, SubPlan, InitPlan …
        subplan: "CTE recent", "SubPlan 1", "InitPlan 1 (returns $0)".
        is_parallel: Processes share its rows out among themselves.
        rows_estimated: Rows the planner expected each time the node is executed, all processes together.
        rows_actual: Rows it gave in all; None where the plan was not executed.
        loops: Executions, counted for each process; 0 where it was never executed.
        executions: Executions with those of processes that share the rows counted as one.
        total_ms: Time on the clock with everything below; None without timing.
        exclusive_ms: Time of this node alone.
        rows_removed: Rows read and thrown away by its filter; likewise by a join's filter or a recheck.
        workers_planned: Of a Gather; likewise launched.
    """

    number: int
    type: str
    name: str
    relation: str = ""
    schema: str = ""
    index: str = ""
    alias: str = ""
    relationship: str = ""
    subplan: str = ""
    is_parallel: bool = False
    rows_estimated: float | None = None
    rows_actual: float | None = None
    width_bytes: int | None = None
    startup_cost: float | None = None
    cost: float | None = None
    loops: float | None = None
    executions: float | None = None
    total_ms: float | None = None
    exclusive_ms: float | None = None
    blocks: Blocks = Blocks()
    own_blocks: Blocks = Blocks()
    conditions: tuple[tuple[str, str], ...] = ()
    rows_removed: float = 0.0
    heap_fetches: float | None = None
    lossy_blocks: float = 0.0
    index_searches: float | None = None
    workspace: Workspace | None = None
    workers_planned: int | None = None
    workers_launched: int | None = None
    is_disabled: bool = False
    children: tuple["Node", ...] = ()

    @property
    def filter(self) -> str:
        """Return the condition rows are thrown away by after they were read."""
        return dict(self.conditions).get("Filter", "")

    @property
    def was_executed(self) -> bool | None:
        """Tell whether it ran at all; None where the plan was not executed."""
        return None if self.loops is None else self.loops > 0

    @property
    def rows_each(self) -> float | None:
        """Return rows it gave each time, to be held against ``rows_estimated``."""
        if self.rows_actual is None or not self.executions:
            return None
        return self.rows_actual / self.executions

    @property
    def factor(self) -> float | None:
        """Return how many times more (above 1) or fewer rows came than were expected; under a row counts as one."""
        if self.rows_each is None or self.rows_estimated is None:
            return None
        return max(self.rows_each, 1.0) / max(self.rows_estimated, 1.0)

    def walk(self) -> Iterator["Node"]:
        """Yield this node and all below it, as printed."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))


@dataclass(frozen=True)
class Trigger:
    """A trigger or constraint that fired, and the time of all its calls together."""

    name: str
    relation: str
    total_ms: float | None
    calls: float


@dataclass(frozen=True)
class Plan:
    """A plan with what stands around it; ``document`` is what it was read from, as EXPLAIN (FORMAT JSON) has it."""

    root: Node
    document: Mapping[str, Any] = field(repr=False, compare=False)
    planning_ms: float | None = None
    execution_ms: float | None = None
    jit_ms: float | None = None
    triggers: tuple[Trigger, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    queryid: str = ""

    def nodes(self) -> Iterator[Node]:
        """Yield every node, as printed."""
        return self.root.walk()

    @property
    def is_executed(self) -> bool:
        """Tell whether it holds what happened, not only what the planner expected."""
        return self.root.loops is not None

    @property
    def total_ms(self) -> float | None:
        """Return the time of the execution; None where it was not executed or not timed."""
        return self.execution_ms if self.execution_ms is not None else self.root.total_ms

    @property
    def parents(self) -> dict[int, Node]:
        """Return the parent of each node but the root, by number."""
        return {child.number: node for node in self.nodes() for child in node.children}
