"""A path's route where the server does not tell it: parts that look like ids become ``{id}``."""

import re
from functools import lru_cache

_ID = re.compile(
    r"^(?:\d+|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?=[^g-z]*\d)[0-9a-f]{8,}"
    r"|(?=\D*\d)[\w-]{20,}|\w+[-_](?=\D*\d)[0-9a-z]{8,})$",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def route_of(path: str) -> str | None:
    """Return ``path`` with numbers, UUIDs, hashes and tokens replaced by ``{id}``; None for an empty path."""
    if not path:
        return None
    return "/".join("{id}" if _ID.match(part) else part for part in path.split("/"))
