"""How alike two texts are by their words alone: no model, no download, and no idea of meaning."""

from hashlib import blake2b
from itertools import pairwise

import numpy as np

from perfnb.prompts.sketch import words

DIMENSIONS = 2048
Vectors = np.ndarray


def lexical_vector(text: str) -> Vectors:
    """Return a vector of the words and pairs of words in ``text``; the product of two is their cosine similarity.

    "Which" and "what" tell it nothing of two questions being one, and "not" next to nothing of two being opposites.
    """
    found = words(text)
    vector = np.zeros(DIMENSIONS, np.float32)
    for part in (*found, *(b" ".join(pair) for pair in pairwise(found))):
        vector[int.from_bytes(blake2b(part, digest_size=4).digest(), "big") % DIMENSIONS] += 1
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def lexical_similarity(one: str, other: str) -> float:
    """Return how alike two texts are by their words, 0 to 1."""
    return float(lexical_vector(one) @ lexical_vector(other))
