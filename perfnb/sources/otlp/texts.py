"""Texts of spans without what people wrote: addresses, statements, stack traces, names and error messages.

Pure functions, each of which gives ``None`` where nothing of a text can stay but its digest; :mod:`cleaner` decides
which of them an attribute gets, and tells the whole rule.
"""

import re
from functools import cache

from perfnb.sources.otlp.dialects import table
from perfnb.sources.postgres.literals import without_literals

HIDDEN = "…"
LONGEST_TOKEN = 64
LONGEST_IDENTIFIER = 300
LONGEST_TRACE = 100_000
LONGEST_NAME, MOST_WORDS_OF_A_NAME = 100, 6
MOST_WORDS_OF_A_LABEL = 3
LONGEST_MESSAGE, LONGEST_TOLD = 1_000, 300
"""Of an error, in characters: where texts are kept, and where only what is known to tell it is."""

_SIMPLE = re.compile(r"[\w.\-:/]{0,64}", re.ASCII)
_TOKEN = re.compile(r"[\w.\-:/\\@#$~*<>\[\](){}|=,;%&!^+]*", re.ASCII)
_IDENTIFIER = re.compile(r"[\w$<>]{0,64}(?:[.:/\\\-@#,|+][\w$<>]{0,64})*", re.ASCII)
_SPACED = re.compile(  # blanks that make no language: times, "a -> b", "GET /path"
    r"\d{4}-\d\d-\d\d \d\d:\d\d[\d:.,+\- Z]*|[\w.:]+(?: (?:->|=>|\||/) [\w.:]+)+|[A-Z]{3,7} /\S*", re.ASCII
)
_ENCODED_BLANK = re.compile(r"%20|(?<=[^\W\d])\+(?=\w)", re.IGNORECASE)
_PARAMETER = re.compile(r"[\w.$\-\[\]]{1,40}", re.ASCII)
_USERINFO = re.compile(r"(://)[^/?#]*@")
_SENTENCE = re.compile(r"[?!\n\"“”]|[^\W\d_], [^\W\d_]|\. \S|: \S+ \S+ \S")
_LANGUAGE = re.compile(r"(?<!\S)[^\W\d_]\S*(?:\s+[^\W\d_]\S*){3}")


def is_simple(text: str) -> bool:
    """Tell at once whether ``text`` is what most are: a short word, number, id or path."""
    return _SIMPLE.fullmatch(text) is not None


def token(text: str) -> str | None:
    """Return a text without blanks that is an identifier, a path, an address, a number or the like."""
    if is_simple(text):
        return text
    if "?" in text or "://" in text:
        return address(text)
    if "&" in text and "=" in text:
        return query(text)
    if _ENCODED_BLANK.search(text):
        return None
    if len(text) <= LONGEST_TOKEN:
        return text if _TOKEN.fullmatch(text) else None
    return text if len(text) <= LONGEST_IDENTIFIER and _IDENTIFIER.fullmatch(text) else None


def address(text: str) -> str | None:
    """Return a URL, or the part of it from the path on, without userinfo, fragment and the values of its query."""
    if is_simple(text):
        return text
    if any(letter.isspace() for letter in text.partition("?")[0]) or len(text) > 8 * LONGEST_IDENTIFIER:
        return None
    before, mark, asked = _USERINFO.sub(r"\1", text).partition("#")[0].partition("?")
    if not before and not asked:
        return None
    return path(before) + (mark + query(asked) if mark else "")


def query(text: str) -> str:
    """Return the parameters' names of a query string, their values hidden."""
    names = (part.partition("=") for part in text.lstrip("?").split("&"))
    return "&".join(
        f"{name}={HIDDEN}" if sign and _PARAMETER.fullmatch(name) else HIDDEN for name, sign, _ in names
    ) if text else ""  # fmt: skip


def path(text: str) -> str:
    """Return a path, or an address without its query, whose parts that hold text are hidden."""
    if text.isascii() and not _ENCODED_BLANK.search(text) and " " not in text and len(text) <= LONGEST_IDENTIFIER:
        return text
    return "/".join(part if _is_plain(part) else HIDDEN for part in text.split("/"))


def _is_plain(part: str) -> bool:
    return bool(part.isascii() and len(part) <= LONGEST_TOKEN and _TOKEN.fullmatch(part)) and not _ENCODED_BLANK.search(
        part
    )


def spaced(text: str) -> str | None:
    """Return a text with blanks that is no language: a point in time, an arrow between names, a method and its path."""
    if len(text) > LONGEST_IDENTIFIER or not _SPACED.fullmatch(text):
        return None
    method, blank, rest = text.partition(" /")
    return f"{method} {address('/' + rest)}" if blank and method.isalpha() else text


def label(text: str) -> str | None:
    """Return what a label may say: at most three words."""
    if is_simple(text):
        return text
    if len(text) > LONGEST_IDENTIFIER or len(text.split()) > MOST_WORDS_OF_A_LABEL or _ENCODED_BLANK.search(text):
        return None
    if not any(letter.isspace() for letter in text) and ("?" in text or "://" in text):
        return address(text)
    return text if text.isascii() or len(text) <= 24 else None


_LEADING = re.compile(r"(?:\s+|/\*.*?\*/|--[^\n]*\n|\()*", re.DOTALL)
_SQL = re.compile(
    r"""
      select\b(?=.*\bfrom\b) | with\s+(?:recursive\s+)?\S+\s*(?:\([^)]*\)\s*)?as\s+(?:not\s+)?(?:materialized\s*)?\(
    | insert\s+(?:or\s+\w+\s+)?into\b | replace\s+into\b | delete\s+from\b | merge\s+into\b
    | update\s+(?:only\s+)?[\w."`\[\]]+\s+(?:(?:as\s+)?\w+\s+)?set\s | values\s*\(
    | (?:call|exec|execute)\s+[\w."]+\s*\( | copy\s+[\w."]+\s*(?:\([^)]*\)\s*)?(?:from|to)\s+(?:stdin|stdout|program|\') | copy\s*\(
    | (?:create|alter|drop|truncate|lock)\s+(?:(?:or|replace|unique|temp|temporary|unlogged|materialized|virtual)\s+)*
      (?:table|index|view|schema|extension|function|type|sequence|database|role|user|trigger)\s+
      (?!(?:a|an|the|my|me|of|for|with|at|on|in|is)\b)
    | set\s+(?:local\s+|session\s+)?[\w.]+\s*=
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_SHORT_SQL = re.compile(
    r"(?:begin|commit|rollback|start|savepoint|release|end|discard|set|show|vacuum|analyze|listen|notify|fetch|reset|pragma)\b",
    re.IGNORECASE,
)
_EXPLAIN = re.compile(r"explain\s+(?:analyze\s+|verbose\s+|\([^)]*\)\s*)*", re.IGNORECASE)
_SELECT = re.compile(r"select\b", re.IGNORECASE)
_SIGN = re.compile(r"[(*=%$<>]")
_COMMAND = re.compile(r"[A-Z][A-Z_.]+ (?=[^\s(\[{])")
_QUOTED = re.compile(r"\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z)")
_QUOTED_IN_LANGUAGE = re.compile(r"(?<!\w)([\"'])(?:(?!\1).|(?<=\w)\1(?=\w))*(?:\1|\Z)")


def sql(text: str) -> str | None:
    """Return a statement of SQL without literals; None for anything else."""
    at = _end(_LEADING, text, 0)
    at = _end(_EXPLAIN, text, at)
    is_short = _SHORT_SQL.match(text, at) and len(text.split()) <= MOST_WORDS_OF_A_LABEL
    is_value = _SELECT.match(text, at) and (_SIGN.search(text, at) or not _LANGUAGE.search(text))
    return without_literals(text) if is_short or is_value or _SQL.match(text, at) else None


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return where what ``pattern`` finds at ``at`` ends."""
    found = pattern.match(text, at)
    return found.end() if found else at


def statement(text: str) -> str | None:
    """Return what a statement does, without the values in it: SQL, a command of a key-value store, a filter."""
    if (found := sql(text)) is not None:
        return found
    text = _QUOTED.sub("?", text)
    if command := _COMMAND.match(text):
        words = text.split()
        return f"{' '.join(words[:2])} {HIDDEN}" if len(words) > 2 else token_of_command(command[0], words[1])
    return None if _LANGUAGE.search(text) or not text.isascii() else text


def token_of_command(command: str, key: str) -> str:
    """Return a command with its key, which is hidden where it holds text."""
    return f"{command}{token(key) or HIDDEN}"


_OF_PYTHON = re.compile(r'\s*File "[^"\n]{1,300}", line \d+(?:, in [\w.<>]{1,200})?')
_OF_OTHERS = re.compile(
    r"\s*(?:\d+: )?at (?:async |new )?[\w.$<>\[\]/`+#-]+ ?\((?:[\w.$/\\:<>@+-]*:\d+(?::\d+)?|Native Method|Unknown Source)\)"
    r"|\s*at \S+:\d+:\d+|\s*at [\w.`<>+]+(?=\()|\s*\S+\.(?:go|rb|rs|php|ex|cs):\d+(?=\D|\Z)"
)
_THROWN = re.compile(
    r"(?:[\s|+-]*)(?:Caused by: )?((?:[A-Za-z_$][\w$]*\.)*[A-Z][\w$]*"
    r"(?:Error|Exception|Timeout|Warning|Interrupt|Exit|Limit|Group|Refused|Closed|Found|Cancelled)\w*)(?=:|\Z|\s*$|\()"
)
_BETWEEN = (
    "Traceback (most recent call last):", "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)  # fmt: skip


def stack_trace(text: str) -> str | None:
    """Return the frames of a stack trace and the types thrown, without messages; None where it has no frame.

    Of Python's also the line of code that runs in a frame.
    """
    kept: list[str] = []
    frames = 0
    is_code = False
    for line in (line[:500] for line in text[:LONGEST_TRACE].splitlines()):
        if is_code and line.startswith("    ") and not _OF_PYTHON.match(line):
            kept.append(line)
            is_code = False
        elif frame := (_OF_PYTHON.match(line) or _OF_OTHERS.match(line)):
            kept.append(frame[0])
            is_code = frame.re is _OF_PYTHON
            frames += 1
        else:
            is_code = False
            kept += [line] if line.strip() in _BETWEEN else [thrown[1]] if (thrown := _THROWN.match(line)) else []
    return "\n".join(kept) if frames else None


def name(text: str) -> str:
    """Return a span's name: as it is, or what stands before the text in it.

    A name of up to six words and a hundred characters stays, one that has the marks of a sentence does not.
    """
    method, _, target = text.rpartition(" ")
    if (
        (("?" in target and ("/" in target or "=" in target)) or "://" in target)
        and len(method) < LONGEST_TOKEN
        and method.count(" ") < 2
    ):
        return f"{method} {address(target) or HIDDEN}".strip()[:LONGEST_NAME]
    if (statement := sql(text)) is not None:
        return statement[:LONGEST_NAME]
    if len(text) <= LONGEST_NAME and len(text.split()) <= MOST_WORDS_OF_A_NAME and not _is_sentence(text):
        return text
    head = re.split(r"[:({\[\"'“=?]| - ", text, maxsplit=1)[0].strip()
    is_cut = len(head) < len(text.strip()) and len(head) <= LONGEST_TOKEN and len(head.split()) <= MOST_WORDS_OF_A_LABEL
    return f"{head} {HIDDEN}" if head and is_cut and not text[len(head) :].startswith("?") else f"(text) {HIDDEN}"


def _is_sentence(text: str) -> bool:
    return (bool(_SENTENCE.search(text)) and " " in text.strip()) or (not text.isascii() and len(text) > 24)


@cache
def _known_errors() -> re.Pattern[str]:
    return re.compile("|".join(table()["errors_told"]["patterns"]), re.IGNORECASE)


def message(text: str) -> str | None:
    """Return an error's message where it is one of those that drivers, pools and providers say, on the line that says it.

    Quoted texts of several words are hidden, but the one that says it: they may be what was asked or stored.
    """
    found = _known_errors().search(text[: 2 * LONGEST_MESSAGE])
    if found is None:
        return None
    line = text[text.rfind("\n", 0, found.start()) + 1 :].partition("\n")[0]
    line = _STATEMENT_OF_ERROR.split(line, maxsplit=1)[0]
    return _QUOTED_IN_LANGUAGE.sub(_unless_known, line)[:LONGEST_TOLD]


_STATEMENT_OF_ERROR = re.compile(r"\[(?:SQL|parameters|cached since)")


def _unless_known(quoted: "re.Match[str]") -> str:
    said = quoted[0]
    is_told = len(said.split()) <= MOST_WORDS_OF_A_LABEL or _known_errors().search(said)
    return said if is_told else f"{said[0]}{HIDDEN}{said[0]}"
