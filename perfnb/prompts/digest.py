"""What is kept of a model call's content: keyed hashes, token counts, sketches; with ``--content full`` also the text.

A request body of any known protocol (OpenAI chat completions, responses, completions, embeddings; Anthropic messages)
is first read into one :class:`Prompt`, then digested into columns of ``llm_calls``.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import orjson

from perfnb.prompts.passages import passages
from perfnb.prompts.prompt import Message, Tool, as_json, read_prompt
from perfnb.prompts.questions import announced
from perfnb.prompts.sketch import Sketcher
from perfnb.recording.recording import Content
from perfnb.tokens import CHARACTERS_PER_TOKEN as CHARACTERS_PER_TOKEN

EDGES = 300, 500
"""Characters at both ends of the last user message that get a sketch of their own: there the question stands that a
request asked, between instructions and passages of which a sketch of the whole keeps little else. So does a question
that a line in between announces."""
REMEMBERED_TEXTS = 20_000
OPENING_CHARACTERS = 40
"""Prompts made from one template begin alike, whatever passages or names follow."""
LONGER_OPENINGS = 160, 640, 2560
"""How far two prompts begin alike decides what a provider's prefix cache can read: digests of these lengths tell."""
LEAST_REPEATED = 0.1
"""Part of a text said before in it from which on it is noted."""
SKETCHED_INPUTS = 64
"""Embedding inputs of one request that get a sketch; all get a digest."""

PassagesIn = Literal["none", "prompt", "tool"]
"""Where a text is looked through for passages: nowhere, as an app writes prompts, or as a tool answers."""
_PASSAGES_IN: dict[str, PassagesIn] = {"assistant": "none", "input": "none", "tool": "tool"}

# They change from call to call, or say how to answer and not what: two requests that differ only here ask the same.
VOLATILE = frozenset(
    {
        "stream", "stream_options", "user", "metadata", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention", "prompt_cache_options", "store", "service_tier", "background",
    }
)  # fmt: skip


@dataclass(frozen=True)
class TextDigest:
    """What is kept of one text."""

    digest: str
    tokens: int
    sketch: list[int]
    passages: int
    passage_tokens: int
    repeated_tokens: int = 0
    tokens_of_passages: tuple[int, ...] = ()


class Digester:
    """Digests requests and answers under a recording's key; the same text always gives the same digest."""

    def __init__(self, key: bytes, content: Content = "digest") -> None:
        self._key = key
        self._keeps_text = content == "full"
        self._sketcher = Sketcher(key)
        self._known: OrderedDict[tuple[str, PassagesIn], TextDigest] = OrderedDict()  # holds no text

    def digest(self, text: str) -> str:
        """Return the keyed hash of ``text``: 16 hex digits."""
        return self._digest(text.encode("utf-8", "surrogatepass"))

    def sketch(self, text: str) -> list[int]:
        """Return the shingle sketch of ``text``; see :mod:`perfnb.prompts.sketch`."""
        return self._sketcher.sketch(text)

    def request(self, body: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Return the ``llm_calls`` columns that the request ``body`` sent to ``path`` tells."""
        prompt = read_prompt(body, path)
        kept = {name: value for name, value in body.items() if name not in VOLATILE}
        columns = {
            **prompt.settings,
            "operation": prompt.operation,
            "request_digest": self._digest(_canonical(kept)),
            "prompt_digest": self._digest(_canonical([prompt.said, prompt.schemas])) if prompt.said else None,
            "tools_offered": len(prompt.tools),
            "tool_schema_tokens": _tokens(as_json(prompt.schemas)) if prompt.tools else 0,
            "inputs": len(prompt.messages) if prompt.operation == "embeddings" else None,
            "conversation_id": self.digest(prompt.conversation) if prompt.conversation else None,
            "messages": [self._message(message, index) for index, message in enumerate(prompt.messages)],
        }
        users = [index for index, message in enumerate(prompt.messages) if message.role == "user"]
        if users and len(text := prompt.messages[users[-1]].text) > sum(EDGES):
            columns["messages"][users[-1]]["edges"] = self._edges(text)
        return columns | prompt_totals(columns["messages"])

    def answer(self, text: str, tool_calls: Sequence[Tool]) -> dict[str, Any]:
        """Return the columns that an answer's text and tool calls tell."""
        said = [text, *([call.name, call.arguments] for call in tool_calls)]
        columns: dict[str, Any] = {
            "response_digest": self._digest(_canonical(said)),
            "response_sketch": self.text(text, passages_in="none").sketch,
            "tool_calls": [self._tool(call) for call in tool_calls],
        }
        return columns | ({"response_text": readable(text)} if self._keeps_text else {})

    def text(self, text: str, *, passages_in: PassagesIn = "prompt") -> TextDigest:
        """Return what is kept of one text, from memory where it was digested before."""
        digest = self.digest(text)
        key = (digest, passages_in)
        known = self._known.get(key)
        if known is None:
            found = [] if passages_in == "none" else passages(text, is_from_tool=passages_in == "tool")
            sizes = tuple(_tokens(passage) for passage in found)
            sketch, repeated = self._sketcher.sketch_and_repeats(text)
            again = round(repeated * _tokens(text)) if repeated >= LEAST_REPEATED else 0
            known = TextDigest(digest, _tokens(text), sketch, len(found), sum(sizes), again, sizes)
            self._known[key] = known
            if len(self._known) > REMEMBERED_TEXTS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return known

    def _message(self, message: Message, index: int) -> dict[str, Any]:
        if message.role == "input" and index >= SKETCHED_INPUTS:
            kept = TextDigest(self.digest(message.text), _tokens(message.text), [], 0, 0)
        else:
            kept = self.text(message.text, passages_in=_PASSAGES_IN.get(message.role, "prompt"))
        entry: dict[str, Any] = {
            "role": message.role,
            "digest": kept.digest,
            "tokens": kept.tokens + message.extra_tokens,
        }
        entry |= {"sketch": kept.sketch, "passages": kept.passages}
        if index == 0:
            entry["opening"] = self.digest(message.text[:OPENING_CHARACTERS])
            entry["openings"] = [
                self.digest(message.text[:size]) for size in LONGER_OPENINGS if len(message.text) > size
            ]
        if kept.repeated_tokens:
            entry["repeated_tokens"] = kept.repeated_tokens
        if kept.passages:
            entry["passage_tokens"] = kept.passage_tokens
            entry["tokens_of_passages"] = list(kept.tokens_of_passages)
        if message.other_parts:
            entry["other_parts"] = message.other_parts
        if message.tool_calls:
            entry["tool_calls"] = [self._tool(call) for call in message.tool_calls]
            entry["tokens"] += sum(_tokens(call.name + call.arguments) for call in message.tool_calls)
        if message.answers:
            entry["id_digest"] = self.digest(message.answers)
        if self._keeps_text:
            entry["text"] = readable(message.text)
        return entry

    def _edges(self, text: str) -> list[int]:
        said = text[: EDGES[0]], *announced(text), text[-EDGES[1] :]
        return [shingle for part in said for shingle in self.text(part, passages_in="none").sketch]

    def _tool(self, call: Tool) -> dict[str, Any]:
        arguments = _parsed(call.arguments)
        return {
            "name": readable(call.name),
            "arguments_digest": self._digest(_canonical(arguments)),
            "id_digest": self.digest(call.id) if call.id else None,
        }

    def _digest(self, data: bytes) -> str:
        return blake2b(data, key=self._key, digest_size=8).hexdigest()


def prompt_totals(messages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the columns that sum up a call's ``messages``: system, history and passage tokens.

    History is what stands before the last user message, tools' answers included; passages in it belong to it, and only
    those given with the instructions or since the user last spoke are counted as passages.
    """
    roles = [message["role"] for message in messages]
    asked = len(roles) - 1 - roles[::-1].index("user") if "user" in roles else 0
    while asked and roles[asked] == roles[asked - 1] == "user":  # context and question in messages of their own
        asked -= 1
    last = max((number for number, role in enumerate(roles) if role == "user"), default=0)
    given = [message for number, message in enumerate(messages) if number >= asked or _is_system(message)]
    before = [message for message in messages[:last] if not _is_system(message)]
    return {
        "system_tokens": sum(message["tokens"] for message in messages if _is_system(message)),
        "history_messages": sum(message["role"] in ("user", "assistant") for message in before),
        "history_tokens": sum(message["tokens"] for message in before),
        "passages": sum(message["passages"] for message in given),
        "passage_tokens": sum(message.get("passage_tokens", 0) for message in given),
    }


def _is_system(message: Mapping[str, Any]) -> bool:
    return message["role"] in ("system", "developer")


def prompt_tokens(columns: Mapping[str, Any]) -> int:
    """Return the tokens that ``columns`` estimate for the whole prompt, tool schemas included."""
    tokens: int = columns["tool_schema_tokens"] + sum(message["tokens"] for message in columns["messages"])
    return tokens


def scale_tokens(columns: dict[str, Any], input_tokens: int) -> dict[str, Any]:
    """Return ``columns`` with their estimated tokens scaled so that all add up to the provider's ``input_tokens``.

    Unchanged where part of the prompt can't be seen (an image, a conversation that the provider keeps): its tokens
    would be given to the texts.
    """
    estimated = prompt_tokens(columns)
    unseen = columns["attributes"].get("previous_response") or any(
        "other_parts" in message for message in columns["messages"]
    )
    if unseen or not estimated or estimated == input_tokens:
        return columns
    factor = input_tokens / estimated
    schemas = round(columns["tool_schema_tokens"] * factor)
    messages, before = [], columns["tool_schema_tokens"]
    for message in columns["messages"]:
        after = before + message["tokens"]
        scaled = {**message, "tokens": round(after * factor) - round(before * factor)}
        for part in ("passage_tokens", "repeated_tokens"):
            if part in message:
                scaled[part] = min(scaled["tokens"], round(message[part] * factor))
        messages.append(scaled)
        before = after
    return {**columns, "tool_schema_tokens": schemas, "messages": messages} | prompt_totals(messages)


def readable(text: str) -> str:
    """Return ``text`` without lone surrogates, which no JSON file can hold."""
    return text.encode("utf-8", "replace").decode()


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _canonical(value: Any) -> bytes:
    """Return JSON that does not depend on the order of keys."""
    return as_json(value).encode("utf-8", "surrogatepass")


def _parsed(arguments: str) -> Any:
    """Return a tool call's arguments as data, so that spacing and key order make no difference."""
    try:
        return orjson.loads(arguments)
    except ValueError:
        return arguments
