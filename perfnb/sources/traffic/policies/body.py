"""A request's JSON body that can be changed in places: every other byte stays as it came."""

import json
import re
from typing import Any, Self

from perfnb.prompts.digest import CHARACTERS_PER_TOKEN
from perfnb.prompts.prompt import Operation, Prompt, as_json, operation_of, read_prompt

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()

Span = tuple[int, int]


class Unreadable(ValueError):
    """Raised where a body is no JSON object in UTF-8."""


class Body:
    """The body of a model call, read once; edits replace or remove whole top-level members of its object."""

    def __init__(self, text: str, path: str, members: list[tuple[str, Any, Span, Span]], end: int) -> None:
        self.path = path
        self.values: dict[str, Any] = {name: value for name, value, *_ in members}
        self._text = text
        self._members = members  # name, value, span of the member with its name, span of the value
        self._end = end
        self._changed: dict[str, Any] = {}
        self._removed: set[str] = set()

    @classmethod
    def read(cls, data: bytes, path: str) -> Self:
        """Return the body in ``data``, sent to ``path``; raises Unreadable."""
        try:
            text = data.decode()
            members, end = _members(text)
        except (ValueError, RecursionError) as error:
            raise Unreadable(type(error).__name__) from None
        return cls(text, path, members, end)

    def copy(self) -> "Body":
        """Return a body that can be changed without changing this one."""
        other = Body(self._text, self.path, self._members, self._end)
        other.values, other._changed, other._removed = dict(self.values), dict(self._changed), set(self._removed)
        return other

    @property
    def operation(self) -> Operation:
        """Return what is asked for."""
        return operation_of(self.path)

    @property
    def is_anthropic(self) -> bool:
        """Tell whether this is Anthropic's messages API."""
        return self.path.rstrip("/").endswith("/messages")

    @property
    def is_changed(self) -> bool:
        """Tell whether something differs from what came."""
        return bool(self._changed or self._removed)

    @property
    def prompt(self) -> Prompt:
        """Return the prompt as it stands."""
        return read_prompt(self.values, self.path)

    @property
    def input_tokens(self) -> int:
        """Return an estimate of the prompt's tokens: four characters each, tools included."""
        prompt = self.prompt
        said = sum(len(message.text) for message in prompt.messages)
        return -(-(said + (len(as_json(prompt.schemas)) if prompt.schemas else 0)) // CHARACTERS_PER_TOKEN)

    def set(self, name: str, value: Any) -> None:
        """Give the member ``name`` another value, or add it."""
        if name not in self.values or self.values[name] != value or type(self.values[name]) is not type(value):
            self.values[name] = self._changed[name] = value
            self._removed.discard(name)

    def remove(self, *names: str) -> None:
        """Take members out."""
        for name in names:
            if self.values.pop(name, self) is not self:
                self._changed.pop(name, None)
                self._removed.add(name)

    def encoded(self) -> bytes:
        """Return the body as it stands."""
        text = self._text
        if self._removed:  # a comma goes with each: such a body is put together anew, its members as they came
            kept = [self._member(name, whole, value) for name, _, whole, value in self._members if name in self.values]
            return f"{{{', '.join([*kept, *self._added()])}}}".encode()
        for name, _, _, (start, end) in reversed(self._members):
            if name in self._changed:
                text = text[:start] + json.dumps(self._changed[name]) + text[end:]
        if added := self._added():
            at = len(text) - (len(self._text) - self._end)
            text = text[:at] + (", " if self._members else "") + ", ".join(added) + text[at:]
        return text.encode()

    def _member(self, name: str, whole: Span, value: Span) -> str:
        if name in self._changed:
            return self._text[whole[0] : value[0]] + json.dumps(self._changed[name])
        return self._text[slice(*whole)]

    def _added(self) -> list[str]:
        came = {name for name, *_ in self._members}
        return [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in self._changed.items() if name not in came]


def _members(text: str) -> tuple[list[tuple[str, Any, Span, Span]], int]:
    """Return the members of the object in ``text``, and where its closing brace stands."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("no object")
    found: list[tuple[str, Any, Span, Span]] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        if found:
            at = _skip(text, _past(text, at, ","))
        start = at
        name, at = _DECODER.raw_decode(text, at)
        if not isinstance(name, str):
            raise ValueError("no name")
        begin = _skip(text, _past(text, _skip(text, at), ":"))
        value, at = _DECODER.raw_decode(text, begin)
        found.append((name, value, (start, at), (begin, at)))
        end, at = at, _skip(text, at)
    if _skip(text, at + 1) != len(text):
        raise ValueError("more than an object")
    return found, end if found else at


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _past(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise ValueError(f"no {sign}")
    return at + 1
