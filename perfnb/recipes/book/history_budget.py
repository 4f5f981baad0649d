"""A conversation is cut to a budget of tokens: the instructions and the newest turns stay.

Mends: long-history, large-context
Needs: tiktoken
Source: A18, D13, E30; OpenAI cookbook (how to count tokens)
Unlike the guides: the last 50 messages can hold the instructions a second time, and can begin with a tool's result whose
    call was cut off, which the API refuses. Here a turn, from a question to the next, stays or goes as a whole.
Costs: what was cut is forgotten: put lasting facts into the instructions. A cut moves the beginning of the prompt and
    with it the provider's prefix cache, so cut seldom and by more than one turn.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tiktoken

Message = Mapping[str, Any]
FRAME_TOKENS = 4  # what stands around a message


def newest(messages: Sequence[Message], encoding: tiktoken.Encoding, *, budget_tokens: int = 4000) -> list[Message]:
    """Return the instructions and as many of the newest turns as fit; the last turn stays in any case."""
    instructions = [each for each in messages if each["role"] in ("system", "developer")]
    left = budget_tokens - tokens(instructions, encoding)
    kept: list[Message] = []
    for turn in reversed(turns(messages)):
        left -= tokens(turn, encoding)
        if left < 0 and kept:
            break
        kept = [*turn, *kept]
    return [*instructions, *kept]


def turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Return the messages by turn; each begins with what the user said."""
    found: list[list[Message]] = []
    for each in messages:
        if each["role"] == "user" or not found:
            found.append([])
        if each["role"] not in ("system", "developer"):
            found[-1].append(each)
    return found


def tokens(messages: Sequence[Message], encoding: tiktoken.Encoding) -> int:
    """Return what the messages take, tool calls included; a little more than the provider will count."""
    return sum(FRAME_TOKENS + len(encoding.encode_ordinary(json.dumps(each))) for each in messages)
