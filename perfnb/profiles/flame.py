"""A flame graph as one piece of SVG: no script, no font, no network; reads in light and dark.

Root on top, one row a call depth, width is the share of samples. Hovering (or a screen reader's table beside it) tells
a frame's full name and figures. Equal stacks give equal bytes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape

from perfnb.profiles.stacks import Origin, Stacks, origin, pruned, total, totals

WIDTH = 1200
ROW = 18
FONT = 11
LETTER = 6.62  # advance of one monospaced letter at 11 px
HEAD = 44

# Okabe and Ito's orange and blue, lightened: they differ in brightness too, and black text reads on all of them.
COLOURS: dict[Origin, str] = {"app": "#f2bb55", "package": "#9fd0ee", "python": "#cfcfcf"}
WORDS: dict[Origin, str] = {"app": "app", "package": "installed packages", "python": "Python itself"}
MORE, SAME, LESS = "#f2bb55", "#d9d9d9", "#8cc5ec"
NOTICEABLE = 0.005

_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


@dataclass
class _Node:
    """One box of the drawing."""

    frame: str
    samples: int = 0
    children: dict[str, "_Node"] = field(default_factory=dict)


@dataclass(frozen=True)
class _Drawing:
    """What a box needs besides itself: the scale, and the set it is compared with."""

    everything: int
    before: dict[tuple[str, ...], int]
    everything_before: int

    def change(self, path: tuple[str, ...], samples: int) -> float | None:
        """Return by how much the node's share grew, or None where nothing is compared."""
        if not self.everything_before:
            return None
        return samples / self.everything - self.before.get(path, 0) / self.everything_before


def flame(stacks: Stacks, *, title: str = "Where time goes", before: Stacks | None = None) -> str:
    """Return an SVG flame graph of ``stacks``; with ``before`` given, boxes are coloured by how their share changed.

    Frames below 0.1 % of the samples are left out, and the line under the title says how many.
    """
    everything = total(stacks)
    if not everything:
        return _empty(title)
    shown = pruned(stacks)
    drawing = _Drawing(everything, totals(before or {}), total(before or {}))
    root = _tree(shown.stacks)
    boxes = "".join(_boxes(root, drawing, 0.0, 0, ()))
    height = HEAD + ROW * _depth(root) + 6
    told = f"{everything:,} samples; {shown}"
    return _svg(title, told, height, _legend(compared=before is not None) + boxes)


def _tree(stacks: Stacks) -> _Node:
    root = _Node("", total(stacks))
    for stack, samples in stacks.items():
        node = root
        for frame in stack:
            node = node.children.setdefault(frame, _Node(frame))
            node.samples += samples
    return root


def _depth(node: _Node) -> int:
    depth, level = 0, list(node.children.values())
    while level:
        depth, level = depth + 1, [child for one in level for child in one.children.values()]
    return depth


def _boxes(root: _Node, drawing: _Drawing, left: float, row: int, path: tuple[str, ...]) -> Iterator[str]:
    """Yield the boxes below ``root``, children in alphabetical order so that equal code lies at equal places."""
    waiting = [(root, left, row, path)]
    while waiting:
        node, left, row, path = waiting.pop()
        for child in sorted(node.children.values(), key=lambda child: child.frame):
            below = (*path, child.frame)
            yield _box(child, drawing, left, row, below)
            waiting.append((child, left, row + 1, below))
            left += WIDTH * child.samples / drawing.everything


def _box(node: _Node, drawing: _Drawing, left: float, row: int, path: tuple[str, ...]) -> str:
    width = WIDTH * node.samples / drawing.everything
    top = HEAD + row * ROW
    change = drawing.change(path, node.samples)
    told = f"{node.frame}\n{node.samples:,} samples, {node.samples / drawing.everything:.1%} of all"
    if change is not None:
        told += f", {change * 100:+.1f} points"
    colour = _colour(node.frame, change)
    gap = 0.6 if width > 2 else 0.0
    rect = f'<rect x="{left:.2f}" y="{top}" width="{width - gap:.2f}" height="{ROW - 1}" rx="1" fill="{colour}"/>'
    return f"<g><title>{_text(told)}</title>{rect}{_label(node.frame, left, top, width)}</g>"


def _label(frame: str, left: float, top: int, width: float) -> str:
    room = int((width - 6) / LETTER)
    if room < 3:
        return ""
    words = _fitting(frame, room)
    return f'<text x="{left + 3:.2f}" y="{top + 12.5}" fill="#111">{_text(words)}</text>'


def _fitting(frame: str, room: int) -> str:
    """Return ``frame``, or its function (a module's file) alone, or the beginning of that: whatever has room."""
    if len(frame) <= room:
        return frame
    function, _, place = frame.partition(" (")
    words = "/".join(place.rstrip(")").split("/")[-2:]) if function == "<module>" else function
    return words if len(words) <= room else words[: room - 1] + "…"


def _colour(frame: str, change: float | None) -> str:
    if change is None:
        return COLOURS[origin(frame)]
    return MORE if change > NOTICEABLE else LESS if change < -NOTICEABLE else SAME


def _legend(*, compared: bool) -> str:
    entries = (
        [(MORE, "more than before"), (SAME, "as before"), (LESS, "less than before")]
        if compared
        else [(COLOURS[kind], WORDS[kind]) for kind in COLOURS]
    )
    parts, right = [], float(WIDTH)
    for colour, words in reversed(entries):
        right -= len(words) * LETTER + 4
        parts.append(f'<text x="{right:.1f}" y="14" fill="currentColor">{words}</text>')
        right -= 15
        parts.append(f'<rect x="{right:.1f}" y="4" width="11" height="11" rx="1" fill="{colour}"/>')
        right -= 12
    return "".join(parts)


def _empty(title: str) -> str:
    return _svg(title, "no samples", HEAD, "")


def _svg(title: str, told: str, height: int, drawing: str) -> str:
    name = _text(f"Flame graph: {title}. {told}.")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="100%" role="img" '
        f'aria-label="{name}" font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" '
        f'font-size="{FONT}" color-interpolation="sRGB"><style>.pnb-flame g:hover rect{{stroke:currentColor;'
        f'stroke-width:1.5}}</style><g class="pnb-flame">'
        f'<text x="0" y="15" font-size="14" font-weight="bold" fill="currentColor">{_text(title)}</text>'
        f'<text x="0" y="33" fill="currentColor" fill-opacity="0.75">{_text(told)}</text>{drawing}</g></svg>'
    )


def _text(text: str) -> str:
    """Return ``text`` escaped, without the characters that XML forbids."""
    return escape(_FORBIDDEN.sub("\ufffd", text))
