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
REPEATED_WORDS = 8
"""Words in a row that, found again in one text, are taken for repeated: idioms and table headings are shorter."""
SKETCH_SIZE = 32
HASH_BITS = 48  # exact in every JSON reader, and 32 of them stay under 500 bytes
KNOWN_WORDS = 200_000

# A script that writes without spaces gives a word per character, or a whole page would be one word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_SPACED = bytes(byte if chr(byte).isalnum() or byte == ord("_") else ord(" ") for byte in range(256))

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]


class _Words(dict[bytes, int]):
    """Keyed hashes of words, made when first asked for."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __missing__(self, word: bytes) -> int:
        if len(self) >= KNOWN_WORDS:  # identifiers and typing errors are without end
            self.clear()
        self[word] = hashed = int.from_bytes(blake2b(word, key=self._key, digest_size=8).digest(), "big")
        return hashed


class Sketcher:
    """Makes sketches under one key; remembers the hashes of words it has seen."""

    def __init__(self, key: bytes) -> None:
        self._words = _Words(key)

    def sketch(self, text: str) -> list[int]:
        """Return the sketch of ``text``: up to 32 sorted integers; none for a text without words."""
        return _sketch(self._shingles(text))

    def sketch_and_repeats(self, text: str) -> tuple[list[int], float]:
        """Return the sketch of ``text``, and the part (0 to 1) of it that had been said before in the same text."""
        shingles = self._shingles(text)
        return _sketch(shingles), _repeated(shingles)

    def _shingles(self, text: str) -> Hashes:
        found = words(text)
        hashes = np.fromiter(map(self._words.__getitem__, found), np.uint64, len(found))
        return _shingles(hashes, min(SHINGLE_WORDS, len(found)))


def _shingles(hashes: Hashes, size: int) -> Hashes:
    shingles = np.zeros(len(hashes) - size + 1 if size else 0, np.uint64)
    for offset in range(size):
        shingles = shingles * _STEP + hashes[offset : offset + len(shingles)]
    return shingles


def _repeated(shingles: Hashes) -> float:
    """Return the part of runs of eight words, each made of two shingles, that came before.

    Runs of one shingle said twice are left out: rows of zeros in a table are no repeated text.
    """
    apart = REPEATED_WORDS - SHINGLE_WORDS
    if len(shingles) <= 2 * REPEATED_WORDS:
        return 0.0
    runs = _mixed(shingles[:-apart]) * _STEP + shingles[apart:]
    told = np.sort(runs[shingles[:-apart] != shingles[apart:]])
    return float((told[1:] == told[:-1]).sum() / len(runs))


def words(text: str) -> list[bytes]:
    """Return the words of ``text`` in lower case, punctuation left out."""
    if text.isascii():  # several times as fast as the pattern, and by far the most frequent case
        return text.encode().lower().translate(_SPACED).split()
    return [word.encode("utf-8", "surrogatepass") for word in _WORD.findall(text.casefold())]


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


def _sketch(shingles: Hashes) -> list[int]:
    return _smallest(_mixed(shingles) >> np.uint64(64 - HASH_BITS)) if len(shingles) else []


def _smallest(hashes: Hashes) -> list[int]:
    """Return the smallest different ``hashes``, sorted."""
    ordered = np.sort(hashes)
    is_new = np.empty(len(ordered), bool)
    is_new[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    kept: list[int] = ordered[is_new][:SKETCH_SIZE].tolist()
    return kept


def _mixed(values: Hashes) -> Hashes:
    """Return ``values`` well mixed (the end of splitmix64); uint64 arithmetic wraps on purpose."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))
