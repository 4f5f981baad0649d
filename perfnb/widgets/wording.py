"""Numbers as people say them: "1.9 s", "62 %", "4,100 tokens"."""

import math
from datetime import UTC, datetime
from typing import Any

UNITS = ("ms", "bytes", "tokens", "usd", "percent", "seconds")
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(milliseconds: float) -> str:
    """Return ``milliseconds`` in the unit a reader would choose, with two or three significant digits."""
    if milliseconds < 0:
        return f"-{duration(-milliseconds)}"
    if milliseconds < 1:
        return f"{milliseconds:.2f} ms"
    if milliseconds < 10:
        return f"{milliseconds:.1f}".removesuffix(".0") + " ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 119_500:
        return f"{milliseconds / 1000:.1f}".removesuffix(".0") + " s"
    if milliseconds < 7_170_000:
        return f"{milliseconds / 60_000:.0f} min"
    return f"{milliseconds / 3_600_000:.1f}".removesuffix(".0") + " h"


def percent(share: float) -> str:
    """Return a share of 1 as a percentage; one that is tiny but not nothing says so."""
    if 0 < share < 0.005:
        return "under 1 %"
    return f"{share:.0%}".replace("%", " %")


def number(value: float) -> str:
    """Return ``value`` with thousands separated; whole where it is whole or large."""
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.3g}"


def size(count: float) -> str:
    """Return a number of bytes in binary units."""
    power = min(int(math.log(max(abs(count), 1), 1024)), len(_BYTES) - 1)
    return f"{count / 1024**power:.{0 if power == 0 else 1}f} {_BYTES[power]}"


def dollars(usd: float) -> str:
    """Return dollars as a reader would write them: cents from a dollar on, below it three digits that count."""
    if usd < 0:
        return f"-{dollars(-usd)}"
    if usd >= 999.5:
        return f"${usd:,.0f}"
    if usd >= 0.9995:
        return f"${usd:,.2f}"
    if usd < 5e-11:
        return "$0" if usd == 0 else "under $0.0000000001"
    text = f"{usd:.{2 - math.floor(math.log10(usd))}f}".rstrip("0")
    return f"${text.ljust(len('0.00'), '0')}"


def about_dollars(usd: float) -> str:
    """Return dollars that were reckoned ahead: three digits, for more would feign knowledge."""
    return dollars(float(f"{usd:.3g}"))


def quantity(value: Any, unit: str) -> str:
    """Return ``value`` with its ``unit``; what is missing is a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    match unit:
        case "ms":
            return duration(value)
        case "seconds" | "s":
            return duration(value * 1000)
        case "bytes":
            return size(value)
        case "usd":
            return dollars(value)
        case "ratio" | "share":
            return percent(value)
        case "percent" | "%":
            return f"{number(value)} %"
        case "" | "count":
            return number(value)
    return f"{number(value)} {unit}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return "1 request" or "2 requests"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(parts: list[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def moment(nanoseconds: int) -> str:
    """Return a point in time as ``2026-11-20 14:03:22`` (UTC)."""
    return f"{datetime.fromtimestamp(nanoseconds / 1e9, UTC):%Y-%m-%d %H:%M:%S}"


def clock(nanoseconds: int) -> str:
    """Return the time of day, UTC."""
    return f"{datetime.fromtimestamp(nanoseconds / 1e9, UTC):%H:%M:%S}"
