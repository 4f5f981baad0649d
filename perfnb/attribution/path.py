"""The critical path of each request: which span or call the user was waiting for at each moment.

Going back from the end of a request, the child that ended last is what it waited for; before that child started, the
child that had ended last by then; what no child covers is the parent's own. Every moment is counted once, so parallel
work is not counted twice and the exclusive times add up to the request's duration.

Source: C. Yang and B. Miller, Critical path analysis for distributed programs (1988); the same walk as in Uber's CRISP.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from perfnb.attribution.trees import Node, trees
from perfnb.recording import Recording

# Enough for shares within a percent and a half of their true value; told beside every figure when it applies.
SAMPLE_REQUESTS = 4000

KINDS = ("model", "embedding", "retrieval", "database", "tool", "http", "cache", "agent", "backoff", "app")


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
