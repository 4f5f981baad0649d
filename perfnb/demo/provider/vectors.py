"""Embeddings without a model: hashed words and character trigrams, so that texts that share words are near."""

import base64
import math
import re
import struct
from functools import lru_cache
from zlib import crc32

DIMENSIONS = 256
_TRIGRAM_WEIGHT = 0.25
_COMMON_WEIGHT = 0.3
_COMMON = frozenset(
    ("module", "function", "method", "class", "object", "argument", "arguments", "call", "called", "return", "returns",
     "value", "values", "given", "default", "name", "exactly", "result", "example", "following", "python", "get", "set")
)  # fmt: skip
_WORD = re.compile(r"[a-z0-9_]{2,}")
_STOP_WORDS = (
    "the and for that with this from are was were will can not but you your have has had its it is be been being as at"
    " by in into of on or to an if so than then them they their there these those what when where which who why how do"
    " does did should would could may might must shall about any all each more most other some such only own same too"
    " very just also use used using i me my we our he she us"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())


def words(text: str) -> list[str]:
    """Return the words of ``text`` that carry meaning, in lower case."""
    return [word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]


def embedding(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return a unit vector for ``text``, the same for the same text on every machine."""
    vector = [0.0] * dimensions
    counts: dict[str, int] = {}
    for word in words(text):
        counts[word] = counts.get(word, 0) + 1
    for word, count in counts.items():
        weight = (1 + math.log(count)) * (_COMMON_WEIGHT if word in _COMMON else 1)
        for feature, share in _features(word):
            vector[feature % dimensions] += weight * share if feature & 0x10000 else -weight * share
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else [1.0] + [0.0] * (dimensions - 1)


def as_base64(vector: list[float]) -> str:
    """Return the vector as the protocol's ``encoding_format: base64`` has it: little-endian 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


@lru_cache(maxsize=50_000)
def _features(word: str) -> tuple[tuple[int, float], ...]:
    padded = f"<{word}>"
    grams = {padded[at : at + 3] for at in range(len(padded) - 2)}
    share = _TRIGRAM_WEIGHT / math.sqrt(len(grams))
    return ((crc32(word.encode()), 1.0), *((crc32(f"#{gram}".encode()), share) for gram in sorted(grams)))
