"""The lines of a plan as EXPLAIN made them, without what psql, a log, a mail or a chat put around them."""

import re

_FENCE = re.compile(r"^\s*(?:```|~~~)\w*\s*$")
_HEAD = re.compile(r"^[\s|│║+]*QUERY PLAN[\s|│║+]*$", re.IGNORECASE)
_RULE = re.compile(r"^\s*[|+├┌└╔╟╚]?[-─═=+┼┬┴|]{3,}[|+┤┐┘╗╢╝]?\s*$")
_FOOT = re.compile(r"^\s*\(\d+ \w+\)\s*$")  # (12 rows), (12 Zeilen)
_QUOTED = re.compile(r"^\s*(?:(?:> ?)+|-- ?(?!-))")  # in a mail or a chat, or as comments of SQL
_FRAMED = re.compile(r"^\s*[|│║](.*?)[|│║]\s*$")
_WRAPPED = re.compile(r"^\s*\((?:cost=|actual |never executed)")
_QUOTES = re.compile(r'^\s*"(.*)"[,;]?$')  # pgAdmin and CSV files put them around each line
_CONTINUED = re.compile(r"^(.*?)\s*[+↵]$")


def plan_lines(text: str) -> list[str]:
    """Return the lines of a plan in ``text``, indentation kept, with frames, fences, quoting and continuations taken off."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ").strip("\ufeff").split("\n")
    lines = [line.rstrip() for line in lines]
    if _is_throughout(_QUOTED, lines):
        lines = [_QUOTED.sub("", line, count=1) for line in lines]
    lines = _without_frame([line for line in lines if not _FENCE.match(line)])
    if _is_throughout(_QUOTES, lines):
        lines = [_QUOTES.sub(lambda found: found[1].replace('""', '"'), line) for line in lines]
    return _joined([line.expandtabs(8) for line in _without_tab(lines)])


def _is_throughout(pattern: "re.Pattern[str]", lines: list[str]) -> bool:
    filled = [line for line in lines if line.strip()]
    return bool(filled) and all(pattern.match(line) for line in filled)


def _without_frame(lines: list[str]) -> list[str]:
    """Take off psql's heading, rules, bars and foot; what stands before the heading is no part of the plan."""
    head = next((at for at, line in enumerate(lines) if _HEAD.match(line)), None)
    if head is not None:
        lines = lines[head + 1 :]
    lines = [line for line in lines if not _RULE.match(line) and not _FOOT.match(line) and not _HEAD.match(line)]
    framed = [_FRAMED.match(line) for line in lines if line.strip()]
    if framed and all(framed):
        lines = [found[1].rstrip() for found in framed if found]
    if _is_throughout(_CONTINUED, [line for line in lines if line.strip()][:-1]):
        lines = [_CONTINUED.sub(r"\1", line) for line in lines]
    return lines


def _without_tab(lines: list[str]) -> list[str]:
    """Take off the tab that a server's log puts before each line but the first."""
    return [line.removeprefix("\t") for line in lines]


def _joined(lines: list[str]) -> list[str]:
    """Put what was wrapped after a node's name back behind it."""
    whole: list[str] = []
    for line in lines:
        if whole and _WRAPPED.match(line):
            whole[-1] += "  " + line.strip()
        else:
            whole.append(line)
    return whole
