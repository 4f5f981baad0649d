"""Read who called from a ``traceparent`` header.

Source: W3C Trace Context, 3.2 (traceparent header)
"""

import re

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def caller(header: str) -> tuple[str | None, str | None]:
    """Return the trace id and the calling span's id; two Nones where ``header`` is missing or invalid."""
    match = _TRACEPARENT.fullmatch(header.strip())
    if (
        not match
        or match[1] == "ff"
        or (match[1] == "00" and match[4])
        or not int(match[2], 16)
        or not int(match[3], 16)
    ):
        return None, None
    return match[2], match[3]
