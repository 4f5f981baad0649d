"""Rows as JSON lines; a value that JSON or DuckDB can't hold is mended, so that no batch is lost to one odd value."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from perfnb.recording.seal import LONGEST_LINE

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
_DEEPEST = 100
_LONGEST_VALUE = 2**20


def encoded(rows: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """Return one JSON line for each of ``rows``."""
    rows = rows if isinstance(rows, list | tuple) else list(rows)
    try:
        lines = [orjson.dumps(row, option=_OPTIONS) for row in rows]
    except TypeError:
        lines = [_line(row) for row in rows]
    if any(len(line) > LONGEST_LINE for line in lines):
        lines = [line if len(line) <= LONGEST_LINE else _shortened(line) for line in lines]
    return lines


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, option=_OPTIONS)
    except TypeError:
        return orjson.dumps(_mended(row), option=_OPTIONS)


def _mended(value: Any, depth: int = 0) -> Any:
    """Return ``value`` in what JSON can hold: huge integers, bytes, objects and what is nested too deep as text."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair has no UTF-8
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {_text(key): _mended(each, depth + 1) for key, each in value.items()}
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_mended(each, depth + 1) for each in value]
    try:
        orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        return _text(value)
    return value


def _text(value: Any) -> str:
    try:
        text = str(value)
    except Exception:  # too deep, too many digits, or a __str__ that fails: anything can come from the app under test
        text = f"<{type(value).__name__}>"
    return str(_mended(text[:_LONGEST_VALUE]))


def _shortened(line: bytes) -> bytes:
    """Return the row without the values that make it longer than a reader takes."""
    row = orjson.loads(line)
    return orjson.dumps({k: v for k, v in row.items() if len(orjson.dumps(v)) <= _LONGEST_VALUE}, option=_OPTIONS)
