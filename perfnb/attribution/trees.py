"""The tree of each request: its spans and model calls, each below what waited for it.

Spans are taken as they come but for four things. The spans that ASGI's instrumentation makes for pieces of a body are
left out: the one that waits for the client to hang up lasts as long as the request. A span that sees the same wait as a
call once more is dropped. A call that no span shows hangs under the innermost span around it. What outlives the span it
was started in was not awaited there, and hangs under the first one above that lasts as long.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from perfnb.recording import Recording

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


# Ends of spans that belong together are told a little apart.
SLACK_NS = 5_000_000

PIECE_OF_A_BODY = """
(name LIKE '% send' OR name LIKE '% receive') AND json_extract_string(attributes, '$."asgi.event.type"') IS NOT NULL
"""
"""Which rows of ``spans`` ASGI's instrumentation makes for each message that a server sends or awaits; names, being
quicker to look at than attributes, come first."""

_HOST = " , ".join(
    f"json_extract_string(attributes, '$.\"{name}\"')" for name in ("server.address", "net.peer.name", "http.host")
)


@dataclass(slots=True)
class Node:
    """One span, call or request; times in ns. Attempts of one call have one ``chain``."""

    id: str
    name: str
    kind: str
    start: int
    end: int
    call_id: str | None = None
    first_token: int | None = None
    chain: str | None = None
    stage: str = ""
    children: "list[Node]" = field(default_factory=list)

    def encloses(self, other: "Node") -> bool:
        """Tell whether ``other`` lies within this node's time."""
        return self.start <= other.start + SLACK_NS and self.end >= other.end - SLACK_NS


def trees(recording: Recording, requests: pd.DataFrame) -> Iterator[tuple[str, Node]]:
    """Yield each request's id and its tree of spans and calls."""
    wanted = requests[["request_id", "trace_id", "span_id"]]
    connection = recording.refresh()
    connection.register("wanted_requests", wanted)
    spans = connection.execute(
        "SELECT trace_id, span_id, parent_span_id, name, operation, start_time, duration_ms, "
        f"CASE WHEN operation = 'http' THEN coalesce({_HOST}) END AS host "
        f"FROM spans WHERE trace_id IN (SELECT trace_id FROM wanted_requests) AND NOT ({PIECE_OF_A_BODY})"
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


def _by(frame: pd.DataFrame, column: str) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = {}
    position = list(frame.columns).index(column)
    for row in frame.itertuples(index=False, name="Row"):
        grouped.setdefault(row[position], []).append(row)
    return grouped


def _tree(request: Any, spans: Iterable[Any], calls: Collection[Any]) -> Node:
    root = Node(request.request_id, request.route or "request", "app", int(request.start_time), int(request.end_time))
    nodes = {span.span_id: _of_span(span) for span in spans}
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
    for node in (*nodes.values(), *chains.values(), root):
        _settle(node)
    _lift(root)
    _name_stages(root)
    return root


def _of_span(span: Any) -> Node:
    start = int(span.start_time)
    name = f"{span.name} {span.host}" if isinstance(span.host, str) and span.host not in span.name else span.name
    kind = _KIND_OF_OPERATION.get(span.operation, "app")
    return Node(span.span_id, name, kind, start, start + int((span.duration_ms or 0) * 1e6))


def _attach(call: Any, nodes: dict[str, Node], chains: dict[str, Node] | None, root: Node) -> None:
    """Hang a call under its span, or let the span be the call where only the span saw it."""
    start, end = int(call.start_time), int(call.end_time)
    kind = _KIND_OF_OPERATION.get(call.operation, "http")
    first = None if pd.isna(call.time_to_first_token_ms) else start + int(call.time_to_first_token_ms * 1e6)
    own = nodes.get(call.span_id)
    name = f"{call.operation} {call.model}" if call.model else call.operation
    if own is not None and own.start == start and own.call_id is None and not own.children:
        own.call_id, own.kind, own.name, own.first_token, own.chain = call.call_id, kind, name, first, call.chain
        return
    node = Node(call.call_id, name, kind, start, end, call.call_id, first, call.chain)
    parent = own or nodes.get(call.parent_span_id) or _innermost(node, nodes, root)
    if own is None and chains is not None:  # no span holds the attempts of this prompt together: let a node of ours do
        if call.chain not in chains:
            chains[call.chain] = _holding([node])
            parent.children.append(chains[call.chain])
        parent = chains[call.chain]
        parent.start, parent.end = min(parent.start, start), max(parent.end, end)
    parent.children.append(node)


def _innermost(call: Node, nodes: dict[str, Node], root: Node) -> Node:
    """Return the shortest span around ``call``; one that is a call itself is no part of the app."""
    around = [node for node in nodes.values() if node.kind not in ("model", "embedding") and node.encloses(call)]
    return min(around, key=lambda node: node.end - node.start, default=root)


def _holding(attempts: list[Node]) -> Node:
    """Return a node for the attempts at one call; what none of them covers is the wait between them."""
    first = attempts[0]
    start, end = min(node.start for node in attempts), max(node.end for node in attempts)
    return Node(f"chain {first.chain}", f"between attempts: {first.name}", "backoff", start, end)


def _settle(node: Node) -> None:
    """Tell the time between attempts from the app's, and drop the HTTP spans that see the same wait once more."""
    calls = [child for child in node.children if child.call_id is not None]
    if node.call_id is not None or node.kind in ("model", "embedding"):  # a client's span: all below it are attempts
        node.children = [child for child in node.children if child.call_id is not None or child.kind != "http"]
        if len(calls) > 1:
            node.kind, node.name = "backoff", f"between attempts: {node.name}"
        return
    node.children = [child for child in node.children if child.call_id is not None or not _repeats(child, calls)]
    if node.kind != "backoff":
        _gather_attempts(node, calls)


def _repeats(child: Node, calls: list[Node]) -> bool:
    return child.kind == "http" and any(call.encloses(child) for call in calls)


def _gather_attempts(node: Node, calls: list[Node]) -> None:
    """Put the calls of one chain that stand beside each other below a node of their own."""
    chains = defaultdict(list)
    for call in calls:
        chains[call.chain].append(call)
    for attempts in chains.values():
        if len(attempts) > 1:
            held = _holding(attempts)
            held.children = attempts
            node.children = [child for child in node.children if child not in attempts] + [held]


def _lift(root: Node) -> None:
    """Hang what outlives its parent under the first node above that lasts as long."""
    parent_of = {id(child): node for node, _ in in_drawing_order(root) for child in node.children}
    for node in [each for each, _ in in_drawing_order(root)]:
        parent = above = parent_of.get(id(node))
        while above is not None and node.end > above.end + SLACK_NS and id(above) in parent_of and above is not root:
            above = parent_of[id(above)]
        if parent is not None and above is not None and above is not parent:
            parent.children.remove(node)
            above.children.append(node)
            parent_of[id(node)] = above


def _name_stages(root: Node) -> None:
    """Give every node the outermost step of the app above it; spans that merely wrap the whole request are passed."""
    whole = root.end - root.start
    outer = [root]
    while outer:
        for child in outer.pop().children:
            if child.kind not in ("app", "retrieval", "tool", "agent", "http"):
                continue
            if child.children and child.end - child.start > WRAPS * whole:
                outer.append(child)
            else:
                for node, _ in in_drawing_order(child):
                    node.stage = child.name
