"""Points in time as logs and traces write them, as nanoseconds since 1970."""

from datetime import UTC, datetime
from typing import Any

# An epoch number tells its unit by its size: seconds stay below 1e11 until the year 5138, and so on.
_UNITS = ((1e11, 1_000_000_000), (1e14, 1_000_000), (1e17, 1_000))


def as_nanoseconds(value: Any) -> int:
    """Return ISO 8601 or an epoch number (s, ms, µs or ns, by its size) as ns since 1970; raises ValueError.

    A time without an offset is taken for UTC.
    """
    if isinstance(value, bool) or value is None:
        raise ValueError(f"no time: {value!r}")
    if isinstance(value, (int, float)):
        return _from_number(value)
    text = str(value).strip()
    try:
        return _from_number(float(text) if "." in text else int(text))
    except ValueError:
        return _from_iso(text)


def _from_number(value: float) -> int:
    factor = next((factor for limit, factor in _UNITS if abs(value) < limit), 1)
    found = int(value * factor) if isinstance(value, int) else round(value * factor)
    if not 0 < found < 2**63:
        raise ValueError(f"no time: {value!r}")
    return found


def _from_iso(text: str) -> int:
    moment = datetime.fromisoformat(text.replace(",", ".", 1))  # Python's logging writes 12:00:00,123
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    found = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000
    if found <= 0:
        raise ValueError(f"no time: {text!r}")
    return found
