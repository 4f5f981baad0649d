import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.demo.provider import answers, vectors

PASSAGES = (
    "Answer from the passages below. Use about 20 words.\n\n"
    "[1] csv.reader\nThe csv reader returns rows of the file as lists of strings, one for each line it reads. "
    "It takes a dialect and formatting parameters as keyword arguments.\n\n"
    "[2] heapq.merge\nMerges several sorted inputs into one sorted output and returns an iterator over the values. "
    "It is handy for log files with timestamps, and it never reads all of the data into memory at one time. " * 2
)
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}
    for name, properties in [
        ("search_docs", {"query": {"type": "string"}}),
        ("recent", {"limit": {"type": "integer"}}),
        ("read", {"document_id": {"type": "integer"}}),
    ]
]


def ask(text: str, system: str = PASSAGES) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("question", "expected"),
    [("How does the csv reader return rows?", "csv reader returns rows"), ("merge sorted inputs", "Merges several")],
)
def test_an_answer_starts_with_the_sentence_that_fits_best(question: str, expected: str) -> None:
    assert expected in answers.answer(ask(question), rng=random.Random(1))[:80]


@pytest.mark.parametrize(("words", "low", "high"), [(20, 20, 36), (50, 55, 90), (220, 250, 380)])
def test_an_answer_is_as_long_as_it_was_asked_to_be(words: int, low: int, high: int) -> None:
    said = answers.answer(ask("merge", PASSAGES.replace("20 words", f"{words} words")), rng=random.Random(1))
    assert low <= len(answers.pieces(said)) <= high


@pytest.mark.parametrize(
    ("prompt", "starts"),
    [
        ("Passage: rows of csv files\n\nIs it relevant? Answer yes or no.\n\nQuestion: csv rows?", "Yes"),
        ("Passage: heaps\n\nIs it relevant? Answer yes or no.\n\nQuestion: csv rows?", "No"),
        ("Rewrite the question.\n\nQuestion: csv rows?", "csv rows"),
    ],
)
def test_instructions_are_followed(prompt: str, starts: str) -> None:
    assert answers.answer([{"role": "user", "content": prompt}], rng=random.Random(1)).startswith(starts)


def test_tools_are_called_in_rounds_and_then_it_answers() -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "How do I merge sorted files?"}]
    first = answers.tool_calls(messages, TOOLS)
    assert [call["name"] for call in first] == ["search_docs", "recent"]
    assert json.loads(first[0]["arguments"]) == {"query": "merge sorted files"}
    messages += [
        {"role": "assistant", "tool_calls": [{"id": str(at), "function": call} for at, call in enumerate(first)]},
        {"role": "tool", "content": json.dumps([{"id": 12}, {"id": 40}, {"id": 41}])},
    ]
    second = answers.tool_calls(messages, TOOLS)
    assert [(call["name"], call["arguments"]) for call in second] == [
        ("read", '{"document_id": 12}'),
        ("read", '{"document_id": 40}'),
    ]
    messages.append({"role": "assistant", "tool_calls": [{"id": "9", "function": call} for call in second]})
    assert answers.tool_calls(messages, TOOLS) == []


@given(st.text(max_size=200).map(str.strip))
def test_pieces_are_the_whole_text(text: str) -> None:
    assert "".join(answers.pieces(text)) == text


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("merge sorted files", "heapq merges several sorted files", "send an e-mail with attachments"),
        ("csv.DictReader fieldnames", "the csv reader takes fieldnames", "start a thread and join it"),
    ],
)
def test_texts_that_share_words_are_nearer(text: str, near: str, far: str) -> None:
    vector = vectors.embedding(text)
    assert cosine(vector, vectors.embedding(near)) > cosine(vector, vectors.embedding(far)) + 0.1


@given(st.text(max_size=300), st.sampled_from([64, 256, 1536]))
def test_vectors_have_length_one(text: str, dimensions: int) -> None:
    vector = vectors.embedding(text, dimensions)
    assert len(vector) == dimensions
    assert cosine(vector, vector) == pytest.approx(1)
    assert vectors.embedding(text, dimensions) == vector
