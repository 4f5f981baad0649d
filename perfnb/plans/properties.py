"""The lines under a node of text EXPLAIN: to the fields that FORMAT JSON has for them."""

import re
from collections.abc import Callable
from typing import Any

Fields = dict[str, Any]

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_PAIR = re.compile(r"([A-Za-z][A-Za-z -]*?)(?:: |=)([0-9.]+)")
_LISTS = ("Sort Key", "Presorted Key", "Group Key", "Output", "Params Evaluated")
_TIMES = {"read": "Read", "write": "Write"}


def add_property(fields: Fields, name: str, value: str) -> None:
    """Put the property ``name: value`` into ``fields``; one that is not known is kept as it stands."""
    reader = _READERS.get(name)
    if reader is not None:
        reader(fields, name, value)
    elif name in _LISTS:
        fields[name] = _items(value)
    else:
        fields[name] = plain(value)


def add_worker_line(fields: Fields, number: int, words: str) -> None:
    """Put what a line tells of one worker into its entry."""
    workers = fields.setdefault("Workers", [])
    worker = next((each for each in workers if each["Worker Number"] == number), None)
    if worker is None:
        worker = {"Worker Number": number}
        workers.append(worker)
    else:  # the lines below are about this one
        workers.remove(worker)
        workers.append(worker)
    if found := re.match(r"actual (?:time=([0-9.]+)\.\.([0-9.]+) )?rows=([0-9.]+) loops=([0-9]+)", words):
        names = ("Actual Startup Time", "Actual Total Time", "Actual Rows", "Actual Loops")
        worker |= {name: plain(each) for name, each in zip(names, found.groups(), strict=True) if each is not None}
    elif ":" in words:
        name, _, value = words.partition(":")
        add_property(worker, name, value.strip())


def _buffers(fields: Fields, name: str, value: str) -> None:
    for group in value.split(", "):
        kind, _, counts = group.partition(" ")
        for what, count in re.findall(r"(hit|read|dirtied|written)=(\d+)", counts):
            fields[f"{kind.title()} {what.title()} Blocks"] = int(count)


def _io_timings(fields: Fields, name: str, value: str) -> None:
    for group in value.split(", "):
        kind, _, rest = group.partition(" ") if group[:5] not in ("read=", "write") else ("", "", group)
        for what, ms in re.findall(r"(read|write)=([0-9.]+)", rest):
            fields[f"{kind.title()} I/O {_TIMES[what]} Time".strip()] = float(ms)


def _wal(fields: Fields, name: str, value: str) -> None:
    names = {"records": "WAL Records", "fpi": "WAL FPI", "bytes": "WAL Bytes"}
    fields |= {names[what]: int(n) for what, n in re.findall(r"(records|fpi|bytes)=(\d+)", value)}


def _sort(fields: Fields, name: str, value: str) -> None:
    method, _, space = re.sub(r" {2,}", "\t", value.strip()).partition("\t")
    if not space:  # blanks may have been made one on the way
        found = re.match(r"(.*?)\s+((?:Memory|Disk): .*)", value)
        method, space = (found[1], found[2]) if found else (value, "")
    fields["Sort Method"] = method
    if found := re.match(r"(Memory|Disk): (\d+)kB", space):
        fields |= {"Sort Space Type": found[1], "Sort Space Used": int(found[2])}


def _sort_groups(fields: Fields, name: str, value: str) -> None:
    """Read ``Full-sort Groups: 1  Sort Method: quicksort  Average Memory: 27kB  Peak Memory: 27kB``."""
    methods = re.search(r"Sort Methods?: (.*?)(?=\s+(?:Average|Peak)|$)", value)
    entry: Fields = {"Group Count": _leading(value), "Sort Methods Used": methods[1].split(", ") if methods else []}
    for average, kind, peak in re.findall(r"Average (Memory|Disk): (\d+)kB\s+Peak \w+: (\d+)kB", value):
        entry[f"Sort Space {average}"] = {"Average Sort Space Used": int(kind), "Peak Sort Space Used": int(peak)}
    fields[name] = entry


def _buckets(fields: Fields, name: str, value: str) -> None:
    """Read ``Buckets: 65536 (originally 1024)  Batches: 4 (originally 1)  Memory Usage: 3585kB``."""
    found = re.match(
        r"(\d+)(?: \(originally (\d+)\))?\s+Batches: (\d+)(?: \(originally (\d+)\))?\s+Memory Usage: (\d+)kB", value
    )
    if found is None:
        fields[name] = plain(value)
        return
    buckets, before, batches, batches_before, memory = found.groups()
    fields |= {
        "Hash Buckets": int(buckets),
        "Original Hash Buckets": int(before or buckets),
        "Hash Batches": int(batches),
        "Original Hash Batches": int(batches_before or batches),
        "Peak Memory Usage": int(memory),
    }


def _batches(fields: Fields, name: str, value: str) -> None:
    """Read what a hash aggregate used: ``Batches: 5  Memory Usage: 4145kB  Disk Usage: 3464kB``."""
    names = {"Batches": "HashAgg Batches", "Memory Usage": "Peak Memory Usage"}
    for what, number in _counts(name, value):
        fields[names.get(what, what)] = number


def _cache(fields: Fields, name: str, value: str) -> None:
    """Read what Memoize did: ``Hits: 5  Misses: 2  Evictions: 0  Overflows: 0  Memory Usage: 1kB``."""
    names = {"Memory Usage": "Peak Memory Usage"}
    for what, number in _counts(name, value):
        fields[names.get(what, f"Cache {what}")] = number


def _heap_blocks(fields: Fields, name: str, value: str) -> None:
    for what, count in re.findall(r"(exact|lossy)=(\d+)", value):
        fields[f"{what.title()} Heap Blocks"] = int(count)


def _storage(fields: Fields, name: str, value: str) -> None:
    kind, _, rest = value.partition(" ")
    fields["Storage"] = kind
    if found := re.search(r"Maximum Storage: (\d+)kB", rest):
        fields["Maximum Storage"] = int(found[1])


def _timing(fields: Fields, name: str, value: str) -> None:
    """Read the times of JIT: ``Generation 0.5 ms (Deform 0.1 ms), …, Total 3.3 ms``."""
    fields["Timing"] = {what: float(ms) for what, ms in re.findall(r"([A-Z]\w+) ([0-9.]+) ms", value)}


_READERS: dict[str, Callable[[Fields, str, str], None]] = {
    "Buffers": _buffers,
    "I/O Timings": _io_timings,
    "WAL": _wal,
    "Sort Method": _sort,
    "Full-sort Groups": _sort_groups,
    "Pre-sorted Groups": _sort_groups,
    "Pre-sorted Group": _sort_groups,
    "Buckets": _buckets,
    "Batches": _batches,
    "Planned Partitions": _batches,
    "Hits": _cache,
    "Heap Blocks": _heap_blocks,
    "Storage": _storage,
    "Timing": _timing,
}


def _counts(name: str, value: str) -> list[tuple[str, int]]:
    """Return the pairs of a line of several properties, the first of which was taken apart already."""
    return [(what, int(number)) for what, number in re.findall(r"([A-Z][\w ]*?): (\d+)", f"{name}: {value}")]


def _leading(value: str) -> int:
    found = re.match(r"\d+", value)
    return int(found[0]) if found else 0


def plain(value: str) -> Any:
    """Return a number or flag as such, everything else as text."""
    if value in ("true", "false"):
        return value == "true"
    if _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    return value


def _items(value: str) -> list[str]:
    """Split a list at the commas that stand in no parentheses and no quotes."""
    items, depth, quote, start = [], 0, "", 0
    for at, letter in enumerate(value):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([":
            depth += 1
        elif letter in ")]":
            depth -= 1
        elif letter == "," and depth <= 0:
            items.append(value[start:at].strip())
            start = at + 1
    return [*items, value[start:].strip()]
