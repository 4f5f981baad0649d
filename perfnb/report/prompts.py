"""Find texts of recorded conversations in what is about to be written, even where a display cut them short.

Contents are split into words, and every run of five of them is remembered as one number; a run of words in a page that
is known is prompt text. Shorter texts count as a whole.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from perfnb.recording import Recording

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN = 5
SHORTEST_TEXT = 12  # characters; "yes" or "hello" tell nobody anything

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Prompts:
    """Known texts: for each length of a run its hashes, sorted."""

    hidden: bool = True
    runs: "tuple[tuple[int, NDArray[np.int64]], ...]" = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Return what is needed to recognise ``texts`` later."""
        found: dict[int, list[NDArray[np.int64]]] = {}
        for text in (leaf for whole in texts for leaf in _leaves(whole)):
            words = _WORD.findall(text.lower())
            length = min(RUN, len(words))
            if length and (length == RUN or len(text) >= SHORTEST_TEXT):
                found.setdefault(length, []).append(_hashes(words, length))
        return cls(True, tuple((length, np.unique(np.concatenate(parts))) for length, parts in sorted(found.items())))

    @classmethod
    def recorded_in(cls, recording: Recording) -> Self:
        """Return the texts ``recording`` holds; it holds none unless it was made with full contents."""
        return cls.of(_texts(recording)) if recording.content == "full" else cls()

    def hide(self, text: str, stand_in: str) -> tuple[str, int]:
        """Return ``text`` with runs of known words replaced, and how many runs were."""
        if not self.runs or len(text) < SHORTEST_TEXT:
            return text, 0
        words = [match.span() for match in _WORD.finditer(text)]
        known = self._known([text[start:end].lower() for start, end in words])
        parts, position, hidden = [], 0, 0
        for first, last in _stretches(known):
            parts += [text[position : words[first][0]], stand_in]
            position, hidden = words[last][1], hidden + 1
        return "".join([*parts, text[position:]]), hidden

    def _known(self, words: list[str]) -> "NDArray[np.bool_]":
        known = np.zeros(len(words), dtype=bool)
        for length, hashes in self.runs:
            if length <= len(words):
                for start in np.flatnonzero(np.isin(_hashes(words, length), hashes)):
                    known[start : start + length] = True
        return known


NO_PROMPTS = Prompts()
CONTENT_ASKED_FOR = Prompts(hidden=False)


def _hashes(words: list[str], length: int) -> "NDArray[np.int64]":
    """Return one number for each run of ``length`` words."""
    single = np.fromiter((hash(word) for word in words), dtype=np.int64, count=len(words))
    runs = len(words) - length + 1
    total = np.zeros(runs, dtype=np.int64)
    for offset in range(length):
        total = total * np.int64(1_000_003) + single[offset : offset + runs]  # wraps around, as hashes do
    return total


def _leaves(text: str) -> Iterator[str]:
    """Yield ``text``, or every string in it where it is JSON, as attributes that hold messages are."""
    parsed: Any = text
    if text[:1] in "[{":
        with suppress(ValueError):
            parsed = json.loads(text)
    waiting = [parsed]
    while waiting:
        match waiting.pop():
            case str() as leaf:
                yield leaf
            case list() as parts:
                waiting += parts
            case dict() as parts:
                waiting += parts.values()


def _stretches(known: "NDArray[np.bool_]") -> list[tuple[int, int]]:
    """Return first and last position of each unbroken stretch that is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(np.int8), [0]])))
    return [(int(first), int(last) - 1) for first, last in edges.reshape(-1, 2)]


_TEXTS = """
SELECT DISTINCT text FROM (
    SELECT unnest(json_extract_string(messages, '$[*].text')) AS text FROM llm_calls WHERE messages IS NOT NULL
    UNION ALL SELECT response_text FROM llm_calls
    UNION ALL SELECT unnest(json_extract_string(attributes, ['$."gen_ai.input.messages"', '$."gen_ai.output.messages"',
        '$."gen_ai.system_instructions"', '$."input.value"', '$."output.value"', '$."gen_ai.prompt"',
        '$."gen_ai.completion"'])) FROM spans
) WHERE text IS NOT NULL
"""


def _texts(recording: Recording) -> Iterable[str]:
    return (str(text) for text in recording.query(_TEXTS)["text"])
