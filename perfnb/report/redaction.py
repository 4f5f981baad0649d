"""Take secrets and prompt texts out of whatever is written for others to read, and count what was taken.

In this order: texts of the conversation, exact values of variables whose names look secret, patterns (keys, tokens,
passwords in addresses, e-mails), home and working directories. Works on text; :meth:`Redactor.data` walks JSON.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, quote_plus, unquote, urlsplit

from perfnb.report.prompts import NO_PROMPTS, Prompts

SECRET_NAME = re.compile(
    r"pass(wd|word|phrase)?($|_)|secret|token|api_?key|access_?key|private|credential|(^|_)auth|(^|_)dsn($|_)"
    r"|database_url|conn(ection)?_?str|cookie|(^|_)key($|_)|(^|_)pwd($|_)",
    re.IGNORECASE,
)
SHORTEST_SECRET = 6
EVERYDAY = frozenset({"default", "disabled", "enabled", "localhost", "postgres", "password", "secret", "production"})

# What a name looks like in JSON, Python, a header, a query string or a connection string, up to the value
_QUOTE = r"(?:\\?[\"']|&quot;|&#39;|&#x27;|%22)?"
_NAMES = (
    r"(?:password|passwd|passphrase|pwd|secret|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key"
    r"|(?:access|auth|refresh|id|session|bearer)[_-]?token)"
)
_QUOTED = r"\\?\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|&quot;.*?&quot;"
_VALUE = rf"(?:{_QUOTED}|[^\s\"',;&<>(){{}}\[\]\\]+)"
_CUT = r"(?:\.\.\.|…)"  # where a display cut a long text

PATTERNS: Mapping[str, re.Pattern[str]] = {
    "private key": re.compile(
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:(?!-----END)[\s\S])*+(?:-----END (?:[A-Z]+ )*PRIVATE KEY-----)?"
    ),
    "token": re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?|\beyJ[\w-]{12,}" + _CUT),
    "password": re.compile(
        r"(?<=://)(?P<user>[^\s:/@?#\"'<>]*+:)(?P<secret>[^\s/?#\"'<>]+(?=@)|[^\s/?#@\"'<>.]*[^\s/?#@\"'<>.\d][^\s/?#@\"'<>.]*(?="
        + _CUT
        + r"))"
    ),
    "bearer token": re.compile(
        r"(?P<user>\b(?:bearer|basic)(?:\s|%20|\+)+)(?P<secret>(?=\S*\d|\S{20})[\w.~+/=-]{8,})", re.IGNORECASE
    ),
    "header": re.compile(
        rf"(?P<user>\b(?:proxy-)?(?:authorization|(?:set-)?cookie){_QUOTE}\s*[:=]\s*)(?!(?:bearer|basic)\W+\[)"
        rf"(?P<secret>{_QUOTED}|[^\s\"'<>{{}}\[\]\\][^\r\n\"'<>{{}}\[\]\\]*)",
        re.IGNORECASE,
    ),
    "key": re.compile(
        r"(?<![A-Za-z0-9])(?:"
        r"sk-[\w-]{12,}|sk-[\w-]{2,}(?=" + _CUT + r")|[rs]k_(?:live|test)_\w{8,}|(?:AKIA|ASIA)[0-9A-Z]{12,}"
        r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[abeoprs]-[\w-]{10,}|AIza[\w-]{30,}"
        r"|hf_[A-Za-z0-9]{16,}|gsk_[A-Za-z0-9]{16,}|pplx-[A-Za-z0-9]{16,}|r8_[A-Za-z0-9]{16,}|npm_[A-Za-z0-9]{30,}"
        r"|pypi-[\w-]{20,}|xai-[A-Za-z0-9]{16,}|pk-lf-[\w-]{12,}|lsv2_\w{16,}|dapi[0-9a-f]{32}|SG\.[\w-]{16,}\.[\w-]{16,}"
        r"|tvly-[\w-]{12,}|pcsk_\w{16,})"
    ),
    "secret": re.compile(
        rf"(?P<user>\b[\w-]*{_NAMES}{_QUOTE}\s*(?:[:=]|=>|%3[AD])\s*)(?P<secret>{_VALUE})", re.IGNORECASE
    ),
    "e-mail": re.compile(r"(?<![\w.+-])[\w.+-]++(?:@|%40)(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}"),
}
_HOMES = re.compile(r"(?<![\w.~/-])(?:file://)?/(?:home|Users)/[^/\s\"'<>:,;)]+")
_WORD = re.compile(r"[a-z-]+|[A-Z][a-z]*")  # a value like this stands in pages for other reasons
_ALREADY = re.compile(r"""^\\?["']?\[[a-z -]+\]""")

CONTENT_KEYS = frozenset({
    "text", "response_text", "content", "messages", "prompt", "completion", "gen_ai.prompt", "gen_ai.completion",
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result", "input.value", "output.value", "llm.input_messages", "llm.output_messages",
})  # fmt: skip
HIDDEN_CONTENT = "[prompt text]"


@dataclass
class Redactor:
    """Replaces what others must not read by its kind in brackets: ``[password]``.

    Attributes:
        values: Secrets known by value.
        prompts: Texts of the conversation.
        directories: Directories and what stands for each.
        counts: How often each kind was replaced so far.
    """

    values: tuple[str, ...] = ()
    prompts: Prompts = NO_PROMPTS
    directories: tuple[tuple[str, str], ...] = ()
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def here(
        cls,
        *,
        prompts: Prompts = NO_PROMPTS,
        secrets: Iterable[str] = (),
        environment: Mapping[str, str] = os.environ,
        home: Path | None = None,
        folder: Path | None = None,
    ) -> Self:
        """Return a redactor that knows this process's environment and directories, and ``secrets`` besides."""
        values = [*secret_values(environment), *secrets]
        known = sorted({form for value in values for form in _forms(value)}, key=lambda form: (-len(form), form))
        return cls(tuple(known), prompts, _directories(home or Path.home(), folder or Path.cwd()))

    def text(self, text: str) -> str:
        """Return ``text`` without secrets."""
        text = self._count_prompts(str(text))  # Markup, say, would escape what is put in
        for value in self.values:
            if value in text:
                self.counts["environment secret"] += text.count(value)
                text = text.replace(value, "[environment secret]")
        for kind, pattern in PATTERNS.items():
            text = pattern.sub(lambda match, kind=kind: self._replace(match, kind), text)  # type: ignore[misc]
        return self._paths(text)

    def data(self, value: Any, *, keys: bool = True) -> Any:
        """Return JSON-like ``value`` without secrets, names included.

        Values under the names that hold message contents go as a whole, unless ``keys`` is false or contents were
        asked for.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self._entry(str(name), part, keys) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(part, keys=keys) for part in value]
        return value

    def leaked(self, text: str) -> list[str]:
        """Return the kinds of secrets that ``text`` still holds; for a last look at a finished page."""
        kinds = [kind for kind in ("key", "token", "private key") if PATTERNS[kind].search(text)]
        telling = (value for value in self.values if not _WORD.fullmatch(value))
        return kinds + ["environment secret"] * any(value in text for value in telling)

    @property
    def hides_content(self) -> bool:
        """Tell whether message contents are taken out."""
        return self.prompts.hidden

    def _entry(self, name: str, value: Any, keys: bool) -> Any:
        if name == "bdata":  # numbers of a figure, encoded
            return value
        if keys and self.hides_content and is_content(name) and isinstance(value, str | list | dict) and value:
            self.counts["prompt text"] += 1
            return HIDDEN_CONTENT
        if isinstance(value, str) and _is_secret_name(name) and value:
            self.counts["secret"] += 1
            return "[secret]"
        return self.data(value, keys=keys)

    def _count_prompts(self, text: str) -> str:
        text, hidden = self.prompts.hide(text, HIDDEN_CONTENT)
        if hidden:
            self.counts["prompt text"] += hidden
        return text

    def _replace(self, match: re.Match[str], kind: str) -> str:
        parts = match.groupdict()
        secret = parts.get("secret") or match.group()
        if _ALREADY.match(secret):
            return match.group()
        self.counts[kind] += 1
        return f"{parts.get('user') or ''}[{kind}]"

    def _paths(self, text: str) -> str:
        for directory, stand_in in self.directories:
            text, found = re.subn(rf"(?<![\w.~/-])(?:file://)?{re.escape(directory)}(?![\w.-])", stand_in, text)
            self.counts["directory"] += found
        text, found = _HOMES.subn("~", text)
        self.counts["directory"] += found
        return text


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """Return the values of variables whose names look secret, and passwords in addresses of any variable."""
    values = []
    for name, value in environment.items():
        if SECRET_NAME.search(name) and not Path(value).exists():
            values.append(value)
        if password := _password_in(value):
            values.append(password)
    return [value for value in values if len(value) >= SHORTEST_SECRET and value.lower() not in EVERYDAY]


def is_content(name: str) -> bool:
    """Tell whether a column or attribute of this name holds what was said to or by a model."""
    name = name.lower()
    return name in CONTENT_KEYS or bool(re.fullmatch(r"(gen_ai|llm)\..*\.(content|text|arguments|messages)", name))


def _is_secret_name(name: str) -> bool:
    return bool(re.fullmatch(rf"[\w-]*{_NAMES}", name, re.IGNORECASE))


def _password_in(value: str) -> str | None:
    try:
        password = urlsplit(value).password if "://" in value else None
    except ValueError:
        return None
    return unquote(password) if password else None


def _forms(value: str) -> set[str]:
    """Return ``value`` as it may be spelled in addresses, HTML, JSON and Python source."""
    spelled = json.dumps(value)[1:-1]
    forms = {value, quote(value, safe=""), quote(value), quote_plus(value), escape(value), spelled, repr(value)[1:-1]}
    return {form for form in forms | {escape(spelled)} if len(form) >= SHORTEST_SECRET}


def _directories(home: Path, folder: Path) -> tuple[tuple[str, str], ...]:
    """Return directories to replace, longest first; the root of the file system is none."""
    named = {str(home): "~", str(home.resolve()): "~"}
    for path in (folder, folder.resolve()):
        named.setdefault(str(path), ".")
    return tuple(sorted(((path, mark) for path, mark in named.items() if path != "/"), key=lambda pair: -len(pair[0])))
