"""Which part of a pipeline a span is, where its name is one that all of them share."""

import re
from functools import cache, lru_cache

from perfnb.sources.otlp.dialects import table
from perfnb.sources.otlp.spans import Span


@lru_cache(maxsize=4_096)
def is_shared(name: str) -> bool:
    """Tell whether ``name`` only says that something runs, as ``haystack.component.run`` does."""
    return bool(_shared().search(name))


def part(span: Span) -> str | None:
    """Return what runs, from the first attribute that tells and is not in the span's name already."""
    for ending in table()["parts"]["told_by"]:
        for name, value in span.attributes.items():
            if isinstance(value, str) and value and _ends(name, ending) and value not in span.name:
                return value
    return None


def _ends(name: str, ending: str) -> bool:
    return name.endswith(ending) and name[: -len(ending)][-1:] in ("", ".", "_")


@cache
def _shared() -> re.Pattern[str]:
    return re.compile(table()["parts"]["shared"])
