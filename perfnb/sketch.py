"""Keyed shingle sketches: small fingerprints that tell how much text two messages share, and nothing of what it says.

A sketch is the 32 smallest keyed hashes of a text's word 4-shingles (bottom-k minhash), sorted. Without the recording's
key a sketch can't be searched for a known text.

Source: Broder, "On the resemblance and containment of documents" (1997)
"""

import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

SHINGLE_WORDS = 4
SKETCH_SIZE = 32
HASH_BITS = 48  # exact in every JSON reader, and 32 of them stay under 500 bytes
KNOWN_WORDS = 200_000

# A script that writes without spaces gives a word per character, or a whole page would be one word.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Sketcher:
    """Makes sketches under one key; remembers the hashes of words it has seen."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._words: dict[str, int] = {}

    def sketch(self, text: str) -> list[int]:
        """Return the sketch of ``text``: up to 32 sorted integers; none for a text without words."""
        words = [self._word(word) for word in WORD.findall(text.casefold())]
        if not words:
            return []
        hashes = np.array(words, dtype=np.uint64)
        size = min(SHINGLE_WORDS, len(words))
        mixed = np.zeros(len(words) - size + 1, dtype=np.uint64)
        for offset in range(size):
            mixed = _mixed(mixed + hashes[offset : offset + len(mixed)])
        return [int(value) for value in np.unique(mixed >> np.uint64(64 - HASH_BITS))[:SKETCH_SIZE]]

    def _word(self, word: str) -> int:
        known = self._words.get(word)
        if known is None:
            if len(self._words) >= KNOWN_WORDS:  # identifiers and typing errors are without end
                self._words.clear()
            encoded = word.encode("utf-8", "surrogatepass")
            known = int.from_bytes(blake2b(encoded, key=self._key, digest_size=8).digest(), "big")
            self._words[word] = known
        return known


def similarity(a: Sequence[int], b: Sequence[int]) -> float:
    """Return the share of shingles two texts have in common, 0 to 1 (Jaccard, estimated from their sketches)."""
    reach = min(_reach(a), _reach(b))
    union = sum(value <= reach for value in {*a, *b})
    return sum(value <= reach for value in {*a} & {*b}) / union if union else 0.0


def containment(a: Sequence[int], b: Sequence[int]) -> float:
    """Return the share of text ``a`` found again in text ``b``, 0 to 1, estimated from their sketches.

    Only hashes up to the largest one that ``b`` kept can be looked for; where ``a`` has none of them (a short text in a
    very long one) nothing can be told and the answer is 0.
    """
    reach, there = _reach(b), {*b}
    within = [value for value in a if value <= reach]
    return sum(value in there for value in within) / len(within) if within else 0.0


def _reach(sketch: Sequence[int]) -> float:
    """Return up to where ``sketch`` lists every hash of its text: a sketch that is not full lists them all."""
    return sketch[-1] if len(sketch) >= SKETCH_SIZE else 2**HASH_BITS


def _mixed(values: "np.ndarray[tuple[int], np.dtype[np.uint64]]") -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """Return ``values`` well mixed (splitmix64); uint64 arithmetic wraps on purpose."""
    values = values + _MIX[0]
    values = (values ^ (values >> np.uint64(30))) * _MIX[1]
    values = (values ^ (values >> np.uint64(27))) * _MIX[2]
    return values ^ (values >> np.uint64(31))
