"""What is wrong with a plan: estimates far off, work spilled to disk, rows read for nothing, where the time went."""

from collections.abc import Iterator
from dataclasses import dataclass

from perfnb.plans.plan import BLOCK_BYTES, Node, Plan

STOPS_EARLY = ("Limit",)
READS_ALL = ("Sort", "Hash", "Aggregate", "HashAggregate", "MixedAggregate", "HashSetOp", "ModifyTable")
"""Nodes that read all that is below before they give a row, so that a LIMIT above them stops nothing below."""
NO_ROWS = ("BitmapAnd", "BitmapOr", "Bitmap Index Scan", "ModifyTable", "Hash")
"""Nodes whose count of rows means nothing: two print 0 always, the others repeat what another node tells."""


@dataclass(frozen=True)
class Misestimate:
    """A node that gave ``factor`` times the rows that were expected, while what it feeds on was expected about right."""

    node: Node
    factor: float

    @property
    def times(self) -> float:
        """Return by how much the estimate is off, whichever way."""
        return max(self.factor, 1 / self.factor)

    @property
    def words(self) -> str:
        """Return the misestimate as a sentence without a subject."""
        node = self.node
        way = "more" if self.factor > 1 else "fewer"
        return f"{_count(node.rows_each or 0)} rows came, {_count(node.rows_estimated or 0)} were expected: {self.times:,.0f} times {way}"


@dataclass(frozen=True)
class Spill:
    """A node that wrote to temporary files; ``needed_bytes`` is the work_mem it would have taken, None where unknown."""

    node: Node
    disk_bytes: float
    needed_bytes: float | None

    @property
    def words(self) -> str:
        """Return the spill as a sentence without a subject."""
        space = self.node.workspace
        kind = {"sort": "sorts", "hash": "hashes", "aggregate": "groups"}.get(space.kind if space else "", "keeps rows")
        how = f" in {space.batches} batches" if space and space.batches > 1 else ""
        size = f" ({_size(self.disk_bytes)})" if self.disk_bytes else ""
        return f"{kind} on disk{how}{size}, work_mem did not suffice"


@dataclass(frozen=True)
class WastefulScan:
    """A sequential scan that threw away ``removed`` rows to keep ``kept``."""

    node: Node
    removed: float
    kept: float

    @property
    def words(self) -> str:
        """Return the waste as a sentence without a subject."""
        return f"reads {_count(self.removed + self.kept)} rows to keep {_count(self.kept)}"


def misestimates(plan: Plan, *, factor: float = 10.0, least_rows: float = 100.0) -> tuple[Misestimate, ...]:
    """Return the nodes that are to blame for estimates off by ``factor`` or more either way, the worst first.

    Of nodes above one another the lowest is blamed. Nodes that may have been stopped early (below a LIMIT, a side of a
    merge join, the inside of EXISTS) are not blamed for fewer rows, nor those whose count means nothing, nor those where
    fewer than ``least_rows`` rows came and were expected in all.

    Source: dalibo/pev2, src/node.ts (factors 10, 100, 1000); PostgreSQL manual, Using EXPLAIN, Caveats
    """
    is_stopped, repeated = dict(_stopped(plan)), _repeated(plan)
    blamed: dict[int, Misestimate] = {}
    off: set[int] = set()  # nodes that are off, or feed on one that is
    for node in reversed(list(plan.nodes())):  # children before parents
        below = any(child.number in off for child in node.children if child.relationship != "InitPlan")
        found = _misestimate(node, factor, least_rows, is_stopped[node.number])
        found = None if node.number in repeated else found
        if found and not below:
            blamed[node.number] = found
        if found or below:
            off.add(node.number)
    passing_on = _scans_of(plan, _around(plan, off))
    return tuple(
        sorted((each for number, each in blamed.items() if number not in passing_on), key=lambda each: -each.times)
    )


def spills(plan: Plan) -> tuple[Spill, ...]:
    """Return the nodes that wrote to temporary files, the largest first.

    A sort needs more memory than it wrote, as rows lie tighter on disk; two to three times, so three is taken. A hash
    needs what one batch held times the batches.
    """
    found = [Spill(node, _on_disk(node), _needed_bytes(node)) for node in plan.nodes() if _spilled(node)]
    return tuple(sorted(found, key=lambda each: -each.disk_bytes))


def wasteful_scans(plan: Plan, *, least_removed: float = 10_000, least_part: float = 0.9) -> tuple[WastefulScan, ...]:
    """Return sequential scans that threw most of what they read away, the most first.

    Source: dalibo/pev2, src/node.ts (rows removed by filter: 50, 90 %)
    """
    scans = [
        WastefulScan(node, node.rows_removed, node.rows_actual or 0.0)
        for node in plan.nodes()
        if node.type == "Seq Scan" and node.rows_removed >= least_removed
    ]
    wasteful = [each for each in scans if each.removed >= least_part * (each.removed + each.kept)]
    return tuple(sorted(wasteful, key=lambda each: -each.removed))


def costliest(plan: Plan, count: int = 5) -> tuple[tuple[Node, float], ...]:
    """Return the ``count`` nodes that took most of the time by themselves, each with its part of all nodes' time.

    Where the plan was not executed or not timed, the planner's cost stands in for time.
    """
    own = {node.number: (node.exclusive_ms or 0.0) for node in plan.nodes()}
    if not any(own.values()):
        own = _own_costs(plan)
    everything = sum(own.values()) or 1.0
    ranked = sorted(plan.nodes(), key=lambda node: -own[node.number])
    return tuple((node, own[node.number] / everything) for node in ranked[:count] if own[node.number] > 0)


def warnings(plan: Plan) -> dict[int, tuple[str, ...]]:
    """Return for each node's number what is to be said of it, in words."""
    told: dict[int, list[str]] = {}
    found: list[Spill | WastefulScan | Misestimate] = [*spills(plan), *wasteful_scans(plan), *misestimates(plan)]
    for each in found:
        told.setdefault(each.node.number, []).append(each.words)
    for node in plan.nodes():
        for words in _remarks(node):
            told.setdefault(node.number, []).append(words)
    return {number: tuple(words) for number, words in told.items()}


def _remarks(node: Node) -> Iterator[str]:
    if node.workers_launched is not None and node.workers_launched < (node.workers_planned or 0):
        yield f"{node.workers_launched} of {node.workers_planned} workers were there"
    if node.lossy_blocks:
        yield f"{_count(node.lossy_blocks)} blocks were looked through whole: the bitmap did not fit into work_mem"
    if (
        node.heap_fetches
        and node.rows_actual
        and node.heap_fetches * (node.loops or 1) > max(node.rows_actual, 1000) / 2
    ):
        yield f"{_count(node.heap_fetches)} rows had to be looked up in the table: it wants a VACUUM"
    if node.is_disabled:
        yield "this kind of step is switched off by a setting, and there was no other"


def _misestimate(node: Node, factor: float, least_rows: float, is_stopped: bool) -> Misestimate | None:
    off = node.factor
    if off is None or node.type in NO_ROWS or 1 / factor < off < factor or (is_stopped and off < 1):
        return None
    expected = (node.rows_estimated or 0.0) * (node.executions or 0.0)
    return Misestimate(node, off) if max(node.rows_actual or 0.0, expected) >= least_rows else None


def _stopped(plan: Plan) -> Iterator[tuple[int, bool]]:
    """Yield for each node whether what runs above may have stopped it before it gave all its rows."""
    waiting = [(plan.root, False)]
    while waiting:
        node, is_stopped = waiting.pop()
        yield node.number, is_stopped
        below = (is_stopped and not _reads_all(node)) or node.type in STOPS_EARLY
        waiting += [(child, below or _is_cut(node, child)) for child in node.children]


def _around(plan: Plan, off: set[int]) -> set[str]:
    """Return the names of the CTEs in whose bodies a node is off."""
    bodies = (node for node in plan.nodes() if node.subplan.startswith("CTE "))
    return {body.subplan for body in bodies if any(node.number in off for node in body.walk())}


def _scans_of(plan: Plan, ctes: set[str]) -> set[int]:
    """Return the scans of ``ctes``, which pass on what their bodies give."""
    return {node.number for node in plan.nodes() if node.type == "CTE Scan" and f"CTE {node.relation}" in ctes}


def _reads_all(node: Node) -> bool:
    words = [word for word in node.name.split() if word not in ("Partial", "Finalize", "Parallel")]
    return node.type == "ModifyTable" or words[0] in READS_ALL


def _repeated(plan: Plan) -> set[int]:
    """Return the inner sides of merge joins: they give rows again for every equal row of the outer side."""
    joins = (node for node in plan.nodes() if node.type == "Merge Join")
    return {child.number for node in joins for child in node.children if child.relationship == "Inner"}


def _is_cut(node: Node, child: Node) -> bool:
    """Tell whether ``node`` itself may stop asking ``child`` for rows."""
    exists = (
        node.type == "Nested Loop" and ("Semi" in node.name or "Anti" in node.name) and child.relationship == "Inner"
    )
    return node.type == "Merge Join" or exists or child.relationship in ("SubPlan", "InitPlan")


def _spilled(node: Node) -> bool:
    own = node.own_blocks.temp_written
    return bool(node.workspace and node.workspace.is_on_disk) or own * BLOCK_BYTES >= 1024 * 1024


def _on_disk(node: Node) -> float:
    told = node.workspace.disk_bytes if node.workspace else 0.0
    return told or node.own_blocks.temp_written * BLOCK_BYTES


def _needed_bytes(node: Node) -> float | None:
    space = node.workspace
    if space is None:
        return None
    if space.kind in ("sort", "store"):
        return 3 * space.disk_bytes
    return space.memory_bytes * space.batches if space.kind == "hash" else 2 * (space.memory_bytes + space.disk_bytes)


def _own_costs(plan: Plan) -> dict[int, float]:
    """Return the planner's cost of each node without those below; a LIMIT below can make that negative, which is 0."""
    return {
        node.number: max(0.0, (node.cost or 0.0) - sum(child.cost or 0.0 for child in node.children))
        for node in plan.nodes()
    }


def _count(rows: float) -> str:
    return f"{rows:,.0f}" if rows >= 10 or rows == int(rows) else f"{rows:.2g}"


def _size(count: float) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 1024:,.0f} KiB"
