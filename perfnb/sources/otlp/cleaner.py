"""What of a span's texts is written: names, numbers and settings as they are, what people wrote as its digest."""

from collections.abc import Callable
from typing import Any

import orjson

from perfnb.sources.otlp import texts
from perfnb.sources.otlp.dialects import LONG_TEXT, ROLES, Form, as_json
from perfnb.sources.otlp.secrets import scrub

REMEMBERED_TEXTS, LONGEST_REMEMBERED = 4_000, 400
DEEPEST = 12

Rule = Callable[[str], str | None]


class Cleaner:
    """Decides what of each text is written, under one recording's key.

    The rule, whichever library a span is of. What is named like contents (``dialects.toml``, ``[content]``) was left out
    before. Numbers and flags stay. Of texts:

    - an attribute of the semantic conventions that holds a label (a model, a route, a collection, a thread) stays with up
      to three words; a few, such as the user agent, stay as they are;
    - any other text stays where it reads like an identifier, a path, a version, a number, a time or another short word;
      several words, or one that is long, unless built as identifiers are, become their digest and number of characters;
    - so do strings inside lists, objects and JSON texts, the objects' keys too; under a key such as ``question`` each one;
    - URLs lose userinfo, fragment and the values of their query; parts of a path in which blanks are encoded;
    - statements lose literals, commands of key-value stores all but their key;
    - stack traces keep frames and the types thrown, without messages;
    - an error's message stays where it is one of those that drivers, pools and providers say (``[errors_told]``), which
      checks read; of others the digest stays;
    - names of spans and events stay with up to six words and no marks of a sentence.

    A text of one short word, or of two or three under a label's name, can't be told from a setting: it stays.
    Verdicts on texts are remembered, since spans say the same again and again; memory is bounded.
    """

    def __init__(self, digest: Callable[[str], str]) -> None:
        self._digest = digest
        rules: dict[Form, Rule] = {
            "unknown": self._unknown,
            "label": self._label,
            "verbatim": lambda text: text[:LONG_TEXT],
            "address": texts.address,
            "path": lambda text: texts.path(text[:LONG_TEXT]),
            "query": texts.query,
            "statement": self._statement,
            "stack": texts.stack_trace,
            "message": self._message,
            "text": lambda text: None,
            "secret": lambda text: "***",
        }
        self.verdicts = {form: _Verdicts(rule, self._told) for form, rule in rules.items()}
        self.names = _Verdicts(texts.name, self._told)

    def label(self, value: Any) -> Any:
        """Return a label of one of the recording's columns: a model, an error's type, a tool."""
        return self.structure(value, "label")

    def _told(self, text: str) -> str:
        """Return what stands in place of a text."""
        return f"digest {self._digest(text)}, {len(text)} characters"

    def _unknown(self, text: str) -> str | None:
        if texts.is_simple(text):
            return text
        is_json = text[:1] in ("{", "[")
        if len(text) > LONG_TEXT:
            return None if is_json else texts.stack_trace(text)
        if is_json:
            return self._json(text, "unknown")
        if not any(map(str.isspace, text)):
            return texts.token(text)
        if (found := texts.spaced(text)) is not None:
            return found
        found = texts.sql(text) if _is_certain_sql(text) else None
        return found if found is not None else texts.stack_trace(text) if "\n" in text else None

    def _label(self, text: str) -> str | None:
        return self._json(text, "label") if text[:1] in ("{", "[") else texts.label(text)

    def _statement(self, text: str) -> str | None:
        return self._json(text, "unknown") if text[:1] in ("{", "[") else texts.statement(text)

    def _message(self, text: str) -> str | None:
        found = texts.message(text)
        return found if found is not None else self._unknown(text)

    def _json(self, text: str, form: Form) -> str | None:
        parsed = as_json(text)
        if parsed is text:
            return texts.token(text) if text[-1] in "]}" and '"' not in text and " " not in text else None
        clean = self.structure(parsed, form)
        return text if clean == parsed else None if clean is None else orjson.dumps(clean).decode()

    def structure(self, value: Any, form: Form, depth: int = 0) -> Any:
        """Return a list or an object with each text in it treated alike; one that is too large or deep as a digest."""
        if isinstance(value, str):
            return self.verdicts[form][value]
        if not isinstance(value, (list, dict)):
            return value
        if depth > DEEPEST or (depth == 0 and form == "unknown" and len(str(value)) > LONG_TEXT):
            return self._told(str(value))
        if isinstance(value, list):
            return [self.structure(each, form, depth + 1) for each in value]
        return {
            self.verdicts["unknown"][str(key)]: self.structure(each, self._of_member(str(key), form), depth + 1)
            for key, each in value.items()
        }

    def _of_member(self, key: str, form: Form) -> Form:
        role = ROLES[key]
        if role.secret or role.content:
            return "secret" if role.secret else "text"
        return role.form if role.form in ("address", "query", "statement", "stack", "text") else "unknown"


class _Verdicts(dict[str, str]):
    """Text to what is written of it, found on first use."""

    def __init__(self, rule: Rule, told: Callable[[str], str]) -> None:
        super().__init__()
        self._rule, self._told = rule, told

    def __missing__(self, text: str) -> str:
        found = self._rule(text)
        clean = self._told(text) if found is None else scrub(found)
        if len(text) <= LONGEST_REMEMBERED:
            if len(self) >= REMEMBERED_TEXTS:
                self.clear()
            self[text] = clean
        return clean


def _is_certain_sql(text: str) -> bool:
    """Tell whether a text whose name says nothing is SQL: its words are in capitals, or in none, and it has its signs."""
    first = text.lstrip().partition(" ")[0]
    return first.isupper() or (first.islower() and any(sign in text for sign in "=<>*()%$?"))
