import json

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
    "rules": "Documents:\n---\n" + "\n---\n".join(FACTS) + "\n---\n" + QUESTION,
    "equals signs": "Here are the retrieved passages:\n" + "\n=====\n".join(FACTS),
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
    found = passages(text)
    assert len(found) != 1 or "<doc" in text.lower()
    assert sum(map(len, found)) <= len(text)
