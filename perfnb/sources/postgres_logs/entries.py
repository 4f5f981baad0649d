"""One message of a server's log, whatever format it was written in."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from perfnb.sources.times import as_nanoseconds

LEVELS = (
    "LOG",
    "INFO",
    "NOTICE",
    "WARNING",
    "ERROR",
    "FATAL",
    "PANIC",
    "DEBUG1",
    "DEBUG2",
    "DEBUG3",
    "DEBUG4",
    "DEBUG5",
)
PARTS = {"DETAIL": "detail", "CONTEXT": "context", "STATEMENT": "statement"}
FURTHER = (*PARTS, "HINT", "QUERY", "LOCATION", "BACKTRACE")

# Hours east of UTC of the abbreviations that servers in common zones write; %m and %t give no number.
ZONES = {
    "UTC": 0.0, "GMT": 0.0, "Z": 0.0, "WET": 0.0, "WEST": 1.0, "BST": 1.0, "CET": 1.0, "CEST": 2.0, "EET": 2.0,
    "EEST": 3.0, "MSK": 3.0, "JST": 9.0, "KST": 9.0, "AEST": 10.0, "AEDT": 11.0, "EST": -5.0, "EDT": -4.0, "CST": -6.0,
    "CDT": -5.0, "MST": -7.0, "MDT": -6.0, "PST": -8.0, "PDT": -7.0,
}  # fmt: skip
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?\s*([A-Za-z]+|[+-]\d\d(?::?\d\d)?)?$")


@dataclass(frozen=True)
class Entry:
    """A message: when, by which session, how severe, and the lines that came with it."""

    time: int
    level: str
    message: str
    pid: int | None = None
    user: str = ""
    database: str = ""
    application: str = ""
    queryid: str = ""
    detail: str = ""
    context: str = ""
    statement: str = ""

    def adding(self, part: str, text: str) -> "Entry":
        """Return the entry with one of its further lines; those of no use are left out."""
        changed: dict[str, Any] = {PARTS[part]: text} if part in PARTS else {}
        return replace(self, **changed)


class NotRead(ValueError):
    """Raised for a line that is no part of the log; the message says why."""


def moment(text: str, zone: tzinfo | None = None) -> int:
    """Return the ns since 1970 of ``2026-11-21 10:02:03.123 CET`` or an epoch; raises NotRead.

    ``zone`` is the server's log_timezone; without it an abbreviation is looked up, and one that is not known is UTC.
    """
    found = _MOMENT.match(text.strip())
    try:
        if found is None:
            return as_nanoseconds(text)
        day, clock, fraction, name = found.groups()
        plain = datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0').ljust(6, '0')}")
        if zone is not None:
            return _nanoseconds(plain.replace(tzinfo=zone).astimezone(UTC))
        return _nanoseconds((plain - timedelta(hours=_hours(name or "UTC"))).replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise NotRead(f"no time: {text[:40]!r}") from None


def _hours(zone: str) -> float:
    if zone[0] in "+-":
        hours, minutes = int(zone[1:3]), int(zone[-2:]) if len(zone) > 3 else 0
        return (hours + minutes / 60) * (-1 if zone[0] == "-" else 1)
    return ZONES.get(zone.upper(), 0.0)


def _nanoseconds(at: datetime) -> int:
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    found = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000
    if found <= 0:
        raise NotRead("a time before 1970")
    return found
