"""How DuckDB reads the steps in a log: a log format as SQL over the columns that one file has."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfnb.recording.schema import TABLES
from perfnb.recording.seal import file_list, quoted
from perfnb.sources.log_formats import FAILED, LONGEST_MS, OPERATIONS, LogFormat, value_at

LONGEST_LINE = 16 * 2**20


@dataclass(frozen=True)
class Plan:
    """SQL for one file: the columns to read, each field of a step over them, and when a line is a step.

    ``fields`` are expressions over the columns read; ``is_step``, ``time`` and ``operation`` over those fields.
    """

    columns: str
    fields: dict[str, str]
    time: str | None
    only: str
    operation: str

    @property
    def is_step(self) -> str:
        """Tell a step."""
        return f"step_name IS NOT NULL AND took_ms IS NOT NULL AND {self.only}"

    @property
    def is_empty(self) -> str:
        """Tell a line that has none of the fields, as one that is no JSON."""
        return " AND ".join(f"{name} IS NULL" for name, sql in self.fields.items() if sql != _NOTHING)

    def lines(self, path: Path, *, strict: bool = False) -> str:
        """Return the SQL that reads the fields of every line of ``path``; a bad line has none, or is an error."""
        read = ", ".join(f"{sql} AS {name}" for name, sql in self.fields.items())
        return (
            f"SELECT {read} FROM read_json([{file_list([path])}], format = 'newline_delimited', columns = {self.columns}, "
            f"ignore_errors = {'false' if strict else 'true'}, maximum_object_size = {LONGEST_LINE})"
        )

    def wanted(self, path: Path, *, strict: bool) -> str:
        """Return what to select from: the steps, and what may be a bad line where those are no error."""
        also = "" if strict else f" OR ({self.is_empty})"
        return f"({self.lines(path, strict=strict)}) WHERE ({self.is_step}){also}"

    def start(self, now: int) -> str:
        """Return the span's start, null where the line needs a closer look."""
        end = str(now) if self.time is None else self.time
        sane = f"took_ms >= 0 AND took_ms < {LONGEST_MS:.0f}"
        return f"CASE WHEN {self.is_step} AND {sane} THEN {end} - CAST(took_ms * 1e6 AS BIGINT) END"


_NOTHING = "CAST(NULL AS VARCHAR)"


def plan_of(format_: LogFormat, sample: list[dict[str, Any]]) -> Plan | None:
    """Return how DuckDB reads such lines, or None where only the slow way does."""
    chosen = {
        name: _present(getattr(format_, name), sample)
        for name in ("name", "duration_ms", "duration_s", "time", "trace_id", "parent", "status", "service")
    }
    duration = chosen["duration_ms"] or chosen["duration_s"]
    if chosen["name"] is None or duration is None or (chosen["duration_ms"] and chosen["duration_s"]):
        return None
    leaves = {path: "VARCHAR" for path in chosen.values() if path} | dict.fromkeys(format_.only, "VARCHAR")
    leaves[duration] = "DOUBLE"
    if any("." in path and any(path in line for line in sample) for path in leaves):
        return None  # a key that itself holds dots
    columns = _columns(leaves)
    if columns is None:
        return None
    only = {f"only_{number}": path for number, path in enumerate(format_.only)}
    return Plan(
        columns,
        fields={
            "step_name": f"nullif({_column(chosen['name'])}, '')",
            "took_ms": _column(duration) + ("" if chosen["duration_ms"] else " * 1000"),
            "written": _column(chosen["time"]),
            "trace": _column(chosen["trace_id"]),
            "parent": _column(chosen["parent"]),
            "told": _column(chosen["status"]),
            "served_by": _column(chosen["service"]),
            **{name: _column(path) for name, path in only.items()},
        },
        time=_time(chosen["time"], sample),
        only=" AND ".join([f"{name} = {quoted(format_.only[path])}" for name, path in only.items()] or ["true"]),
        operation=_operation(format_),
    )


def _present(paths: Iterable[str], sample: list[dict[str, Any]]) -> str | None:
    """Return the alternative that the sample has; the first where it has several."""
    return next((path for path in paths if any(value_at(line, path) is not None for line in sample)), None)


def _columns(leaves: dict[str, str]) -> str | None:
    """Return the columns argument of read_json for dotted paths; None where one path is part of another."""
    tree: dict[str, Any] = {}
    for path, kind in leaves.items():
        *parents, last = path.split(".")
        branch = tree
        for part in parents:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                return None
        if isinstance(branch.get(last), dict):
            return None
        branch[last] = kind
    return "{" + ", ".join(f"{quoted(name)}: {quoted(_type(kind))}" for name, kind in tree.items()) + "}"


def _type(kind: Any) -> str:
    if isinstance(kind, str):
        return kind
    return "STRUCT(" + ", ".join(f"{_identifier(name)} {_type(each)}" for name, each in kind.items()) + ")"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _column(path: str | None) -> str:
    return _NOTHING if path is None else ".".join(map(_identifier, path.split(".")))


def _time(path: str | None, sample: list[dict[str, Any]]) -> str | None:
    """Return the line's time in ns as SQL; the plain form for UTC with a Z takes half as long as the general one."""
    if path is None:
        return None
    values = [value_at(line, path) for line in sample]
    if all(isinstance(value, str) and value.endswith("Z") for value in values if value is not None):
        return "CASE WHEN suffix(written, 'Z') THEN epoch_ns(TRY_CAST(written AS TIMESTAMP)) END"
    if any(isinstance(value, str) and not value.replace(".", "", 1).isdigit() for value in values):
        return "epoch_ns(TRY_CAST(replace(written, ',', '.') AS TIMESTAMPTZ))"
    return _EPOCH


_NUMBER = "TRY_CAST(written AS DOUBLE)"
_FACTOR = f"CASE WHEN {_NUMBER} < 1e11 THEN 1000000000 WHEN {_NUMBER} < 1e14 THEN 1000000 WHEN {_NUMBER} < 1e17 THEN 1000 ELSE 1 END"
_EPOCH = (
    f"CASE WHEN contains(written, '.') THEN CAST({_NUMBER} * {_FACTOR} AS BIGINT) "
    f"ELSE TRY_CAST(written AS BIGINT) * {_FACTOR} END"
)


def _operation(format_: LogFormat) -> str:
    if format_.operation != "by-name":
        return quoted(format_.operation)
    cases = " ".join(f"WHEN contains(lower(step_name), {quoted(part)}) THEN {quoted(op)}" for op, part in OPERATIONS)
    return f"CASE {cases} ELSE 'step' END"


_FAILED = ", ".join(map(quoted, FAILED))
_STATUS = f"CASE WHEN told IS NULL THEN 'UNSET' WHEN lower(told) IN ({_FAILED}) THEN 'ERROR' ELSE 'OK' END"


def spans_of(path: Path, plan: Plan, now: int, *, strict: bool) -> str:
    """Return the SQL whose rows are those of the spans table."""
    has_status, has_trace = plan.fields["told"] != _NOTHING, plan.fields["trace"] != _NOTHING
    same = ", ".join(name for name, sql in plan.fields.items() if sql != _NOTHING)
    made = {
        "trace_id": "trace",
        "span_id": f"CASE WHEN trace IS NOT NULL THEN lower(to_hex(hash({same}))) END" if has_trace else "NULL",
        "parent_span_id": "parent",
        "name": "step_name",
        "kind": "'INTERNAL'",
        "service": "served_by",
        "operation": plan.operation,
        "start_time": plan.start(now),
        "duration_ms": "took_ms",
        "status": _STATUS if has_status else "'UNSET'",
        "error_type": f"CASE WHEN {_STATUS} = 'ERROR' THEN 'error' END" if has_status else "NULL",
        "source": "'logs'",
    }
    columns = ", ".join(
        f"CAST({made.get(name, 'NULL')} AS {kind}) AS {name}" for name, kind in TABLES["spans"].types.items()
    )
    return f"SELECT {columns} FROM {plan.wanted(path, strict=strict)}"
