"""The critical path of each request: which span or call the user was waiting for at each moment.

Going back from the end of a request, the child that ended last is what it waited for; before that child started, the
child that had ended last by then; what no child covers is the parent's own. Every moment is counted once, so parallel
work is not counted twice and the exclusive times add up to the request's duration.

Source: C. Yang and B. Miller, Critical path analysis for distributed programs (1988); the same walk as in Uber's CRISP.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from perfnb.recording import Recording

# Enough for shares within a percent and a half of their true value; told beside every figure when it applies.
SAMPLE_REQUESTS = 4000

KINDS = ("model", "embedding", "retrieval", "database", "tool", "http", "cache", "agent", "backoff", "app")

# A span longer than this part of its request is a wrapper, not a stage of it.
WRAPS = 0.95

_KIND_OF_OPERATION = {
    "chat": "model",
    "text_completion": "model",
    "responses": "model",
    "generate_content": "model",
    "embeddings": "embedding",
    "retrieval": "retrieval",
    "database": "database",
    "tool": "tool",
    "agent": "agent",
    "http": "http",
    "cache": "cache",
}


@dataclass(slots=True)
class Node:
    """One span, call or request; times in ns."""

    id: str
    name: str
    kind: str
    start: int
    end: int
    call_id: str | None = None
    first_token: int | None = None
    stage: str = ""
    children: "list[Node]" = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Segment:
    """A piece of a request's time that one node alone explains; times in ns."""

    node: Node
    start: int
    end: int
    depth: int


def critical_segments(root: Node) -> Iterator[Segment]:
    """Yield the pieces of the critical path below ``root``, latest first; they tile its interval without overlap."""
    stack: list[tuple[Node, int, int, int]] = [(root, root.start, root.end, 0)]
    seen = {id(root)}
    while stack:
        node, begin, cursor, depth = stack.pop()
        for child in sorted(node.children, key=lambda each: (each.end, each.start), reverse=True):
            child_start, child_end = max(child.start, begin), min(child.end, cursor)
            if child_end <= child_start or id(child) in seen:  # seen: a broken trace whose parents form a ring
                continue
            seen.add(id(child))
            if cursor > child_end:
                yield Segment(node, child_end, cursor, depth)
            stack.append((child, child_start, child_end, depth + 1))
            cursor = child_start
        if cursor > begin:
            yield Segment(node, begin, cursor, depth)


def sampled_requests(recording: Recording, limit: int = SAMPLE_REQUESTS) -> pd.DataFrame:
    """Return ``user_requests``, or a sample of ``limit`` chosen by hash where there are more."""
    (total,) = recording.refresh().execute("SELECT count(*) FROM user_requests").fetchone() or (0,)
    columns = "request_id, trace_id, span_id, route, start_time, end_time, duration_ms"
    if total <= limit:
        return recording.query(f"SELECT {columns} FROM user_requests ORDER BY start_time")
    return recording.query(
        f"SELECT {columns} FROM user_requests ORDER BY hash(request_id) LIMIT $limit", {"limit": limit}
    )


def paths(recording: Recording, requests: pd.DataFrame) -> pd.DataFrame:
    """Return the critical path of ``requests``.

    One row is one node on the path: request_id, id, call_id, name, kind, stage (the outermost named step of the app it
    belongs to, or ""), exclusive_ms, before_first_token_ms (the part of a call's time before its first token).
    """
    rows = []
    for request_id, root in trees(recording, requests):
        for segment in critical_segments(root):
            node = segment.node
            waited = 0.0
            if node.first_token is not None:
                waited = max(0, min(segment.end, node.first_token) - segment.start) / 1e6
            exclusive = (segment.end - segment.start) / 1e6
            rows.append((request_id, node.id, node.call_id, node.name, node.kind, node.stage, exclusive, waited))
    columns = ["request_id", "id", "call_id", "name", "kind", "stage", "exclusive_ms", "before_first_token_ms"]
    frame = pd.DataFrame(rows, columns=columns)
    keys = columns[:6]
    return frame.groupby(keys, dropna=False, sort=False)[columns[6:]].sum().reset_index()


def trees(recording: Recording, requests: pd.DataFrame) -> Iterator[tuple[str, Node]]:
    """Yield each request's id and its tree of spans and calls."""
    wanted = requests[["request_id", "trace_id", "span_id"]]
    connection = recording.refresh()
    connection.register("wanted_requests", wanted)
    spans = connection.execute(
        "SELECT s.trace_id, s.span_id, s.parent_span_id, s.name, s.operation, s.start_time, s.duration_ms "
        "FROM spans s WHERE s.trace_id IN (SELECT trace_id FROM wanted_requests)"
    ).df()
    calls = connection.execute(
        "SELECT request_id, call_id, chain, span_id, parent_span_id, operation, coalesce(request_model, path) AS model, "
        "start_time, end_time, time_to_first_token_ms, error_type FROM owned_calls "
        "WHERE request_id IN (SELECT request_id FROM wanted_requests)"
    ).df()
    connection.unregister("wanted_requests")
    spans_of = _by(spans, "trace_id")
    calls_of = _by(calls, "request_id")
    for request in requests.itertuples(index=False):
        yield (
            str(request.request_id),
            _tree(request, spans_of.get(request.trace_id, ()), calls_of.get(request.request_id, ())),
        )


def _by(frame: pd.DataFrame, column: str) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = {}
    position = list(frame.columns).index(column)
    for row in frame.itertuples(index=False, name="Row"):
        grouped.setdefault(row[position], []).append(row)
    return grouped


def _tree(request: Any, spans: Iterable[Any], calls: Collection[Any]) -> Node:
    root = Node(request.request_id, request.route or "request", "app", int(request.start_time), int(request.end_time))
    nodes: dict[str, Node] = {}
    for span in spans:
        start = int(span.start_time)
        kind = _KIND_OF_OPERATION.get(span.operation, "app")
        nodes[span.span_id] = Node(span.span_id, span.name, kind, start, start + int((span.duration_ms or 0) * 1e6))
    if request.span_id in nodes:
        nodes[request.span_id].id = root.id  # the server span is the request itself, seen from inside
    for span in spans:
        parent = nodes.get(span.parent_span_id, root)
        node = nodes[span.span_id]
        (parent if parent is not node else root).children.append(node)
    attempts = Counter(call.chain for call in calls)
    chains: dict[str, Node] = {}
    for call in calls:
        _attach(call, nodes, chains if attempts[call.chain] > 1 else None, root)
    for node in (*nodes.values(), *chains.values()):
        _settle(node)
    _name_stages(root)
    return root


def _name_stages(root: Node) -> None:
    """Give every node the outermost step of the app above it; spans that merely wrap the whole request are passed."""
    whole = root.end - root.start
    outer = [root]
    while outer:
        for child in outer.pop().children:
            if child.kind not in ("app", "retrieval", "tool", "agent"):
                continue
            if child.children and child.end - child.start > WRAPS * whole:
                outer.append(child)
            else:
                for node, _ in in_drawing_order(child):
                    node.stage = child.name


def _attach(call: Any, nodes: dict[str, Node], chains: dict[str, Node] | None, root: Node) -> None:
    """Hang a call under its span, or let the span be the call where only the span saw it."""
    start, end = int(call.start_time), int(call.end_time)
    kind = _KIND_OF_OPERATION.get(call.operation, "http")
    first = None if pd.isna(call.time_to_first_token_ms) else start + int(call.time_to_first_token_ms * 1e6)
    own = nodes.get(call.span_id)
    name = f"{call.operation} {call.model}" if call.model else call.operation
    if own is not None and own.start == start and own.call_id is None and not own.children:
        own.call_id, own.kind, own.name, own.first_token = call.call_id, kind, name, first
        return
    node = Node(call.call_id, name, kind, start, end, call.call_id, first)
    parent = own or nodes.get(call.parent_span_id) or root
    if own is None and chains is not None:  # no span holds the attempts of this prompt together: let a node of ours do
        if call.chain not in chains:
            chains[call.chain] = Node(f"chain {call.chain}", name, "app", start, end)
            parent.children.append(chains[call.chain])
        parent = chains[call.chain]
        parent.start, parent.end = min(parent.start, start), max(parent.end, end)
    parent.children.append(node)


def _settle(node: Node) -> None:
    """Name the time around attempts, and drop the HTTP spans that see the same wait once more."""
    attempts = sum(child.call_id is not None for child in node.children)
    if node.call_id is None and not attempts:
        return
    node.children = [child for child in node.children if child.call_id is not None or child.kind != "http"]
    if attempts > 1 and node.kind in ("model", "embedding", "app"):
        node.kind, node.name = "backoff", f"between attempts: {node.name}"


def in_drawing_order(root: Node) -> Iterator[tuple[Node, int]]:
    """Yield each node once with its depth, children after their parent by start."""
    stack, seen = [(root, 0)], set()
    while stack:
        node, depth = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node, depth
        stack += [(child, depth + 1) for child in sorted(node.children, key=lambda each: each.start, reverse=True)]
