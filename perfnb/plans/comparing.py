"""Two plans of a statement side by side: which steps correspond, and in words what changed.

Steps correspond where they do the same kind of thing (scan, join, sort …) to the same relations, however they do it: a
Seq Scan on tickets and an Index Scan on tickets are both how tickets is read.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from perfnb.plans.measures import misestimates, spills
from perfnb.plans.plan import Node, Plan

WORTH_TELLING = 1.2  # times that a figure must have changed

_KINDS = {
    "Nested Loop": "join",
    "Hash Join": "join",
    "Merge Join": "join",
    "Incremental Sort": "Sort",
    "Merge Append": "Append",
    "Gather Merge": "Gather",
    "Group": "Aggregate",
    "Unique": "Aggregate",
}


@dataclass(frozen=True)
class Pair:
    """A step before and after; one of them is None where the step is gone or new."""

    before: Node | None
    after: Node | None

    @property
    def either(self) -> Node:
        """Return the step after, or before where it is gone."""
        node = self.after or self.before
        assert node is not None
        return node


@dataclass(frozen=True)
class Comparison:
    """Two plans: their steps in pairs, in the order of the later plan, and what changed, a sentence each."""

    before: Plan
    after: Plan
    pairs: tuple[Pair, ...]
    changes: tuple[str, ...]


def compare(before: Plan, after: Plan) -> Comparison:
    """Return ``before`` and ``after`` with corresponding steps matched and the changes in words."""
    pairs = _pairs(before, after)
    steps = Counter(words for pair in pairs if (words := _step(pair)))
    counted = [words if times == 1 else f"{words} ({times} of them)" for words, times in steps.items()]
    told = [*_whole(before, after), *counted, *_troubles(before, after)]
    return Comparison(before, after, pairs, tuple(told) or ("nothing changed but the figures of single steps",))


def _pairs(before: Plan, after: Plan) -> tuple[Pair, ...]:
    left: dict[tuple[str, frozenset[str]], list[Node]] = defaultdict(list)
    for node in before.nodes():
        left[_key(node)].append(node)
    found = []
    for node in after.nodes():
        same = left[_key(node)]
        found.append(Pair(same.pop(0) if same else None, node))
    gone = sorted((node for nodes in left.values() for node in nodes), key=lambda node: node.number)
    return (*found, *(Pair(node, None) for node in gone))


def _key(node: Node) -> tuple[str, frozenset[str]]:
    kind = "scan" if _reads(node) else _KINDS.get(node.type, node.type)
    return kind, frozenset(_relation(each) for each in node.walk() if _reads(each))


def _reads(node: Node) -> bool:
    return node.type.endswith("Scan") and node.type != "Bitmap Index Scan"


def _relation(node: Node) -> str:
    return node.alias or node.relation or node.subplan


def _whole(before: Plan, after: Plan) -> list[str]:
    if before.total_ms is not None and after.total_ms is not None:
        told = [_changed("it takes", before.total_ms, after.total_ms, _duration)]
        told.append(_changed("it touches", before.root.blocks.touched, after.root.blocks.touched, _blocks))
    else:
        told = [_changed("the planner's cost is", before.root.cost or 0, after.root.cost or 0, "{:,.0f}".format)]
    return [each for each in told if each]


def _changed(verb: str, before: float, after: float, shown: Callable[[float], str]) -> str:
    if not before or not after:
        return f"{verb} {shown(after)} instead of {shown(before)}" if before != after else ""
    times = max(before / after, after / before)
    if times < WORTH_TELLING:
        return ""
    return f"{verb} {shown(after)} instead of {shown(before)}: {_times(times)} times {'less' if after < before else 'more'}"


def _step(pair: Pair) -> str:
    """Return what became of one step; scans and joins by what they do, the others by whether they are there."""
    before, after = pair.before, pair.after
    if before and after:
        if before.name == after.name and before.index == after.index:
            return ""
        what = "is read by" if _reads(after) else "are joined by" if _KINDS.get(after.type) == "join" else ""
        subject = _subject(after)
        return (
            f"{subject} {what} {_manner(after)} instead of {_manner(before)}"
            if what
            else f"{after.name} instead of {before.name}"
        )
    if pair.either.type in ("Bitmap Index Scan", "Hash", "Materialize"):
        return ""  # part of the scan or join that is told already
    return f"new: {after.name}" if after else f"gone: {pair.either.name}"


def _subject(node: Node) -> str:
    names = sorted({_relation(each) for each in node.walk() if _reads(each)})
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _manner(node: Node) -> str:
    """Return a step's name without its target, with the index it goes by."""
    indexes = [node.index] if node.index else [each.index for each in node.children if each.type in _BITMAP]
    name = node.name.partition(" on ")[0].partition(" using ")[0]
    return f"{name} using {' and '.join(filter(None, indexes))}" if any(indexes) else name


_BITMAP = ("Bitmap Index Scan",)


def _troubles(before: Plan, after: Plan) -> list[str]:
    """Return how spills and misestimates changed."""
    told = []
    size = [sum(each.disk_bytes for each in spills(plan)) for plan in (before, after)]
    if size[0] and not size[1]:
        told.append(f"nothing goes to disk any more, {size[0] / 2**20:,.1f} MiB did")
    elif size[1] and not size[0]:
        told.append(f"{size[1] / 2**20:,.1f} MiB go to temporary files, nothing did")
    off = [max((each.times for each in misestimates(plan)), default=1.0) for plan in (before, after)]
    if before.is_executed and after.is_executed and max(off) / min(off) >= 2:
        told.append(f"the worst estimate of rows is off {_by(off[1])}; it was {_by(off[0])}")
    return told


def _by(times: float) -> str:
    return "by less than 10 times" if times == 1 else f"by {times:,.0f} times"


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}"


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:,.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:,.3g} s"


def _blocks(count: float) -> str:
    return f"{count:,.0f} blocks"
