"""Recognise retrieved passages in a prompt by its structure alone: numbered, tagged, labelled or separated blocks.

Nobody marks passages in a standard way, so this looks for the forms that RAG code uses and prefers to miss a passage
over calling an instruction one: every form needs at least two blocks of some length (a tagged one is enough), and the
forms that ordinary prose also has (blank lines, rules, numbered lists) need an introducing line or long blocks.

Source: the prompts of the seeds' RAG pipelines (A6, D13, E21); LangChain's and LlamaIndex's default joins ("\\n\\n")
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

SHORT_BLOCK = 60
"""Characters a labelled block has at least on average: a shorter list is a table of contents or of citations."""
LONG_BLOCK = 200
"""Characters a block has at least where its form is also that of ordinary prose."""
MOST_UNEVEN = 4
"""How many times the shortest block the longest one may be, where only separators tell."""

_NAMES = "document|doc|passage|source|chunk|context|excerpt|snippet|search[ _-]?result|result"
_SURE_TAGS = "document|doc|passage|chunk|snippet|excerpt|search_result"
_TAG = re.compile(rf"<({_SURE_TAGS}|source|context|result|article|item)(?=[\s>])[^>]*>(.*?)</\1\s*>", re.S | re.I)
_MARKERS = (
    # "Document 3:", "### Source #2", "--- Chunk 4 ---", "[Document 1]"
    re.compile(rf"^[ \t#*\-=\[(<]*(?:{_NAMES})[ \t]*#?(\d+)\b[^\n]*", re.M | re.I),
    # "[1] text", "【1】", "(1) text"
    re.compile(r"^[ \t*]*[\[【(](\d{1,3})[\]】)][:.]?(?=\s)", re.M),
)
_LISTED = re.compile(r"^[ \t]*(\d{1,3})[.)](?=\s)", re.M)
_LABEL = re.compile(
    r"^[ \t*#\-]*(source|title|url|file|filename|page|path|doc_id|document id|id)\**:[ \t]*\S", re.M | re.I
)
_QUESTION = re.compile(
    r"^[ \t*#]*(?:(?:user|current|new|the|my|customer)[ \t]+)?"
    r"(?:question|query|user|human|answer|response|instructions?|task|history|conversation|request)\b[^\n:]{0,20}\**:",
    re.M | re.I,
)
_INTRODUCTION = re.compile(
    r"^[^\n]{0,200}\b(?:contexts?|documents?|passages?|sources?|excerpts?|snippets?|knowledge|retrieved|results|articles|"
    r"references)\b[^\n]{0,80}:[ \t*]*$",
    re.M | re.I,
)
_RULE = re.compile(r"^[ \t]*(?:-{3,}|={3,}|\*{3,}|#{5,}|_{3,})[ \t]*$", re.M)
_BLANK = re.compile(r"\n[ \t]*\n")
_TEXT_KEYS = ("text", "content", "page_content", "passage", "chunk", "snippet", "body", "document")
_SEARCHED = 400_000


def passages(text: str) -> list[str]:
    """Return the retrieved passages that ``text`` holds, in order; none where nothing looks like one."""
    if len(text) < 2 * SHORT_BLOCK:
        return []
    for form in _FORMS:
        if found := form(text[:_SEARCHED]):
            return found
    return []


def _listed_in_json(text: str) -> list[str]:
    """Return the texts of a JSON list of search results, as a retrieval tool answers."""
    if text.lstrip()[:1] not in ("[", "{"):
        return []
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        return []
    lists = [held, *held.values()] if isinstance(held, dict) else [held]
    for entries in lists:
        texts = [_text_of(entry) for entry in entries] if isinstance(entries, list) else []
        if _are_passages(texts, SHORT_BLOCK):
            return texts
    return []


def _text_of(entry: object) -> str:
    if isinstance(entry, dict):
        return next((entry[key] for key in _TEXT_KEYS if isinstance(entry.get(key), str)), "")
    return ""


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
    blocks = _blocks(text, _counted(_at_lines(_LISTED, text)))
    return blocks if _are_passages(blocks, LONG_BLOCK) and min(map(len, blocks)) >= SHORT_BLOCK else []


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
    introduction = next(_at_lines(_INTRODUCTION, text), None)
    if introduction is None:
        return []
    rest = text[introduction.end() :]
    rest = rest[: _end_of_passages(rest)]
    for separator in (_RULE, _BLANK):
        blocks = [block.strip() for block in separator.split(rest) if block.strip()]
        if _are_passages(blocks, LONG_BLOCK) and max(map(len, blocks)) <= MOST_UNEVEN * min(map(len, blocks)):
            return blocks
    return []


_FORMS: tuple[Callable[[str], list[str]], ...] = (_listed_in_json, _tagged, _numbered, _labelled, _separated)


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
    return [*blocks, last[: _end_of_passages(last)].strip()]


def _end_of_passages(text: str) -> int:
    question = next(_at_lines(_QUESTION, text), None)
    return question.start() if question else len(text)


def _are_passages(blocks: list[str], average: int, *, fewest: int = 2) -> bool:
    return len(blocks) >= fewest and sum(map(len, blocks)) >= average * len(blocks)
