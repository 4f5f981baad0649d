"""What the lines of a log mean: which fields hold the time, the duration and the name of a step, by preset or mapping.

A line that has a name and a duration is a step and becomes a span; every other line is left alone. Only the mapped
fields are ever written: a log line may hold anything.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from perfnb.errors import WrongUse
from perfnb.sources.times import as_nanoseconds
from perfnb.target import SETTINGS, read_settings

Row = dict[str, Any]
LONGEST_MS = 1e12  # 31 years; anything longer is no duration

FAILED = ("error", "critical", "fatal", "failed", "failure", "exception", "timeout")

# What a function name says of the work done; asked in this order.
OPERATIONS = (("chat", "llm"), ("chat", "completion"), ("tool", "tool"), ("agent", "turn"), ("retrieval", "retriev"))


class BadLine(ValueError):
    """Raised for a line that can't be read; the message says why."""


@dataclass(frozen=True)
class LogFormat:
    """Where the fields of a step are: dotted paths, several of them as alternatives, the first present wins.

    Attributes:
        name: The step's name; a line without it is no step.
        duration_ms: How long it took; a line without it is no step either.
        duration_s: The same in seconds.
        time: When the line was written, which is taken for the step's end.
        only: Field and value a line must have.
        operation: Of every step; ``by-name`` to tell model calls, tools and turns by the step's name.
    """

    title: str
    name: tuple[str, ...]
    duration_ms: tuple[str, ...] = ()
    duration_s: tuple[str, ...] = ()
    time: tuple[str, ...] = ("timestamp", "time", "@timestamp", "ts", "asctime", "datetime")
    trace_id: tuple[str, ...] = ("trace_id", "context.trace_id", "request_id", "context.request_id", "correlation_id")
    parent: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    service: tuple[str, ...] = ("service", "service.name")
    only: Mapping[str, str] = field(default_factory=dict)
    operation: str = "step"


PRESETS = (
    LogFormat("pipeline stages", name=("context.pipeline_stage", "pipeline_stage"), duration_ms=("execution_time_ms",)),
    LogFormat(
        "performance lines",
        name=("function",),
        duration_ms=("duration_ms",),
        status=("status",),
        only={"component": "Performance"},
        operation="by-name",
    ),
    LogFormat(
        "steps with a duration",
        name=("stage", "step", "operation", "function", "name", "event"),
        duration_ms=("duration_ms", "elapsed_ms", "execution_time_ms", "latency_ms", "took_ms"),
        duration_s=("duration_s", "elapsed_s"),
        status=("status",),
        operation="by-name",
    ),
)

_SETTINGS = {each.name for each in fields(LogFormat)} - {"title", "only", "operation"}


def mapped_format(mapping: Mapping[str, Any] | None = None) -> LogFormat | None:
    """Return the format that ``mapping`` or, without one, ``[logs]`` in perfnb.toml declares; None where there is none.

    Raises WrongUse for a field that isn't known or a mapping without name and duration.
    """
    given = dict(read_settings(Path.cwd() / SETTINGS).get("logs", {}) if mapping is None else mapping)
    if not given:
        return None
    if unknown := set(given) - _SETTINGS:
        raise WrongUse(f"[logs] has no field {min(unknown)!r}", hint=f"one of {', '.join(sorted(_SETTINGS))}")
    if "name" not in given or not {"duration_ms", "duration_s"} & set(given):
        raise WrongUse("[logs] needs name and duration_ms (or duration_s)", hint='name = "context.stage"')
    paths: dict[str, Any] = {
        name: (value,) if isinstance(value, str) else tuple(map(str, value)) for name, value in given.items()
    }
    return LogFormat("[logs] in perfnb.toml", **paths)


def detect(lines: Iterable[bytes]) -> LogFormat | None:
    """Return the first preset that one of ``lines`` fits, None where none does; the more special come first."""
    read = [line for line in map(parsed, lines) if line is not None]
    return next((format_ for format_ in PRESETS if any(is_step(format_, line) for line in read)), None)


def is_step(format_: LogFormat, line: Mapping[str, Any]) -> bool:
    """Tell whether ``line`` is a step in this format."""
    return (
        all(value_at(line, path) == value for path, value in format_.only.items())
        and name_of(format_, line) is not None
        and duration_of(format_, line) is not None
    )


def row_of(format_: LogFormat, raw: bytes, now: int) -> Row | None:
    """Return the span that a line stands for, None where it is no step; raises BadLine.

    ``now`` (ns since 1970) is taken for the time of a line that has none.
    """
    line = parsed(raw)
    if line is None and raw.strip() == b"null":  # DuckDB takes it for a line without fields
        return None
    if line is None:
        raise BadLine("no JSON object")
    if not is_step(format_, line):
        return None
    duration_ms = duration_of(format_, line)
    if duration_ms is None or not 0 <= duration_ms < LONGEST_MS:
        raise BadLine(f"duration is {duration_ms}")
    name, trace = name_of(format_, line) or "", _text(first(line, format_.trace_id))
    end = _time_of(format_, line, now)
    status = status_of(first(line, format_.status))
    return {
        "trace_id": trace,
        "span_id": None if trace is None else blake2b(raw, digest_size=8).hexdigest(),
        "parent_span_id": _text(first(line, format_.parent)),
        "name": name,
        "kind": "INTERNAL",
        "service": _text(first(line, format_.service)),
        "operation": operation_of(format_, name),
        "start_time": end - round(duration_ms * 1e6),
        "duration_ms": duration_ms,
        "status": status,
        "error_type": "error" if status == "ERROR" else None,
        "source": "logs",
    }


def _time_of(format_: LogFormat, line: Mapping[str, Any], now: int) -> int:
    given = first(line, format_.time)
    if given is None:
        return now
    try:
        return as_nanoseconds(given)
    except ValueError as error:
        raise BadLine(f"no time: {error}") from None


def name_of(format_: LogFormat, line: Mapping[str, Any]) -> str | None:
    """Return the step's name."""
    return _text(first(line, format_.name)) or None


def duration_of(format_: LogFormat, line: Mapping[str, Any]) -> float | None:
    """Return the step's duration in ms; what is no number is none."""
    for paths, scale in ((format_.duration_ms, 1.0), (format_.duration_s, 1000.0)):
        value = first(line, paths)
        if isinstance(value, (int, float, str)):
            try:
                return float(value) * scale
            except ValueError:
                return None
    return None


def status_of(given: Any) -> str:
    """Return OK, ERROR or, where nothing is told, UNSET."""
    if given is None:
        return "UNSET"
    return "ERROR" if str(given).lower() in FAILED else "OK"


def operation_of(format_: LogFormat, name: str) -> str:
    """Return the operation of a step called ``name``."""
    if format_.operation != "by-name":
        return format_.operation
    low = name.lower()
    return next((operation for operation, part in OPERATIONS if part in low), "step")


def first(line: Mapping[str, Any], paths: Iterable[str]) -> Any:
    """Return the first value that is present at one of ``paths``."""
    return next((value for path in paths if (value := value_at(line, path)) is not None), None)


def value_at(line: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path; a key that holds the dots itself wins."""
    if path in line:
        return line[path]
    value: Any = line
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str | None:
    """Return a single value as text, as it stands in the line."""
    if value is None or isinstance(value, (str, list, dict)):
        return value if isinstance(value, str) else None
    return orjson.dumps(value).decode()


def parsed(raw: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line; None where it is none."""
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return line if isinstance(line, dict) else None
