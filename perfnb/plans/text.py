"""Plans as text EXPLAIN prints them, versions 9.6 to 18: to the document that FORMAT JSON would have given.

Every line is one of four: a node (with ``->`` before all but the first), the heading of a sub-plan, a property, or the
rest of a property that has line breaks in it. Where a node belongs is told by its indentation alone.
"""

import re
from dataclasses import dataclass
from typing import Any

from perfnb.errors import WrongUse
from perfnb.plans.naming import fields_of
from perfnb.plans.pasted import plan_lines
from perfnb.plans.properties import add_property, add_worker_line

_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"
_ARROW = re.compile(r"^( *)-> +(.*)$")
_FIGURES = re.compile(
    rf"\s+(?=\((?:cost=|actual |never executed))"
    rf"(?:\(cost=(?P<startup>{_NUMBER})\.\.(?P<total>{_NUMBER}) rows=(?P<rows>{_NUMBER}) width=(?P<width>[0-9]+)\)\s*)?"
    rf"(?:\(actual (?:time=(?P<first_ms>{_NUMBER})\.\.(?P<ms>{_NUMBER}) )?rows=(?P<actual>{_NUMBER}) loops=(?P<loops>{_NUMBER})\)"
    rf"|(?P<never>\(never executed\)))?\s*$"
)
_SECTION = re.compile(r"^((?:InitPlan|SubPlan) \S+(?: \(returns [^)]*\))?|CTE .+)$")
_PROPERTY = re.compile(r"^([A-Za-z][\w/ .-]*?):(?:\s+(.*))?$")
_WORKER = re.compile(r"^Worker (\d+):\s*(.*)$")
_AROUND = re.compile(
    r"^(?:(Planning Time|Execution Time|Total Runtime): (" + _NUMBER + r") ms"
    r"|(Planning|JIT):|(Settings|Query Identifier|Query Text|Query Parameters|Serialization): ?(.*)"
    r"|Trigger (.+?): (?:time=(" + _NUMBER + r") )?calls=(" + _NUMBER + r"))$",
    re.IGNORECASE,
)
_FIRST = re.compile(r"^\s*(?:-> +)?[A-Z][A-Za-z]+\b.*?\s\((?:cost=|actual |never executed)")


@dataclass
class _Place:
    """An open node or sub-plan heading: the column it starts at, and where its children go."""

    column: int
    fields: dict[str, Any]
    subplan: str = ""


def looks_like_text(text: str) -> bool:
    """Tell whether ``text`` holds a line that only a plan has."""
    return any(_FIRST.match(line) or _is_bare_node(line) for line in plan_lines(text))


def _is_bare_node(line: str) -> bool:
    """Tell whether ``line`` is a node without figures below another, as with COSTS OFF."""
    arrow = _ARROW.match(line)
    return arrow is not None and bool(_KNOWN.match(arrow[2]))


def documents(text: str) -> list[dict[str, Any]]:
    """Return the plans in ``text``, each as FORMAT JSON would have it.

    Raises WrongUse where there is none, or where the indentation that tells who belongs to whom is lost.
    """
    reader = _Reader()
    for number, line in enumerate(plan_lines(text), 1):
        if line.strip():
            reader.take(line, number)
    found = [each for each in reader.found if "Plan" in each]
    if not found:
        raise WrongUse("no plan in this text", hint="paste the whole output of EXPLAIN, from its first line")
    return found


class _Reader:
    """Takes line after line; ``found`` holds the documents, the last of which is being filled."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._places: list[_Place] = []
        self._target: dict[str, Any] | None = None
        self._worker_column: int | None = None
        self._last: tuple[dict[str, Any], str] | None = None

    def take(self, line: str, number: int) -> None:
        """Take one line; those before the first node are no part of the plan, but for a query's text."""
        arrow = _ARROW.match(line)
        column, words = (len(arrow[1]), arrow[2]) if arrow else (len(line) - len(line.lstrip()), line.strip())
        if arrow or self._starts(words):
            self._node(column, words, number, is_root=not arrow or not self.found)
        elif self._is_of_worker(column) or not self._around(words):
            self._below(column, words)

    def _is_of_worker(self, column: int) -> bool:
        """Tell whether a line in ``column`` is about the worker named above it."""
        return self._worker_column is not None and column > self._worker_column

    def _starts(self, words: str) -> bool:
        """Tell whether ``words`` without an arrow is the root of a plan; with COSTS OFF only the first line is."""
        if _FIGURES.search(words):
            return True
        is_first = not self._places and self._last is None  # and not a line of the query's text
        return is_first and bool(_KNOWN.match(words)) and not _PROPERTY.match(words)

    def _node(self, column: int, words: str, number: int, *, is_root: bool) -> None:
        figures = _FIGURES.search(words)
        fields = fields_of(words[: figures.start()] if figures else words) | _figures(figures)
        if is_root:
            self._begin(fields)
            self._places = [_Place(column, fields)]
        else:
            self._attach(fields, column, number)
        self._target, self._worker_column, self._last = fields, None, None

    def _begin(self, fields: dict[str, Any]) -> None:
        if not self.found or "Plan" in self.found[-1]:
            self.found.append({})
        self.found[-1]["Plan"] = fields

    def _attach(self, fields: dict[str, Any], column: int, number: int) -> None:
        while self._places and self._places[-1].column >= column:
            self._places.pop()
        if not self._places:
            raise WrongUse(
                f"line {number} of the plan has lost its indentation", hint="paste it as printed, or use FORMAT JSON"
            )
        above = self._places[-1]
        siblings = above.fields.setdefault("Plans", [])
        fields |= _relation(above, siblings)
        siblings.append(fields)
        self._places.append(_Place(column, fields))

    def _around(self, words: str) -> bool:
        """Take a line that is about the whole plan; tell whether it was one."""
        match = _AROUND.match(words)
        if match is None or (not self.found and not match[4]):
            return False
        if not self.found or (match[4] == "Query Text" and "Plan" in self.found[-1]):
            self.found.append({})
            self._places = []
        self._target, self._worker_column, self._last = _take_around(self.found[-1], match), None, None
        if match[4] and match[4].lower() == "query text":
            self._last = (self.found[-1], "Query Text")
        return True

    def _below(self, column: int, words: str) -> None:
        """Take a line under a node; what stands before the first is no part of the plan."""
        if self._target is None:
            return
        if _SECTION.match(words) and self._places:
            self._open(column, words)
        elif worker := _WORKER.match(words):
            self._worker_column = column
            add_worker_line(self._target, int(worker[1]), worker[2])
        elif (found := _PROPERTY.match(words)) is not None:
            self._property(column, found[1], found[2] or "")
        elif self._last is not None:
            self._continue(words)

    def _property(self, column: int, name: str, value: str) -> None:
        assert self._target is not None
        if self._last is not None and self._last[1] == "Query Text":
            self._continue(f"{name}: {value}")
        elif self._target is not None and self._is_of_worker(column):
            add_property(self._target["Workers"][-1], name, value)
        else:
            self._worker_column = None
            add_property(self._target, name, value)
            self._last = (self._target, name)

    def _continue(self, words: str) -> None:
        """Add a line to the property before it, whose text has line breaks."""
        assert self._last is not None
        fields, name = self._last
        if isinstance(fields.get(name), str):
            fields[name] += "\n" + words

    def _open(self, column: int, words: str) -> None:
        while self._places and self._places[-1].column >= column:
            self._places.pop()
        if self._places:
            self._places.append(_Place(column, self._places[-1].fields, subplan=words))


def _relation(above: _Place, siblings: list[Any]) -> dict[str, Any]:
    if above.subplan:
        kind = "SubPlan" if above.subplan.startswith("SubPlan") else "InitPlan"
        return {"Parent Relationship": kind, "Subplan Name": above.subplan}
    if above.fields["Node Type"] in ("Append", "Merge Append", "BitmapAnd", "BitmapOr"):
        return {"Parent Relationship": "Member"}
    if above.fields["Node Type"] == "Subquery Scan":
        return {"Parent Relationship": "Subquery"}
    fed = [each for each in siblings if "Subplan Name" not in each]
    return {"Parent Relationship": "Inner" if fed else "Outer"}


def _figures(match: "re.Match[str] | None") -> dict[str, Any]:
    if match is None:
        return {}
    given = {
        "Startup Cost": match["startup"],
        "Total Cost": match["total"],
        "Plan Rows": match["rows"],
        "Plan Width": match["width"],
        "Actual Startup Time": match["first_ms"],
        "Actual Total Time": match["ms"],
        "Actual Rows": "0" if match["never"] else match["actual"],
        "Actual Loops": "0" if match["never"] else match["loops"],
    }
    return {name: _number(value) for name, value in given.items() if value is not None}


def _number(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)


def _take_around(document: dict[str, Any], match: "re.Match[str]") -> dict[str, Any]:
    """Put a line that is about the whole plan into ``document``; return where the lines below it go."""
    time, ms, section, name, value, trigger, trigger_ms, calls = match.groups()
    if time:
        document[time.title()] = float(ms)
    elif section:
        return document.setdefault("JIT" if section.upper() == "JIT" else section.title(), {})  # type: ignore[no-any-return]
    elif trigger:
        document.setdefault("Triggers", []).append(_trigger(trigger, trigger_ms, calls))
    elif name.title() == "Settings":
        document["Settings"] = dict(re.findall(r"([\w.]+) = '((?:[^']|'')*)'", value))
    else:
        document[name.title()] = _number(value) if value.isdigit() else value
    return {}


def _trigger(words: str, ms: str | None, calls: str) -> dict[str, Any]:
    name, _, relation = words.partition(" on ")
    constraint = name.removeprefix("for constraint ")
    named = {"Trigger Name": name} if constraint == name else {"Constraint Name": constraint}
    timed = {} if ms is None else {"Time": float(ms)}
    return named | ({"Relation": relation} if relation else {}) | timed | {"Calls": float(calls)}


_KNOWN = re.compile(
    r"^(?:Parallel |Async |Partial |Finalize )*(?:Seq|Index|Index Only|Bitmap Heap|Bitmap Index|Tid|Tid Range|Subquery"
    r"|Function|Table Function|Values|CTE|WorkTable|Named Tuplestore|Foreign|Custom|Sample) Scan\b"
    r"|^(?:Parallel |Partial |Finalize )*(?:Result|ProjectSet|Append|Merge Append|Recursive Union|BitmapAnd|BitmapOr"
    r"|Nested Loop.*|(?:Hash|Merge) .*Join|Hash|Materialize|Memoize|Sort|Incremental Sort|Group|(?:Hash|Group|Mixed)?Aggregate"
    r"|WindowAgg|Unique|(?:Hash)?SetOp .*|LockRows|Limit|Gather|Gather Merge|(?:Insert|Update|Delete|Merge) on .*)$"
)
