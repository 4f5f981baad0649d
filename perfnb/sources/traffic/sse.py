"""Read an event stream, keeping when each event was complete.

Source: WHATWG HTML, "Server-sent events", 9.2.6 (interpreting an event stream)
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DONE = "[DONE]"


@dataclass(frozen=True)
class Event:
    """One event: its name ("message" where none was given), its data, and the time its last byte came."""

    name: str
    data: str
    time: float


def events(pieces: Iterable[tuple[float, bytes]]) -> Iterator[Event]:
    """Yield the events in ``pieces`` (time, bytes), however the bytes were cut; comments and empty events are left out.

    A last event that its stream did not finish with an empty line is yielded too where it has data: streams that were
    cut off, and servers that leave the last line out, are as interesting as the others.
    """
    name, data, time = "", list[str](), 0.0
    for time, line in _lines(pieces):
        if not line:
            if data:
                yield Event(name or "message", "\n".join(data), time)
            name, data = "", []
            continue
        field, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        if field == b"data":
            data.append(text)
        elif field == b"event":
            name = text
    if data:
        yield Event(name or "message", "\n".join(data), time)


def _lines(pieces: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """Yield lines without their ends (LF, CR LF or CR) and the time each was complete."""
    rest, time, is_first = b"", 0.0, True
    for time, piece in pieces:
        rest += piece
        if is_first and rest.startswith(b"\xef\xbb\xbf"):
            rest = rest[3:]
        ends_in_cr = rest.endswith(b"\r")  # its LF may come with the next piece
        whole = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, len(rest) - 1 if ends_in_cr else len(rest))) + 1
        if not whole:
            continue
        is_first = False
        lines, rest = rest[:whole].splitlines(), rest[whole:]
        for line in lines:
            yield time, line
    for line in rest.splitlines():
        yield time, line
