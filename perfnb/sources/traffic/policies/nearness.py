"""Find the nearest of some embeddings: rows of a key and a vector, one after another, in the order they came."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

KEY_BYTES = 16
"""Keys are 32 hex digits."""
_FLOAT_BYTES = 4


def added(index: bytes, key: str, vector: bytes, most: int) -> bytes:
    """Return ``index`` with one row more; the oldest rows go when there are more than ``most``."""
    row = bytes.fromhex(key) + vector
    if len(index) % len(row):  # of another length of vector: the model behind the name has changed
        index = b""
    return (index + row)[-most * len(row) :]


def nearest(index: bytes, vector: bytes) -> tuple[str, float] | None:
    """Return the key of the row whose vector is nearest and the cosine similarity; the newest of equals."""
    import numpy as np

    size = KEY_BYTES + len(vector)
    if not vector or not index or len(index) % size:
        return None
    rows = np.frombuffer(index, dtype=np.uint8).reshape(-1, size)
    vectors = np.ascontiguousarray(rows[:, KEY_BYTES:]).view(np.float32)
    asked = np.frombuffer(vector, dtype=np.float32)
    lengths = _lengths(vectors) * float(np.linalg.norm(asked))
    similarities = (vectors @ asked) / np.where(lengths > 0, lengths, np.inf)
    best = len(similarities) - 1 - int(np.argmax(similarities[::-1]))
    return rows[best, :KEY_BYTES].tobytes().hex(), float(similarities[best])


def _lengths(vectors: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    import numpy as np

    lengths: np.ndarray[Any, Any] = np.linalg.norm(vectors, axis=1)
    return lengths
