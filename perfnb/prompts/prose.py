"""Tell prose from code, tables, logs and data by its characters alone."""

import re

LETTERS = 0.85
"""Part of the written characters that are letters in prose at least: code, logs and tables have fewer."""

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]*]*(?:\s|$)|[。！？]")
_SPACE = re.compile(r"\s+")


def is_prose(text: str) -> bool:
    """Tell whether ``text`` is made of sentences."""
    written = _SPACE.sub("", text)
    letters = sum(map(str.isalpha, written))
    return bool(letters) and letters >= LETTERS * len(written) and _SENTENCE_END.search(text) is not None
