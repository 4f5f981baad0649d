"""What a node is called in text, from its fields in FORMAT JSON, and back."""

import re
from collections.abc import Mapping
from typing import Any

from perfnb.plans.raw import is_true

Fields = dict[str, Any]

_AGGREGATES = {"Hashed": "HashAggregate", "Sorted": "GroupAggregate", "Mixed": "MixedAggregate"}
_JOIN = re.compile(r"^(Hash|Merge) (?:(Left|Right|Full|Semi|Anti|Right Semi|Right Anti) )?Join$")
_NESTED_LOOP = re.compile(r"^Nested Loop(?: (Left|Right|Full|Semi|Anti|Right Semi|Right Anti) Join)?$")
_SET_OPERATION = re.compile(r"^(Hash)?SetOp (Intersect|Except)( All)?$")
_MODIFY = ("Insert", "Update", "Delete", "Merge")
_IDENTIFIER = r'(?:"(?:[^"]|"")*"|[^\s."]+)'
_TARGET = re.compile(rf"^(?:({_IDENTIFIER})\.)?({_IDENTIFIER})(?: ({_IDENTIFIER}))?$")
_CUSTOM = re.compile(r"^Custom Scan(?: \((.+?)\))?$")
_SCAN_TARGETS = {
    "CTE Scan": "CTE Name",
    "WorkTable Scan": "CTE Name",
    "Function Scan": "Function Name",
    "Table Function Scan": "Table Function Name",
    "Named Tuplestore Scan": "Tuplestore Name",
    "Subquery Scan": "",
    "Values Scan": "",
}


def name_of(fields: Mapping[str, Any]) -> str:
    """Return how text EXPLAIN names a node: "Parallel Index Scan using by_status on tickets t"."""
    words = [*(["Parallel"] if is_true(fields.get("Parallel Aware")) else []), _operation(fields)]
    if fields.get("Scan Direction") == "Backward":
        words.append("Backward")
    index, target = fields.get("Index Name"), _target(fields)
    if index and target:
        words += ["using", str(index)]
    return " ".join([*words, *(["on", target] if target else ["on", str(index)] if index else [])])


def _operation(fields: Mapping[str, Any]) -> str:
    kind, join = str(fields["Node Type"]), fields.get("Join Type")
    partial = {"Partial": "Partial ", "Finalize": "Finalize "}.get(str(fields.get("Partial Mode")), "")
    if kind == "Aggregate":
        return partial + _AGGREGATES.get(str(fields.get("Strategy")), "Aggregate")
    if kind == "ModifyTable" and fields.get("Operation"):
        return str(fields["Operation"])
    if kind == "SetOp" and fields.get("Command"):
        return f"{'Hash' if fields.get('Strategy') == 'Hashed' else ''}SetOp {fields['Command']}"
    if kind == "Custom Scan" and fields.get("Custom Plan Provider"):
        return f"Custom Scan ({fields['Custom Plan Provider']})"
    if not join or join == "Inner":
        return kind
    return f"{kind} {join} Join" if kind == "Nested Loop" else kind.replace("Join", f"{join} Join")


def _target(fields: Mapping[str, Any]) -> str:
    names = ("Relation Name", "CTE Name", "Function Name", "Table Function Name", "Tuplestore Name")
    name = next((str(fields[each]) for each in names if fields.get(each)), "")
    alias = str(fields.get("Alias") or "")
    if not name:
        return alias if not fields.get("Index Name") else ""
    return name if alias in ("", name) else f"{name} {alias}"


def fields_of(name: str) -> Fields:
    """Return the fields that the name of a node in text EXPLAIN stands for."""
    words, fields = name.strip(), Fields()
    for prefix, field in (("Parallel ", "Parallel Aware"), ("Async ", "Async Capable")):
        if words.startswith(prefix):
            words, fields[field] = words.removeprefix(prefix), True
    operation, _, target = words.partition(" on ")
    operation, _, index = operation.partition(" using ")
    fields |= _typed(operation, has_target=bool(target))
    if index:
        fields["Index Name"] = _plain(index)
    if target:
        fields |= _targeted(fields["Node Type"], target)
    return fields


def _typed(operation: str, *, has_target: bool) -> Fields:
    backward = operation.endswith(" Backward")
    scan = {"Scan Direction": "Backward"} if backward else {}
    operation = operation.removesuffix(" Backward")
    if join := _JOIN.match(operation):
        return {"Node Type": f"{join[1]} Join", "Join Type": join[2] or "Inner"}
    if loop := _NESTED_LOOP.match(operation):
        return {"Node Type": "Nested Loop", "Join Type": loop[1] or "Inner"}
    if operation in _MODIFY and has_target:
        return {"Node Type": "ModifyTable", "Operation": operation}
    if found := _SET_OPERATION.match(operation):
        return {
            "Node Type": "SetOp",
            "Strategy": "Hashed" if found[1] else "Sorted",
            "Command": found[2] + (found[3] or ""),
        }
    if custom := _CUSTOM.match(operation):
        return {"Node Type": "Custom Scan", "Custom Plan Provider": custom[1] or ""}
    return _aggregate(operation) or {"Node Type": operation} | scan


def _aggregate(operation: str) -> Fields:
    mode, _, rest = operation.partition(" ")
    mode, kind = (mode, rest) if mode in ("Partial", "Finalize") else ("Simple", operation)
    strategies = {name: strategy for strategy, name in _AGGREGATES.items()} | {"Aggregate": "Plain"}
    if kind not in strategies:
        return {}
    return {"Node Type": "Aggregate", "Strategy": strategies[kind], "Partial Mode": mode}


def _targeted(kind: str, target: str) -> Fields:
    if kind == "Bitmap Index Scan":
        return {"Index Name": _plain(target)}
    found = _TARGET.match(target)
    if found is None:  # "Foreign Scan on (public.a) INNER JOIN (public.b)" and the like
        return {"Relation Name": target}
    schema, name, alias = (None if each is None else _plain(each) for each in found.groups())
    field = _SCAN_TARGETS.get(kind, "Relation Name")
    named = {field: name} if field else {}
    return named | {"Alias": alias or name} | ({"Schema": schema} if schema else {})


def _plain(identifier: str) -> str:
    if identifier[:1] == identifier[-1:] == '"' and len(identifier) > 1:
        return identifier[1:-1].replace('""', '"')
    return identifier
