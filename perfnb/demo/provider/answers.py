"""What the simulated model says: sentences of the prompt's own context that best match the question.

There is no model here. A handful of instructions that apps give are recognised by their words: rewrite the question,
answer yes or no, check a draft, call tools.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from perfnb.demo.provider.latency import token_count
from perfnb.demo.provider.vectors import words

Message = Mapping[str, Any]

DEFAULT_TOKENS = 75
LONG_TOKENS = 700
TOKENS_PER_WORD = 1.5
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n|\n(?=[\[\-*•])")
_LENGTH = re.compile(r"(\d+) words")
_ID = re.compile(r'"?\b(?:document_)?id"?\s*[:=]\s*"?(\d+)')
_PIECE = re.compile(r"[\s\S]{1,4}")
_AT_LENGTH = re.compile(r"\bin full detail\b")
_INSTRUCTION = re.compile(r"^(you are|answer|use about|if they do not say|reply|think|decline)\b", re.IGNORECASE)
_FILLER = (
    "The documentation at hand does not go into this in more detail.",
    "Start from the simplest case that shows the problem and add one thing at a time.",
    "If that does not help, say which version you run and what you have tried so far.",
    "A short example with the exact call usually tells the most.",
    "Check the arguments you pass against the signature before looking any further.",
)


def pieces(text: str) -> list[str]:
    """Return ``text`` cut into tokens of four characters."""
    return _PIECE.findall(text)


def text_of(message: Message) -> str:
    """Return a message's text; parts that are no text are left out."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content or () if isinstance(part, dict))


def prompt_text(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return everything the model reads, as one text: what its input tokens are counted on."""
    calls = (json.dumps(m["tool_calls"]) for m in messages if m.get("tool_calls"))
    parts = [json.dumps(list(tools))] if tools else []
    return "\n".join([*parts, *(f"{m.get('role')}: {text_of(m)}" for m in messages), *calls])


def answer(messages: Sequence[Message], *, rng: random.Random) -> str:
    """Return the model's words for these messages."""
    asked = question(messages)
    instructions = _instructions(messages).lower()
    if "yes or no" in instructions:
        return _verdict(messages, asked, "why" in instructions)
    if "ok or revise" in instructions:
        return "REVISE: name the module and the call first." if rng.random() < 0.6 else "OK"
    if "rewrite" in instructions:
        return f"{asked.rstrip('?. ')} ({' '.join(dict.fromkeys(words(asked)))[:80]})?"
    return _extract(_context(messages), asked, _wanted_tokens(instructions, rng))


def question(messages: Sequence[Message]) -> str:
    """Return what is asked: the last user message, or what follows ``Question:`` in it."""
    last = next((text_of(m) for m in reversed(messages) if m.get("role") == "user"), "")
    return last.rpartition("Question:")[2].strip()[-600:]


def tool_calls(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the calls the model wants next, as name and arguments; none when it knows enough to answer.

    First every tool that needs no id, at once; then those that take an id, with ids found in the results. Where the
    instructions name tools, no others are called.
    """
    system = "\n".join(text_of(m) for m in messages if m.get("role") in ("system", "developer"))
    tools = [tool for tool in tools if tool["function"]["name"] in system] or tools
    since = _since_question(messages)
    results = "\n".join(text_of(m) for m in since if m.get("role") == "tool")
    called = {call["function"]["name"] for m in since for call in m.get("tool_calls") or ()}
    ids = list(dict.fromkeys(_ID.findall(results)))[:2]
    asked = question(messages)
    wanted = []
    for tool in tools:
        function = tool["function"]
        needs_id = any(name.endswith("id") for name in _properties(function))
        if function["name"] in called or (needs_id and not ids) or (needs_id != bool(called)):
            continue
        wanted += [_call(function, asked, each) for each in (ids if needs_id else [""])]
    return wanted[:4]


def _call(function: Mapping[str, Any], asked: str, found: str) -> dict[str, str]:
    arguments: dict[str, Any] = {}
    for name, schema in _properties(function).items():
        if name.endswith("id"):
            arguments[name] = int(found) if schema.get("type") == "integer" else found
        elif schema.get("type") == "integer":
            arguments[name] = 5
        else:
            arguments[name] = " ".join(dict.fromkeys(words(asked))) or asked
    return {"name": function["name"], "arguments": json.dumps(arguments)}


def _properties(function: Mapping[str, Any]) -> Mapping[str, Any]:
    properties: Mapping[str, Any] = (function.get("parameters") or {}).get("properties") or {}
    return properties


def _since_question(messages: Sequence[Message]) -> Sequence[Message]:
    last = max((at for at, m in enumerate(messages) if m.get("role") == "user"), default=0)
    return messages[last + 1 :]


def _instructions(messages: Sequence[Message]) -> str:
    """Return system messages and the last user message without long passages: where an app says what it wants."""
    last = next((text_of(m) for m in reversed(messages) if m.get("role") == "user"), "")
    system = [text_of(m) for m in messages if m.get("role") in ("system", "developer")]
    return "\n".join(text if len(text) < 600 else f"{text[:300]}\n{text[-300:]}" for text in (*system, last))


def _context(messages: Sequence[Message]) -> str:
    last = next((text_of(m) for m in reversed(messages) if m.get("role") == "user"), "")
    given = [text_of(m) for m in messages if m.get("role") in ("system", "developer", "tool")]
    return "\n\n".join([*(text for text in given if len(text) > 400), last.rpartition("Question:")[0]])


def _wanted_tokens(instructions: str, rng: random.Random) -> int:
    found = _LENGTH.findall(instructions)
    if not found and _AT_LENGTH.search(instructions):
        return round(LONG_TOKENS * rng.lognormvariate(0, 0.5))
    wanted = int(found[-1]) * TOKENS_PER_WORD if found else DEFAULT_TOKENS
    return round(wanted * rng.uniform(0.8, 1.1))


def _extract(context: str, asked: str, wanted: int) -> str:
    sentences = [" ".join(part.split()) for part in _SENTENCE.split(context)]
    sentences = [part for part in sentences if 30 <= len(part) <= 400 and not _INSTRUCTION.search(part)]
    sentences = list(dict.fromkeys(sentences))
    terms = set(words(asked))
    scores = {part: _overlap(part, terms) for part in sentences}
    best = sorted(sentences, key=lambda part: -scores[part])
    said: list[str] = []
    for sentence in (*best, *_FILLER * 40):
        if sum(map(token_count, said)) >= wanted:
            break
        said.append(sentence)
    return "".join(pieces(" ".join(said))[:wanted]).rstrip(" ,;:") + "."


def _overlap(sentence: str, terms: set[str]) -> float:
    found = words(sentence)
    return len(terms.intersection(found)) / (4 + len(found) ** 0.5) if found else 0.0


def _verdict(messages: Sequence[Message], asked: str, with_reason: bool) -> str:
    passage = "\n".join(text_of(m) for m in messages)
    terms = set(words(asked))
    known = terms.intersection(words(passage.replace(asked, "")))
    verdict = "Yes" if len(known) * 2 >= len(terms) else "No"
    if not with_reason:
        return verdict
    return f"{verdict}, because the passage speaks of {', '.join(sorted(known)[:4]) or 'other things'} and the question asks for {', '.join(sorted(terms)[:4])}."
