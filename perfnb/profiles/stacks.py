"""Collapsed stacks: read them, prune them, tell self from total time, and compare two sets.

The one in-memory form is a mapping from a stack, root first, to the number of samples that showed it. It is what
``py-spy record -f raw``, ``perf`` after ``stackcollapse`` and most other samplers write, a line a stack:
``main (app.py:3);work (app.py:7) 12``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from sys import stdlib_module_names
from typing import Literal

Stack = tuple[str, ...]
Stacks = Mapping[Stack, int]
Origin = Literal["app", "package", "python"]

SMALLEST_SHARE = 0.001  # a node below 0.1 % of all samples is a hair's breadth in a drawing

NO_FRAMES = "(no Python frames)"  # py-spy writes a bare number for a thread that is in none

_LINE = re.compile(r"^(?:(?P<stack>.*\S)\s+)?(?P<samples>\d{1,18})$", re.DOTALL)
_FRAME = re.compile(r"^(?P<function>.+) \((?P<file>.+?)(?::(?P<line>\d+))?\)$", re.DOTALL)

_PLACES = (
    re.compile(r"(?:.*/|)((?:site|dist)-packages/.*)", re.DOTALL),
    re.compile(r"(?:.*/|)lib(?:64)?/(python3\.\d+t?/.*)", re.DOTALL),
)
_HOME = re.compile(r"(?:[A-Za-z]:)?/(?:home|Users|export/home)/[^/]+|(?:/var)?/root")


@dataclass(frozen=True)
class Parsed:
    """Stacks read from a text, and the lines that were none: (line number, text)."""

    stacks: Stacks
    bad_lines: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Pruned:
    """Stacks cut where they get too rare to draw, how many nodes that hid, and the share of samples that end there."""

    stacks: Stacks
    hidden_nodes: int
    hidden_share: float

    def __str__(self) -> str:
        if not self.hidden_nodes:
            return "nothing hidden"
        return f"{self.hidden_nodes:,} rare frames with {self.hidden_share:.1%} of the samples hidden"


@dataclass(frozen=True)
class FrameTime:
    """How many samples ended in a frame (self) and how many had it anywhere (total), as numbers and shares of all."""

    frame: str
    self_samples: int
    total_samples: int
    self_share: float
    total_share: float


@dataclass(frozen=True)
class Change:
    """The share of samples a frame had before and after, ``by`` ending there (self) and by being there (total)."""

    frame: str
    self_before: float
    self_after: float
    total_before: float
    total_after: float

    @property
    def self_change(self) -> float:
        """Return after minus before: 0.05 is five points more of all samples."""
        return self.self_after - self.self_before


def parse(text: str) -> Parsed:
    """Return the stacks in ``text``, equal ones added up; blank lines and ``#`` comments are skipped."""
    stacks: Counter[Stack] = Counter()
    bad = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.match(line)
        stack = frames(match["stack"] or NO_FRAMES) if match else ()
        if match and stack:
            stacks[stack] += int(match["samples"])
        else:
            bad.append((number, line))
    return Parsed(dict(stacks), tuple(bad))


def frames(collapsed: str) -> Stack:
    """Return the frames of one collapsed stack, root first."""
    return tuple(frame for part in collapsed.split(";") if (frame := part.strip()))


def collapsed(stack: Stack) -> str:
    """Return ``stack`` as one line without its samples; what would break the line is replaced."""
    return ";".join(_clean(frame) for frame in stack)


def gathered(rows: Iterable[tuple[str, int]]) -> Stacks:
    """Return the stacks of ``rows`` of (collapsed stack, samples), equal ones added up."""
    stacks: Counter[Stack] = Counter()
    for stack, samples in rows:
        stacks[frames(stack)] += int(samples)
    return dict(stacks)


def total(stacks: Stacks) -> int:
    """Return the number of samples."""
    return sum(stacks.values())


def totals(stacks: Stacks) -> dict[Stack, int]:
    """Return for each node, named by its path from the root, the samples at and below it."""
    nodes: Counter[Stack] = Counter()
    for stack, samples in stacks.items():
        for depth in range(1, len(stack) + 1):
            nodes[stack[:depth]] += samples
    return dict(nodes)


def pruned(stacks: Stacks, *, smallest_share: float = SMALLEST_SHARE) -> Pruned:
    """Return ``stacks`` without nodes below ``smallest_share`` of all samples; their samples end at the node below."""
    floor = smallest_share * total(stacks)
    nodes = totals(stacks)
    kept: Counter[Stack] = Counter()
    hidden = 0
    for stack, samples in stacks.items():
        depth = next((depth for depth in range(len(stack)) if nodes[stack[: depth + 1]] < floor), len(stack))
        kept[stack[:depth]] += samples
        hidden += samples if depth < len(stack) else 0
    hidden_nodes = sum(samples < floor for samples in nodes.values())
    return Pruned(dict(kept), hidden_nodes, hidden / total(stacks) if hidden else 0.0)


def table(stacks: Stacks) -> tuple[FrameTime, ...]:
    """Return self and total samples of every frame, most self time first; recursion counts once in a stack's total."""
    everything = total(stacks)
    ends, anywhere = _self_and_total(stacks)
    rows = (
        FrameTime(frame, ends[frame], samples, ends[frame] / everything, samples / everything)
        for frame, samples in anywhere.items()
        if samples
    )
    return tuple(sorted(rows, key=lambda row: (-row.self_samples, -row.total_samples, row.frame)))


def difference(before: Stacks, after: Stacks) -> tuple[Change, ...]:
    """Return how each frame's share of all samples changed, greatest change of self time first.

    Shares, not samples, are compared: the two sets may have been sampled for different times.
    """
    old = {row.frame: row for row in table(before)}
    new = {row.frame: row for row in table(after)}
    none = FrameTime("", 0, 0, 0.0, 0.0)
    changes = (
        Change(
            frame,
            old.get(frame, none).self_share,
            new.get(frame, none).self_share,
            old.get(frame, none).total_share,
            new.get(frame, none).total_share,
        )
        for frame in old.keys() | new.keys()
    )
    return tuple(sorted(changes, key=lambda change: (-abs(change.self_change), change.frame)))


@cache
def origin(frame: str) -> Origin:
    """Return whose code ``frame`` is: the app's, an installed package's, or Python's own."""
    match = _FRAME.match(frame)
    path = match["file"] if match else ""
    if re.search(r"(^|/)(site|dist)-packages/", path):
        return "package"
    if frame == NO_FRAMES or path.startswith("<") or re.search(r"(^|/)python3(\.\d+)?/", path):
        return "python"
    first, *rest = PurePosixPath(path).parts or ("",)
    is_module = first.removesuffix(".py") in stdlib_module_names
    return "python" if is_module and (rest or first.endswith(".py")) else "app"


def short_path(path: str) -> str:
    """Return ``path`` from its site-packages or python3.x folder on, else its last two parts, without a home folder.

    ``/usr/lib/python3.11/json/decoder.py`` becomes ``python3.11/json/decoder.py``.
    """
    path = path.replace("\\", "/")
    for place in _PLACES:
        if match := place.match(path):
            return match[1]
    folder, _, name = path.rpartition("/")
    parent = folder.rpartition("/")[2]
    return f"{parent}/{name}" if parent and not _is_home(folder) else name


def _is_home(folder: str) -> bool:
    return bool(_HOME.fullmatch(folder)) or folder == Path.home().as_posix()


def _self_and_total(stacks: Stacks) -> tuple[Counter[str], Counter[str]]:
    ends: Counter[str] = Counter()
    anywhere: Counter[str] = Counter()
    for stack, samples in stacks.items():
        if stack:
            ends[stack[-1]] += samples
        for frame in set(stack):
            anywhere[frame] += samples
    return ends, anywhere


def _clean(frame: str) -> str:
    return " ".join(frame.replace(";", ",").split()) or "?"
