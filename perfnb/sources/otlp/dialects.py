"""What an attribute says, whichever dialect it is in: ``dialects.toml`` as look-ups made for speed.

Every attribute name has one role: it states a fact, unpacks into several, tells when the first token came, holds
contents or a secret. Roles are remembered per name, so a span costs one dictionary look-up per attribute.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from perfnb.sources.otlp.secrets import scrub

REMEMBERED_NAMES = 20_000  # emitters that put ids into attribute names must not fill the memory
LONG_TEXT = 1_000  # an unknown attribute longer than this is taken for contents
LONGEST_NAME, MOST_WORDS_OF_A_NAME = 300, 3  # of an attribute: a name that is longer is a text

Form = Literal[
    "unknown", "label", "verbatim", "address", "path", "query", "statement", "stack", "message", "text", "secret"
]
"""How the texts under a name are treated; see :class:`perfnb.sources.otlp.cleaner.Cleaner`."""

_CONTENT_FACTS = {
    "input_messages", "output_messages", "system", "tools", "input", "output", "response_text", "response_tool_calls",
    "documents",
}  # fmt: skip
_SECRET = re.compile(
    r"authorization|api[-_]?key|cookie|passw|secret|credential|private[-_]?key|bearer"
    r"|(access|refresh|auth|security|session|id)[-_.]?token(?!s)",
    re.IGNORECASE,
)


class Clean(Protocol):
    """What is written in place of texts, and of the lists and objects that hold some."""

    @property
    def verdicts(self) -> Mapping[Form, Mapping[str, str]]:
        """What is written of a text, by form."""

    def structure(self, value: Any, form: Form) -> Any:
        """Return a list or an object with what is written of each text in it."""


@dataclass(frozen=True, slots=True)
class Role:
    """What an attribute name stands for; ``rank`` orders names of one fact, the lowest wins."""

    fact: str | None = None
    rank: int = 0
    unpack: Mapping[str, str] | None = None
    unit: str | None = None
    content: bool = False
    secret: bool = False
    form: Form = "unknown"


class Reading(NamedTuple):
    """What a span's attributes say, which of them may be written, and the contents among them."""

    facts: dict[str, Any]
    kept: dict[str, Any]
    contents: dict[str, Any]


@cache
def table() -> dict[str, Any]:
    """Return ``dialects.toml``."""
    return tomllib.loads(files("perfnb.sources.otlp").joinpath("dialects.toml").read_text())


class Roles(dict[str, Role]):
    """Attribute name to role, found on first use."""

    def __init__(self) -> None:
        super().__init__()
        content = table()["content"]
        self._fixed = _fixed_roles()
        self._kept = frozenset(content["kept"])
        self._names = frozenset(content["names"])
        self._prefixes = tuple(content["prefixes"])
        self._last_parts = frozenset(content["last_parts"])
        self._patterns = [re.compile(pattern) for pattern in content["patterns"]]
        self._forms = _forms()
        self._label_prefixes = tuple(table()["label_prefixes"])

    def __missing__(self, name: str) -> Role:
        if len(self) > REMEMBERED_NAMES:
            self.clear()
        role = self[name] = self._fixed.get(name) or self._role_of(name)
        return role

    def _role_of(self, name: str) -> Role:
        if name not in self._kept and self._is_content(name):
            return Role(content=True)
        is_hidden = _SECRET.search(name) or len(name) > LONGEST_NAME or len(name.split()) > MOST_WORDS_OF_A_NAME
        return Role(secret=bool(is_hidden), form=self._form_of(name))

    def _form_of(self, name: str) -> Form:
        low = name.lower()
        for form, names, pattern in self._forms:
            if low in names or low.rpartition(".")[2] in names or pattern.search(low):
                return form
        return "label" if low.startswith(self._label_prefixes) else "unknown"

    def _is_content(self, name: str) -> bool:
        return (
            name in self._names
            or name.startswith(self._prefixes)
            or name.rpartition(".")[2].lower() in self._last_parts
            or any(pattern.search(name) for pattern in self._patterns)
        )


def _forms() -> list[tuple[Form, frozenset[str], re.Pattern[str]]]:
    return [
        (each["form"], frozenset(each["names"]), re.compile("|".join(each["patterns"]) or r"(?!)"))
        for each in table()["forms"]
    ]


def _fixed_roles() -> dict[str, Role]:
    declared = table()
    as_form: dict[str, Form] = {"statement": "statement", "http_path": "address"}
    roles: dict[str, Role] = {}
    for fact, names in declared["facts"].items():
        for rank, name in enumerate(names):
            roles[name] = Role(fact, rank, content=fact in _CONTENT_FACTS, form=as_form.get(fact, "label"))
    for name, fields in declared["unpack"].items():
        roles[name] = Role(unpack=fields, form="label")
    for rank, (name, unit) in enumerate(declared["first_token"].items()):
        roles[name] = Role(fact="first_token", rank=rank, unit=unit, form="label")
    return roles


ROLES = Roles()


def read(attributes: Mapping[str, Any], *, roles: Roles = ROLES, clean: Clean | None = None) -> Reading:
    """Return facts, the attributes that are neither contents nor secrets, and the contents.

    A fact's value is as emitted; ``first_token`` is a pair of value and unit. With ``clean`` the texts among the
    attributes are those that may be written where contents may not.
    """
    facts: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    kept: dict[str, Any] = {}
    contents: dict[str, Any] = {}
    packed: list[tuple[Mapping[str, str], Any]] = []
    verdicts = clean.verdicts if clean else None
    for name, value in attributes.items():
        role = roles[name]
        if role.secret or value is None:
            continue
        fact = role.fact
        if fact is not None and role.rank < ranks.get(fact, 999):
            ranks[fact] = role.rank
            facts[fact] = (value, role.unit) if role.unit else value
        if role.unpack is not None:
            packed.append((role.unpack, value))
        if type(value) is str:
            if role.content or (verdicts is None and role.form == "unknown" and len(value) > LONG_TEXT):
                contents[name] = value
            else:
                kept[name] = scrub(value) if verdicts is None else verdicts[role.form][value]
        elif not isinstance(value, (list, dict)):
            kept[name] = value
        elif role.content or (verdicts is None and role.form == "unknown" and _is_long(value)):
            contents[name] = value
        else:
            kept[name] = clean.structure(value, role.form) if clean else value
    for fields, value in packed:
        _unpack(fields, value, facts)
    return Reading(facts, kept, contents)


def _is_long(value: list[Any] | dict[str, Any]) -> bool:
    return len(value) > 20 and len(str(value)) > LONG_TEXT


def _unpack(fields: Mapping[str, str], value: Any, facts: dict[str, Any]) -> None:
    parsed = as_json(value)
    if isinstance(parsed, dict):
        for name, fact in fields.items():
            if isinstance(parsed.get(name), (int, float, str, bool)):
                facts.setdefault(fact, parsed[name])


def as_json(value: Any) -> Any:
    """Return what a JSON text holds; anything else, and JSON that is broken, as it is."""
    if not isinstance(value, str) or value[:1] not in '{["':
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
