"""Recognise retrieved passages in a prompt by its structure alone: numbered, tagged, labelled or separated blocks.

Nobody marks passages in a standard way, so this looks for the forms that RAG code uses and prefers to miss a passage
over calling an instruction one: every form needs at least two blocks of some length (a tagged one is enough), and the
forms that ordinary prose also has (blank lines, rules, numbered lists) need an introducing line or long blocks, of
like length.

What a tool answers needs no introduction: three or more blocks of prose are passages where none is much longer than the
rest, as texts cut to one length are, or where each begins with a title in brackets. Paragraphs of one page are of very
different length; data, code, logs and tables are no prose.

Source: the prompts of the seeds' RAG pipelines (A6, D13, E21); LangChain's and LlamaIndex's default joins ("\\n\\n")
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from statistics import median

from perfnb.prompts.prose import is_prose
from perfnb.prompts.search_results import held_in_json

SHORT_BLOCK = 60
"""Characters a labelled block has at least on average: a shorter list is a table of contents or of citations."""
LONG_BLOCK = 200
"""Characters a block has at least where its form is also that of ordinary prose."""
MOST_UNEVEN = 4
"""How many times the shortest block the longest one may be, where only separators tell; the middle one, where numbers do."""
CUT_TO_LENGTH = 1.5
"""How many times the middle block the longest one may be where blank lines alone tell blocks of a tool's answer apart."""
MOST_PROSE = 0.8
"""Part of a tool's blocks that are prose at least: passages of a manual hold an example here and there."""
INTRODUCTIONS = 3
"""Introducing lines that are followed up."""

_NAMES = "document|doc|passage|source|chunk|context|excerpt|snippet|search[ _-]?result|result"
_SURE_TAGS = "document|doc|passage|chunk|snippet|excerpt|search_result"
_TAG = re.compile(rf"<({_SURE_TAGS}|source|context|result|article|item)(?=[\s>])[^>]*>(.*?)</\1\s*>", re.S | re.I)
_MARKERS = (
    # "Document 3:", "### Source #2", "--- Chunk 4 ---", "[Document 1]"
    re.compile(rf"^[ \t#*\-=\[(<]*(?:{_NAMES})[ \t]*#?(\d+)\b[^\n]*", re.M | re.I),
    # "[1] text", "【1】"
    re.compile(r"^[ \t*]*[\[【](\d{1,3})[\]】][:.]?(?=\s)", re.M),
)
# "1. text", "2) text", "(3) text": most often instructions
_LISTED = re.compile(r"^[ \t]*\(?(\d{1,3})[.)](?=\s)", re.M)
_LABEL = re.compile(
    r"^[ \t*#\-]*(source|title|url|file|filename|page|path|doc_id|document id|id)\**:[ \t]*\S", re.M | re.I
)
_QUESTION = re.compile(
    r"^[ \t*#]*(?:(?:user|current|new|the|my|customer)[ \t]+)?"
    r"(?:question|query|user|human|answer|response|instructions?|task|history|conversation|request)\b[^\n:]{0,20}\**:",
    re.M | re.I,
)
_INTRODUCTION = re.compile(
    r"^(?![ \t]*(?:\d+[.)]|[-*][ \t]))[^\n]{0,200}\b(?:contexts?|documents?|passages?|sources?|excerpts?|snippets?|knowledge|retrieved|results|articles|"
    r"references)\b[^\n]{0,80}:[ \t*]*$",
    re.M | re.I,
)
_INSTRUCTING = re.compile(
    r"\b(?:instructions?|rules?|constraints?|steps?|guidelines?|goals?|formats?|formatting|requirements?|criteria|tasks?)\b"
    r"|\bfollow(?:s|ing)[ \t*]*:",
    re.I,
)
_RULE = re.compile(r"^[ \t]*(?:-{3,}|={3,}|\*{3,}|#{5,}|_{3,})[ \t]*$", re.M)
# "---Instructions---", "=== Question ==="
_NAMED_RULE = re.compile(r"^[ \t]*(-{3,}|={3,}|#{3,})[ \t]*[^\W\d][^\n]{0,60}?[ \t]*\1[ \t]*$", re.M)
_HEADING = re.compile(r"^#{1,6}[ \t]+\S", re.M)
_BLANK = re.compile(r"\n[ \t]*\n")
_TITLED = re.compile(r"\[[^\]\n]{2,120}\](?!\()")
_SEARCHED = 400_000


def passages(text: str, *, is_from_tool: bool = False) -> list[str]:
    """Return the retrieved passages that ``text`` holds, in order; none where nothing looks like one.

    ``is_from_tool`` says that a tool answered the text: nobody else's words stand in it.
    """
    if len(text) < 2 * SHORT_BLOCK:
        return []
    for form in (*_FORMS, *(_TOOL_FORMS if is_from_tool else ())):
        if found := form(text[:_SEARCHED]):
            return found
    return []


def _in_json(text: str) -> list[str]:
    """Return the texts of search results in JSON, as a retrieval tool answers or an app puts them into its prompt.

    Beside other text they must be long: lists of names, memories and examples are of short ones.
    """
    held = held_in_json(text)
    average = SHORT_BLOCK if held.is_all else LONG_BLOCK
    return [each for texts in held.lists if _are_passages(texts, average) for each in texts if each]


def _tagged(text: str) -> list[str]:
    found = [(match[1].lower(), match[2].strip()) for match in _TAG.finditer(text)]
    blocks = [block for _, block in found if block]
    is_sure = bool(found) and found[0][0] in _SURE_TAGS.split("|")
    return blocks if _are_passages(blocks, SHORT_BLOCK, fewest=1 if is_sure else 2) else []


def _numbered(text: str) -> list[str]:
    for marker in _MARKERS:
        blocks = _blocks(text, _counted(_at_lines(marker, text)))
        if _are_passages(blocks, SHORT_BLOCK):
            return blocks
    return []


def _listed(text: str) -> list[str]:
    """Return the entries of a plain numbered list that a line introduces as passages, all of about one length."""
    for rest in _introduced(text):
        markers = _counted(_at_lines(_LISTED, rest))
        if not markers or _HEADING.search(rest, 0, markers[0].start()):
            continue
        *blocks, last = _blocks(rest, markers) or [""]
        blocks.append(last[: _first(last, _RULE, _HEADING)].strip())
        if (
            _are_passages(blocks, LONG_BLOCK)
            and min(map(len, blocks)) >= SHORT_BLOCK
            and _are_even(blocks, MOST_UNEVEN)
        ):
            return blocks
    return []


def _labelled(text: str) -> list[str]:
    """Return blocks that each begin with the same label, such as ``Source: …``."""
    found = list(_at_lines(_LABEL, text))
    if len(found) < 2:
        return []
    first = found[0][1].lower()
    blocks = _blocks(text, [match for match in found if match[1].lower() == first])
    return blocks if _are_passages(blocks, 2 * SHORT_BLOCK) else []


def _separated(text: str) -> list[str]:
    """Return similar long blocks between rules or blank lines, after a line that introduces them."""
    for rest in _introduced(text):
        for separator in (_RULE, _BLANK):
            blocks = _without_notes(_split(separator, rest))
            if _are_passages(blocks, LONG_BLOCK) and max(map(len, blocks)) <= MOST_UNEVEN * min(map(len, blocks)):
                return blocks
    return []


def _titled(text: str) -> list[str]:
    """Return blocks of a tool's answer that each begin with a title in brackets."""
    blocks: list[str] = []
    for part in _split(_BLANK, text):
        if _TITLED.match(part):
            blocks.append(part)
        elif blocks:
            blocks[-1] += f"\n\n{part}"
    return blocks if _are_retrieved(blocks, SHORT_BLOCK, MOST_UNEVEN) else []


def _joined(text: str) -> list[str]:
    """Return blocks of a tool's answer between rules, or between blank lines where all seem cut to one length."""
    for separator, unevenness in ((_RULE, MOST_UNEVEN), (_BLANK, CUT_TO_LENGTH)):
        blocks = _split(separator, text)
        if blocks and len(blocks[0]) < LONG_BLOCK and blocks[0].endswith(":"):
            del blocks[0]
        if blocks and min(map(len, blocks)) >= SHORT_BLOCK and _are_retrieved(blocks, LONG_BLOCK, unevenness):
            return blocks
    return []


_FORMS: tuple[Callable[[str], list[str]], ...] = (_in_json, _tagged, _numbered, _listed, _labelled, _separated)
_TOOL_FORMS: tuple[Callable[[str], list[str]], ...] = (_titled, _joined)


def _introduced(text: str) -> Iterator[str]:
    """Yield what follows each of the first lines that introduce passages; instructions about passages are none."""
    lines = (line for line in _at_lines(_INTRODUCTION, text) if not _INSTRUCTING.search(line[0]))
    for introduction in islice(lines, INTRODUCTIONS):
        rest = text[introduction.end() :]
        yield rest[: _end_of_passages(rest)]


def _without_notes(blocks: list[str]) -> list[str]:
    """Return ``blocks`` without short ones at their end: a rule, a list of the keys to cite."""
    usual = median(map(len, blocks)) if blocks else 0.0
    end = max((number for number, block in enumerate(blocks, 1) if MOST_UNEVEN * len(block) >= usual), default=0)
    return blocks[:end]


def _split(separator: "re.Pattern[str]", text: str) -> list[str]:
    return [block.strip() for block in separator.split(text) if block.strip()]


def _at_lines(pattern: "re.Pattern[str]", text: str) -> Iterator["re.Match[str]"]:
    """Yield the matches of ``pattern`` at the starts of lines; a search would try it at every character."""
    start = 0
    while True:
        if match := pattern.match(text, start):
            yield match
        start = text.find("\n", start) + 1
        if not start:
            return


def _counted(markers: Iterable["re.Match[str]"]) -> list["re.Match[str]"]:
    """Return the longest run of ``markers`` that counts up by one, starting from 0 or 1."""
    runs: list[list[re.Match[str]]] = [[]]
    for marker in markers:
        number = int(marker[1])
        if runs[-1] and number == int(runs[-1][-1][1]) + 1:
            runs[-1].append(marker)
        elif number in (0, 1):
            runs.append([marker])
    return max(runs, key=len)


def _blocks(text: str, markers: list["re.Match[str]"]) -> list[str]:
    """Return the text from each marker to the next; the last ends where a question or instruction begins."""
    if len(markers) < 2:
        return []
    blocks = [text[a.start() : b.start()].strip() for a, b in pairwise(markers)]
    last = text[markers[-1].start() :]
    first_line = len(last.partition("\n")[0])
    return [*blocks, last[: first_line + _end_of_passages(last[first_line:])].strip()]


def _end_of_passages(text: str) -> int:
    return _first(text, _QUESTION, _NAMED_RULE)


def _first(text: str, *patterns: "re.Pattern[str]") -> int:
    """Return where the first line begins that one of ``patterns`` matches, else the length of ``text``."""
    found = [next(_at_lines(pattern, text), None) for pattern in patterns]
    return min((match.start() for match in found if match), default=len(text))


def _are_passages(blocks: Sequence[str], average: int, *, fewest: int = 2) -> bool:
    return len(blocks) >= fewest and sum(map(len, blocks)) >= average * len(blocks)


def _are_even(blocks: Sequence[str], unevenness: float) -> bool:
    """Tell whether no block is more than so many times as long as the middle one."""
    return max(map(len, blocks)) <= unevenness * median(map(len, blocks))


def _are_retrieved(blocks: Sequence[str], average: int, unevenness: float) -> bool:
    """Tell whether blocks of a tool's answer are passages: three or more, mostly prose, of like length."""
    return (
        _are_passages(blocks, average, fewest=3)
        and _are_even(blocks, unevenness)
        and sum(map(is_prose, blocks)) >= MOST_PROSE * len(blocks)
    )
