"""Passages go into the prompt as long as they fit a budget of tokens, each of them once.

Mends: large-context, too-many-documents, redundant-prompt-text
Needs: tiktoken
Source: A5, B24; tiktoken manual (encode_ordinary)
Unlike the guides: tokens are counted, four characters each is a rule of thumb for English; one passage too long doesn't
    drop all that follow it. Making a text "concise" is no job for code: shorten the instructions by hand.
Costs: what is left out can't be used in the answer: compare answers in a trial. tiktoken downloads its vocabulary on
    first use (TIKTOKEN_CACHE_DIR); for other makers' models its count is an estimate, so leave a margin.
"""

from collections.abc import Iterable

import tiktoken


def context(passages: Iterable[str], encoding: tiktoken.Encoding, *, budget_tokens: int = 2000) -> str:
    """Return the passages that fit, in the order given: the best first."""
    kept: list[str] = []
    seen: set[str] = set()
    for passage in passages:
        told = " ".join(passage.lower().split())
        if told not in seen and tokens([*kept, passage], encoding) <= budget_tokens:
            kept.append(passage)
            seen.add(told)
    return joined(kept)


def tokens(passages: list[str], encoding: tiktoken.Encoding) -> int:
    """Return the tokens of the passages as they stand in the prompt."""
    return len(encoding.encode_ordinary(joined(passages)))


def joined(passages: list[str]) -> str:
    """Return the passages with an empty line between them."""
    return "\n\n".join(passages)
