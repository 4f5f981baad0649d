"""Rewrites a statement into what sqlglot reads: one style of parameter, and distance operators it does not know.

sqlglot takes ``$1, $`` for the start of a dollar quote, ``?`` for the jsonb operator, and reads ``<=>`` and ``<#>`` as
other databases mean them. So values of every style become ``:p0``, ``:p1`` … and ``<=>`` becomes
``OPERATOR(pg.<=>)``, which it keeps as it is, at the precedence Postgres gives it.
"""

import re
from dataclasses import dataclass

DISTANCES = ("<->", "<=>", "<#>", "<+>", "<~>", "<%>")

_TOKEN = re.compile(
    r"""
      (?P<comment>   --[^\n]* | /\*(?:[^*]|\*(?!/))*\*/ )
    | (?P<string>    (?:[eE]'(?:[^'\\]|''|\\.)*' | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*'
                     | \$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$) )
    | (?P<quoted>    "(?:[^"]|"")*" )
    | (?P<named>     \boperator\s*\(\s*(?:"?\w+"?\s*\.\s*)?(?P<inside>[^\s\w()"']+)\s*\) )
    | (?P<distance>  <->(?!>) | <=> | <\#>(?!>) | <\+> | <~> | <%> )
    | (?P<parameter> \$\d+ | %\(\w+\)[sbt] | (?<!:):(?!:)(?<!\w:)[A-Za-z_]\w* )
    | (?P<percent>   %% | %[sbt]\b )
    | (?P<question>  \?\? | \?[|&]? )
    | (?P<word>      [^\W\d][\w$]* )
    | (?P<number>    (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)? )
    | (?P<space>     \s+ )
    | (?P<other>     . )
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)

# After these a question mark stands for a value; after any other word it is the jsonb operator.
_NO_OPERANDS = frozenset(
    {
        "all", "and", "any", "as", "between", "by", "case", "cast", "date", "distinct", "else", "except", "from",
        "having", "if", "ilike", "in", "intersect", "interval", "is", "like", "limit", "not", "offset", "on", "only",
        "or", "returning", "select", "set", "similar", "some", "then", "time", "timestamp", "timestamptz", "to",
        "union", "using", "values", "when", "where",
    }
)  # fmt: skip
_TYPED = re.compile(
    r"\b(?:interval|date|timestamptz|timestamp|time)(?:\s*\(\d+\))?(?:\s+with(?:out)?\s+time\s+zone)?\s+(?=:p\d+\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rewritten:
    """The text to read, and what each ``:pN`` in it stood for: ``values[N]``."""

    text: str
    values: tuple[str, ...]


def rewritten(sql: str) -> Rewritten:
    """Return ``sql`` with parameters and strings as ``:pN``, distance operators named, and comments gone.

    A string is kept nowhere: what it stood for is ``'?'``.
    """
    is_numbered = re.search(r"\$\d", sql) is not None
    values: list[str] = []
    pieces: list[str] = []
    follows_operand = False
    for match in _TOKEN.finditer(sql):
        piece, value = _piece(match, is_numbered, follows_operand)
        if value:
            piece = f":p{len(values)}"
            values.append(value)
        pieces.append(piece)
        if match.lastgroup != "comment" and not piece.isspace():
            follows_operand = bool(value) or _is_operand(match, piece)
    return Rewritten(_TYPED.sub("", "".join(pieces)).strip().rstrip(";").strip(), tuple(values))


def _piece(match: re.Match[str], is_numbered: bool, follows_operand: bool) -> tuple[str, str]:
    """Return what a token becomes, and what value it stands for if it stands for one."""
    text = match.group()
    match match.lastgroup:
        case "comment":
            return " ", ""
        case "string":
            return "", "'?'"
        case "named":
            inside = match["inside"]
            return (f" OPERATOR(pg.{inside}) " if inside in DISTANCES else f" {inside} "), ""
        case "distance":
            return f" OPERATOR(pg.{text}) ", ""
        case "parameter":
            return "", text
        case "percent" if text == "%%" or is_numbered:
            return text.replace("%%", "%"), ""
        case "percent":
            return "", text
        case "question" if text == "??":
            return "?", ""
        case "question" if not follows_operand:
            return "", "?"
    return text, ""


def _is_operand(match: re.Match[str], piece: str) -> bool:
    if match.lastgroup == "word":
        return piece.lower() not in _NO_OPERANDS
    return match.lastgroup in ("quoted", "number") or piece in (")", "]")
