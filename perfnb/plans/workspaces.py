"""Memory and disk that a node's sort, hash or tuple store used, its workers' included."""

from collections.abc import Mapping
from typing import Any

from perfnb.plans.plan import Workspace
from perfnb.plans.raw import Raw, as_number, as_objects

KIB = 1024.0
_GROUPS = ("Full-sort Groups", "Pre-sorted Groups", "Incremental Sort Groups")


def workspace(raw: Raw) -> Workspace | None:
    """Return what the node used; None where it keeps no rows or was not executed."""
    processes = [raw.fields, *as_objects(raw.fields.get("Workers"))]
    if any("Sort Method" in each for each in processes):
        return _sort(processes)
    if any(name in raw.fields for name in _GROUPS):
        return _incremental(processes)
    if any("Hash Batches" in each for each in processes):
        return _hash(processes)
    if any("HashAgg Batches" in each or "Disk Usage" in each for each in processes):
        return _hash_aggregate(processes)
    if "Storage" in raw.fields:
        return _store(raw.fields)
    return None


def _sort(processes: list[Mapping[str, Any]]) -> Workspace:
    used = [(each.get("Sort Space Type") == "Disk", _kib(each, "Sort Space Used")) for each in processes]
    methods = [str(each["Sort Method"]) for each in processes if "Sort Method" in each]
    on_disk = sum(size for is_disk, size in used if is_disk)
    in_memory = max((size for is_disk, size in used if not is_disk), default=0.0)
    worst = next((each for each in methods if each.startswith("external")), methods[0])
    return Workspace("sort", worst, memory_bytes=in_memory, disk_bytes=on_disk)


def _incremental(processes: list[Mapping[str, Any]]) -> Workspace:
    found = [each[name] for each in processes for name in _GROUPS if name in each]
    groups = [group for each in found for group in (each if isinstance(each, list) else [each]) if _is_group(group)]
    spaces = {kind: [_space(each, kind) for each in groups] for kind in ("Memory", "Disk")}
    used = [each.get("Sort Methods Used") for each in groups]
    methods = [str(method) for each in used if isinstance(each, list) for method in each]
    worst = next((each for each in methods if each.startswith("external")), methods[0] if methods else "")
    peaks = {kind: max((_kib(each, "Peak Sort Space Used") for each in of), default=0.0) for kind, of in spaces.items()}
    return Workspace("sort", worst, memory_bytes=peaks["Memory"], disk_bytes=peaks["Disk"])


def _is_group(value: Any) -> bool:
    return isinstance(value, Mapping)


def _space(group: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return the space of a kind; XML does not say which it was, and writes no more than one."""
    untold = group.get("Sort Space") if ("external" in str(group)) == (kind == "Disk") else None
    found = group.get(f"Sort Space {kind}") or untold
    return found if isinstance(found, Mapping) else {}


def _hash(processes: list[Mapping[str, Any]]) -> Workspace:
    batches = max(int(as_number(each.get("Hash Batches"), "Hash Batches") or 1) for each in processes)
    planned = as_number(processes[0].get("Original Hash Batches"), "Original Hash Batches") or batches
    memory = max(_kib(each, "Peak Memory Usage") for each in processes)
    return Workspace("hash", memory_bytes=memory, batches=batches, batches_planned=int(planned))


def _hash_aggregate(processes: list[Mapping[str, Any]]) -> Workspace:
    batches = max(int(as_number(each.get("HashAgg Batches"), "HashAgg Batches") or 0) for each in processes)
    return Workspace(
        "aggregate",
        memory_bytes=max(_kib(each, "Peak Memory Usage") for each in processes),
        disk_bytes=sum(_kib(each, "Disk Usage") for each in processes),
        batches=max(1, batches),
    )


def _store(fields: Mapping[str, Any]) -> Workspace:
    size, is_disk = _kib(fields, "Maximum Storage"), fields["Storage"] == "Disk"
    return Workspace("store", memory_bytes=0.0 if is_disk else size, disk_bytes=size if is_disk else 0.0)


def _kib(fields: Mapping[str, Any], name: str) -> float:
    return (as_number(fields.get(name), name) or 0.0) * KIB
