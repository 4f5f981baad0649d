"""Read the texts of search results that stand in a text as JSON: an array, one object a line, fenced or not."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TEXT_KEYS = ("text", "content", "page_content", "passage", "chunk", "snippet", "body", "document")
MOST_FAILURES = 30
"""Brackets that begin no JSON before the search for some is given up: code is full of them."""

_OPENING = re.compile(r"[^\n\[{]{0,80}(?=[\[{])")
_DECODER = json.JSONDecoder()
_NOTHING_ELSE = re.compile(r"(?:\s|,|`{3}(?:jsonl?)?)*")


@dataclass(frozen=True)
class Held:
    """JSON values that stand in a text: lists of texts of one source each, and whether the text is nothing else."""

    lists: tuple[tuple[str, ...], ...]
    is_all: bool


def held_in_json(text: str) -> Held:
    """Return the texts of objects in the JSON that ``text`` holds: a list for each array and each run of lines."""
    lists: list[tuple[str, ...]] = []
    run: list[str] = []
    at, is_all = 0, True
    for value, start, end in _values(text):
        if _NOTHING_ELSE.fullmatch(text, at, start) is None:
            is_all = False
            lists.append(tuple(run))
            run = []
        at = end
        run += [_text_of(value)] if isinstance(value, dict) else []
        lists += _arrays(value)
    lists.append(tuple(run))
    return Held(tuple(filter(any, lists)), is_all and _NOTHING_ELSE.fullmatch(text, at) is not None)


def _arrays(value: Any) -> Iterator[tuple[str, ...]]:
    for entries in [value] if isinstance(value, list) else value.values():
        if isinstance(entries, list):
            yield tuple(_text_of(entry) for entry in entries)


def _text_of(entry: object) -> str:
    """Return the text of a search result; a message of a conversation, which tells its role, is none."""
    if not isinstance(entry, dict) or "role" in entry:
        return ""
    return next((entry[key] for key in TEXT_KEYS if isinstance(entry.get(key), str)), "")


def _values(text: str) -> Iterator[tuple[Any, int, int]]:
    """Yield each array or object that begins early in a line, with where it starts and ends."""
    at, failures = 0, 0
    while failures < MOST_FAILURES:
        if opening := _OPENING.match(text, at):
            try:
                value, end = _DECODER.raw_decode(text, opening.end())
            except (ValueError, RecursionError):
                failures += 1
            else:
                yield value, opening.end(), end
                at = end
                continue
        at = text.find("\n", at) + 1
        if not at:
            return
