import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.prompts.passages import passages

FACTS = [
    "A connection pool keeps a number of open connections and lends them to whoever needs one. " * 3,
    "The garbage collector frees what nothing refers to any more, in three generations of objects. " * 3,
    "An index is a sorted copy of some columns that lets the server find a row without reading all. " * 3,
]
QUESTION = "Question: how do I make it faster?"
SENTENCE = "The pool lends a connection to whoever asks for one and takes it back later. "


def lines_of(key: str) -> str:
    """Return the facts as JSON lines, as apps put chunks with their ids into a prompt."""
    return "\n".join(json.dumps({"reference_id": str(i), key: fact}) for i, fact in enumerate(FACTS))


ENTITIES = "\n".join(json.dumps({"entity": f"e{i}", "content": "a pool of connections " * 4}) for i in range(30))
RULE = "Answer only from what the context says, in the language of the question, and name what you used. " * 3
RULES = "\n".join(f"{i}. {RULE}" for i in range(1, 7))


def cut(characters: int, text: str = SENTENCE) -> str:
    """Return whole sentences of about so many characters."""
    return (text * max(1, round(characters / len(text)))).strip()


def page(paragraphs: int, seed: int) -> str:
    """Return a page of prose: its paragraphs are as unlike in length as written ones are."""
    drawn = random.Random(seed)
    return "\n\n".join(cut(round(400 * drawn.lognormvariate(0, 0.7))) for _ in range(paragraphs))


RAG_PROMPTS = {
    "bracket numbers": "Answer from these.\n\n" + "\n".join(f"[{i}] {fact}" for i, fact in enumerate(FACTS, 1)),
    "bracket numbers from zero": "\n\n".join(f"[{i}] {fact}" for i, fact in enumerate(FACTS)),
    "Document N:": "\n\n".join(f"Document {i}:\n{fact}" for i, fact in enumerate(FACTS, 1)) + "\n\n" + QUESTION,
    "headed": "\n".join(f"### Source #{i}\n{fact}\n" for i, fact in enumerate(FACTS, 1)),
    "ruled": "\n".join(f"--- Chunk {i} ---\n{fact}" for i, fact in enumerate(FACTS, 1)),
    "numbered list": "Context:\n" + "\n".join(f"{i}. {fact}" for i, fact in enumerate(FACTS, 1)) + "\n" + QUESTION,
    "tags": "".join(f'<document index="{i}">{fact}</document>\n' for i, fact in enumerate(FACTS)),
    "sources": "\n".join(f"Source: manual/{i}.html\n{fact}" for i, fact in enumerate(FACTS)),
    "blank lines": "Use the following pieces of context:\n\n" + "\n\n".join(FACTS) + "\n\n" + QUESTION,
    "blank lines, and a note": "Context:\n\n" + "\n\n".join(FACTS) + f"\n\nValid keys: a1, a2\n\n---\n\n{QUESTION}",
    "rules": "Documents:\n---\n" + "\n---\n".join(FACTS) + "\n---\n" + QUESTION,
    "equals signs": "Here are the retrieved passages:\n" + "\n=====\n".join(FACTS),
    "named rules": "".join(f"[{i}] {fact}\n" for i, fact in enumerate(FACTS, 1)) + f"---Task---\n{QUESTION}",
    "numbered list in brackets": "Retrieved documents:\n"
    + "\n".join(f"({i}) {fact}" for i, fact in enumerate(FACTS, 1)),
    "numbered list before a heading": "Sources:\n"
    + "\n".join(f"{i}) {fact}" for i, fact in enumerate(FACTS, 1))
    + f"\n### Hint\n{QUESTION}",
    "JSON lines in a fence": f"Answer.\n\nChunks:\n```json\n{lines_of('content')}\n```\n\n{QUESTION}",
    "JSON lines without one": f"Answer.\n\nChunks:\n{lines_of('text')}\n\n{QUESTION}",
    "JSON array in a fence": f"Answer.\n```\n{json.dumps([{'snippet': fact} for fact in FACTS], indent=1)}\n```\n{QUESTION}",
    "JSON array in a line": f"Context: {json.dumps([{'page_content': fact} for fact in FACTS])}\n{QUESTION}",
    "JSON after short entities": f"Entities:\n```json\n{ENTITIES}\n```\nChunks:\n```json\n{lines_of('content')}\n```\n",
    "JSON between brackets": f"{{context}}\n[see below]\n{lines_of('content')}\n\n[1] a.txt\n[2] b.txt",
    "JSON list": json.dumps([{"id": i, "text": fact} for i, fact in enumerate(FACTS)]),
    "JSON results": json.dumps({"query": "x", "results": [{"content": fact, "score": 0.5} for fact in FACTS]}),
}

ORDINARY_TEXTS = {
    "empty": "",
    "a question": "How do I open a file?",
    "instructions": "You are a helpful assistant.\n1. Be brief.\n2. Cite your sources.\n3. Never invent facts.\n" * 2,
    "an essay": "\n\n".join(FACTS),
    "an essay with rules": "\n---\n".join(FACTS),
    "citations": "See [1] Knuth 1974\n[2] Hoare 1961\n[3] Dijkstra 1968 and the text above, which refers to them.",
    "markdown": "# Rules\n\nAlways answer in English.\n\n## Style\n\nShort sentences.\n\n## Format\n\nA list." * 2,
    "code": "```python\ndef f(x):\n    return x\n\n\ndef g(x):\n    return f(x)\n```\n" * 4,
    "one tag": f"<context>{FACTS[0]}</context>",
    "sums": "In 2019 (1) we sold 5 and (2) we sold 6, which is more than in the year before by a good deal, they say.",
    "a JSON object": json.dumps(
        {"name": "Ann", "address": {"street": "Long Road 12", "town": "Bath"}, "text": "hello " * 20}
    ),
    "instructions of some length": f"You answer questions.\n\n{RULES}",
    "instructions under a heading": f"Use the documents.\n\n---Instructions---\n{RULES}",
    "instructions about sources": f"Rules for using the sources:\n{RULES}",
    "instructions announced": f"Read the context and do the following:\n{RULES}",
    "instructions after a context of one": f"Context:\n{FACTS[0]}\n\n## What to do\n{RULES}",
    "instructions about a context": f"1. Goal\n2. Use of the context:\n{RULES}",
    "instructions in brackets": "\n".join(f"({i}) {RULE}" for i in range(1, 5)),
    "a list whose last entry holds the rest": f"Context:\n1. {FACTS[0]}\n2. {FACTS[1]}\n3. {FACTS[2] * 20}",
    "entities as JSON lines": f"Knowledge graph data:\n```json\n{ENTITIES}\n```\n{QUESTION}",
    "a conversation as JSON": json.dumps([{"role": "user", "content": fact} for fact in FACTS]),
    "schemas as JSON": json.dumps([{"name": "f", "description": fact, "parameters": {}} for fact in FACTS]),
    "broken JSON": "[" * 5000 + '{"text": "' * 50,
    "code with brackets": "{\n    int x = 1;\n}\n[section]\nkey = value\n" * 60,
    "a table of contents": "Context:\n1. Pools\n2. Indexes\n3. Collectors\n" + "and more words " * 20,
}


@pytest.mark.parametrize("prompt", RAG_PROMPTS.values(), ids=RAG_PROMPTS)
def test_finds_each_passage(prompt: str) -> None:
    found = passages(prompt)
    assert len(found) == len(FACTS)
    for passage, fact in zip(found, FACTS, strict=True):
        assert fact.strip() in passage


@pytest.mark.parametrize("prompt", RAG_PROMPTS.values(), ids=RAG_PROMPTS)
def test_a_question_is_no_part_of_the_last_passage(prompt: str) -> None:
    assert QUESTION not in passages(prompt)[-1]


@pytest.mark.parametrize("text", ORDINARY_TEXTS.values(), ids=ORDINARY_TEXTS)
def test_stays_quiet_on_ordinary_text(text: str) -> None:
    assert passages(text) == []


def test_one_tagged_document_is_enough() -> None:
    assert passages(f"Read this: <document>{FACTS[0]}</document>") == [FACTS[0].strip()]


@given(st.text(alphabet='[1]2.\n -=<document>/Source: {}"ab', max_size=400))
def test_takes_any_text(text: str) -> None:
    for found in (passages(text), passages(text, is_from_tool=True)):
        assert len(found) != 1 or "<doc" in text.lower()
        assert sum(map(len, found)) <= len(text)


TOOL_ANSWERS = {
    "texts cut to one length": "\n\n".join(cut(size) for size in (900, 850, 950, 700, 400, 900)),
    "texts under a line that says so": "Found in the help centre:\n\n" + "\n\n".join(cut(800) for _ in range(3)),
    "texts between rules": "\n---\n".join(cut(size) for size in (300, 900, 500)),
    "titled": "\n\n".join(f"[How to store a tent ({i})] {cut(200 + 60 * i)}" for i in range(9)),
    "titled, of several paragraphs": "\n\n".join(f"[Manual, page {i}]\n{cut(200)}\n\n{cut(100)}" for i in range(3)),
    "with an example among them": "\n\n".join([*[cut(600)] * 6, "x = f(1, 2)[0] {a: 1} == 3\n" * 20]),
}

NO_PASSAGES = {
    "two paragraphs": "\n\n".join([cut(500)] * 2),
    "short lines": "\n\n".join(["Sent on Monday. It is here."] * 9),
    "a page": "# Pools\n\n"
    + "\n\n".join(cut(size) for size in (90, 700, 240, 400, 1300, 160))
    + "\n\n## Sizes\n\nMore.",
    "code": "\n\n".join(["def lend(self, x):\n    return self._pool[x].get(timeout=1)  # (a, b)\n" * 6] * 5),
    "a log": "\n\n".join(["2026-01-02 10:00:01,123 [INFO] worker-17: job 4711 done in 12.3 ms (id=0x7f3a)\n" * 5] * 5),
    "tables": "\n\n".join(["| 17 | tent | 129.00 | EUR | 2026-01-02 | sent |\n" * 6] * 5),
    "JSON": json.dumps({"id": 1, "items": [{"sku": "SKU-1", "price": 9.5}] * 40}, indent=2),
    "records": "\n\n".join([f"Name: {'Ann ' * 20}\nStatus: sent\nTotal: 129 EUR\nPlaced: 2026-01-02\n" * 2] * 6),
}


@pytest.mark.parametrize(
    ("text", "count"), list(zip(TOOL_ANSWERS.values(), (6, 3, 3, 9, 3, 7), strict=True)), ids=TOOL_ANSWERS
)
def test_what_a_retrieval_tool_answers_needs_no_introduction(text: str, count: int) -> None:
    assert len(passages(text, is_from_tool=True)) == count
    assert passages(text) == []


@pytest.mark.parametrize("text", NO_PASSAGES.values(), ids=NO_PASSAGES)
def test_other_answers_of_tools_hold_no_passages(text: str) -> None:
    assert passages(text, is_from_tool=True) == []


def test_pages_of_many_paragraphs_are_hardly_ever_taken_for_passages() -> None:
    taken = [seed for seed in range(100) if passages(page(20, seed), is_from_tool=True)]
    assert len(taken) <= 2


def test_rules_after_the_passages_are_no_part_of_the_last() -> None:
    text = "\n".join(f"[{i}] {fact}" for i, fact in enumerate(FACTS, 1)) + f"\n---Rules---\n{RULES}"
    assert passages(text)[-1] == f"[3] {FACTS[2]}".strip()


@given(
    st.lists(
        st.sampled_from(["[", "{", "}", "]", '{"text": "', '"}', "\n", ",", "```json\n", "```\n", SENTENCE]),
        max_size=60,
    )
)
def test_takes_any_broken_json(parts: list[str]) -> None:
    text = "".join(parts)
    for is_from_tool in (False, True):
        assert sum(map(len, passages(text, is_from_tool=is_from_tool))) <= len(text)
