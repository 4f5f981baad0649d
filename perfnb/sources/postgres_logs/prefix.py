"""What stands before each message of a stderr log: read by ``log_line_prefix`` where it is known, else as it looks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from perfnb.sources.postgres_logs.entries import FURTHER, LEVELS

_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? ?(?:[A-Z]{1,5}|[+-]\d\d(?::?\d\d)?)?"
_LEVEL = rf"(?P<level>{'|'.join((*LEVELS, *FURTHER))}):\s{{1,2}}(?P<message>.*)$"
_ESCAPES = {
    "a": "(?P<application>.*?)", "u": "(?P<user>.*?)", "d": "(?P<database>.*?)", "r": r"\S*?", "h": r"\S*?",
    "L": r"\S*?", "b": "[a-z A-Z]*?", "p": r"(?P<pid>\d+)", "P": r"\d*", "t": f"(?P<time>{_TIME})",
    "m": f"(?P<time>{_TIME})", "n": r"(?P<time>\d+\.\d+)", "i": ".*?", "e": "[0-9A-Z]{5}", "c": r"[0-9a-f]+\.[0-9a-f]+",
    "l": r"\d+", "s": _TIME, "v": r"\S*?", "x": r"\d+", "Q": r"(?P<queryid>-?\d*)",
}  # fmt: skip
_ESCAPE = re.compile(r"%(-?\d*)([a-zA-Z%])")

_ANY = re.compile(rf"^(?P<prefix>.{{0,400}}?){_LEVEL}")
_LOOKS = {
    "time": re.compile(rf"(?<![\d.])({_TIME}|\d{{10}}\.\d{{3}})"),
    "pid": re.compile(r"\[(\d+)(?:-\d+)?\]|\bpid=(\d+)"),
    "user": re.compile(r"\b(?:user|u)=([^,\s]*)|(?<![\w(])([\w.-]+)@[\w.-]+"),
    "database": re.compile(r"\b(?:db|database|d)=([^,\s]*)|[\w.-]+@([\w.-]+)"),
    "application": re.compile(r"\bapp(?:lication)?=(.*?)(?=,?\s*(?:client|user|db|host|\w+)=|[\s,\])]*$)"),
    "queryid": re.compile(r"\b(?:qid|query_id|queryid)=(-?\d+)"),
}
_COMPOSED = re.compile(r"^[\w.-]+\s+\| ")  # "db-1  | ", before each line of docker compose


@dataclass(frozen=True)
class Line:
    """A line taken apart: what the prefix tells by name, the level or part it is, and the rest."""

    told: Mapping[str, str]
    level: str
    message: str


@dataclass(frozen=True)
class Prefix:
    """How the lines of one log begin; without ``setting`` what is wanted is looked for wherever it stands."""

    setting: str = ""
    pattern: "re.Pattern[str] | None" = None

    def line(self, text: str) -> Line | None:
        """Return ``text`` taken apart, or None where no message begins on it."""
        found = (self.pattern or _ANY).match(text)
        if found is None:
            return None
        told = {name: value for name, value in found.groupdict().items() if value is not None}
        level, message = told.pop("level"), told.pop("message")
        if self.pattern is None:
            told = _looked_for(told["prefix"])
        return Line(told, level, message)


def prefix_of(setting: str) -> Prefix:
    """Return how lines begin under ``log_line_prefix = setting``; ``%q`` ends what background processes write."""
    head, _, tail = setting.partition("%q")
    pattern = _compiled(head, set())
    seen = set(re.compile(pattern).groupindex)
    if "%q" in setting:
        pattern += f"(?:{_compiled(tail, seen)})?"
    return Prefix(setting, re.compile(f"^{pattern}{_LEVEL}"))


def detected(lines: list[str], setting: str = "") -> Prefix | None:
    """Return how ``lines`` begin, by ``setting`` where most of them fit it; None where they are no server's log."""
    whole = [line for line in lines if line and not line.startswith("\t")]
    tried = [prefix_of(setting)] if setting else []
    for prefix in (*tried, Prefix()):
        fitting = [found for line in whole if (found := prefix.line(line)) is not None and "time" in found.told]
        if len(fitting) > len(whole) / 2 and any(each.level == "LOG" for each in fitting):
            return prefix
    return None


def without_composed(lines: list[str]) -> "re.Pattern[str] | None":
    """Return what docker compose writes before each of ``lines``; None where it does not."""
    whole = [line for line in lines if line.strip()]
    return _COMPOSED if whole and all(_COMPOSED.match(line) for line in whole) else None


def _compiled(setting: str, seen: set[str]) -> str:
    parts, at = [], 0
    for escape in _ESCAPE.finditer(setting):
        parts.append(re.escape(setting[at : escape.start()]))
        parts.append(_escape(escape[2], padded=bool(escape[1]), seen=seen))
        at = escape.end()
    return "".join(parts) + re.escape(setting[at:])


def _escape(letter: str, *, padded: bool, seen: set[str]) -> str:
    if letter == "%":
        return "%"
    pattern = _ESCAPES.get(letter, "")
    if (name := re.match(r"\(\?P<(\w+)>", pattern)) is not None:
        if name[1] in seen:
            pattern = "(?:" + pattern[name.end() :]
        seen.add(name[1])
    return rf"\s*{pattern}\s*" if padded else pattern


def _looked_for(prefix: str) -> dict[str, str]:
    found = {name: pattern.search(prefix) for name, pattern in _LOOKS.items()}
    return {name: next((each for each in match.groups() if each), "") for name, match in found.items() if match}
