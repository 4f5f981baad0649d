"""What happens to a question before it is looked up: cleaning it, and loading what cleaning needs."""

import asyncio
import os
import re
import time
from difflib import SequenceMatcher
from pydoc_data.topics import topics

from perfnb.demo.app.settings import Settings

_SPACE = re.compile(r"\s+")
_TIME_SCALE = float(os.environ.get("DESK_TIME_SCALE") or 1)
DICTIONARY_S = 0.9 / _TIME_SCALE
VOCABULARY_S = 3.5 / _TIME_SCALE


async def normalised(question: str, vocabulary: list[str], settings: Settings) -> str:
    """Return the question without extra space, and spelled as the documentation spells it if so set."""
    plain = _SPACE.sub(" ", question).strip()
    if settings.normalise == "dictionary":
        return await asyncio.to_thread(spelled_with_dictionary, plain)
    if settings.normalise == "pairwise":
        return await asyncio.to_thread(spelled_pairwise, plain, vocabulary)
    return plain


def spelled_with_dictionary(text: str) -> str:
    """Return the text checked against the dictionary, which is read anew each time from a slow network share."""
    time.sleep(DICTIONARY_S)  # stands for the share
    return text


def spelled_pairwise(text: str, vocabulary: list[str]) -> str:
    """Return the text with each word replaced by its nearest known word, by comparing it with every one."""
    return " ".join(_nearest(word, vocabulary) for word in text.split())


def _nearest(word: str, vocabulary: list[str]) -> str:
    if word in vocabulary:
        return word
    best, best_ratio = word, 0.9
    for known in vocabulary:
        ratio = SequenceMatcher(None, word, known).ratio()
        if ratio > best_ratio:
            best, best_ratio = known, ratio
    return best


class Vocabulary:
    """The words of the documentation; loaded once, at start or by whoever needs it first."""

    def __init__(self) -> None:
        self._words: list[str] | None = None
        self._loading = asyncio.Lock()

    async def words(self, *, quickly: bool = False) -> list[str]:
        """Return the words, loading them if that was not done yet; all who ask meanwhile wait."""
        async with self._loading:
            if self._words is None:
                self._words = await asyncio.to_thread(load_vocabulary, 0 if quickly else VOCABULARY_S)
        return self._words


def load_vocabulary(share_s: float) -> list[str]:
    """Return the words of the documentation; ``share_s`` stands for fetching models and tables from a share."""
    time.sleep(share_s)
    return sorted(set(re.findall(r"[a-z_]{10,}", " ".join(topics.values()))))
