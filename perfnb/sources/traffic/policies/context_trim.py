"""Keep the first retrieved passages of a prompt: retrieval puts the best first.

Source: A5, A6, E21 (fewer passages)
"""

import re
from collections.abc import Iterator
from typing import Any

from perfnb.prompts.digest import CHARACTERS_PER_TOKEN
from perfnb.prompts.passages import passages
from perfnb.sources.traffic.policies.body import Body
from perfnb.sources.traffic.policies.settings import ContextTrim

_OPENED = re.compile(r"<\w+[^<>]*>\s*\Z")
_CLOSED = re.compile(r"\s*</\w+\s*>")
_RESULTS = ("tool_result", "function_call_output")
_READ = ("system", "developer", "user", "tool")


def trim_context(body: Body, settings: ContextTrim) -> None:
    """Take out passages beyond the limits, in every message that holds some; the first one always stays.

    Passages are recognised by their form (:mod:`perfnb.prompts.passages`); those inside JSON stay, as cutting there
    would break it.
    """
    for name in ("system", "instructions", "prompt", "messages", "input"):
        if body.operation != "embeddings" and name in body.values:
            body.set(name, _trimmed(body.values[name], settings))


def without_rest(text: str, settings: ContextTrim, *, is_from_tool: bool = False) -> str:
    """Return ``text`` without the passages beyond the limits."""
    found = passages(text, is_from_tool=is_from_tool)
    kept = _count(found, settings)
    if kept >= len(found):
        return text
    spans = list(_spans(text, found))
    if len(spans) < len(found) or all(text[start - 1 : start] == text[end : end + 1] == '"' for start, end in spans):
        return text  # inside JSON, or tagged by something not understood
    start, end = spans[kept][0], spans[-1][1]
    opened, closed = _OPENED.search(text[:start]), _CLOSED.match(text, end)
    if opened and closed:
        start, end = opened.start(), closed.end()
    return text[:start].rstrip(" \t") + text[end:].lstrip(" \t")


def _count(found: list[str], settings: ContextTrim) -> int:
    """Return how many passages stay."""
    count, tokens = 0, 0
    for passage in found[: settings.passages]:
        tokens += -(-len(passage) // CHARACTERS_PER_TOKEN)
        if count and settings.max_tokens is not None and tokens > settings.max_tokens:
            break
        count += 1
    return count


def _spans(text: str, found: list[str]) -> Iterator[tuple[int, int]]:
    at = 0
    for passage in found:
        start = text.find(passage, at)
        if start < 0:
            return
        at = start + len(passage)
        yield start, at


def _trimmed(content: Any, settings: ContextTrim, *, is_from_tool: bool = False) -> Any:
    """Return ``content``, a text, a message, a part or a list of them, with its texts trimmed."""
    if isinstance(content, str):
        return without_rest(content, settings, is_from_tool=is_from_tool)
    if isinstance(content, list):
        return [_trimmed(part, settings, is_from_tool=is_from_tool) for part in content]
    if isinstance(content, dict) and content.get("role", "user") in _READ:
        from_tool = is_from_tool or content.get("role") == "tool" or content.get("type") in _RESULTS
        return {key: _trimmed(value, settings, is_from_tool=from_tool) if key in ("content", "text", "output") else value
                for key, value in content.items()}  # fmt: skip
    return content
