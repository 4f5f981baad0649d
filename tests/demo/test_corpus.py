from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_provider import RunningProvider

from perfnb.demo import corpus, questions


def test_the_corpus_is_the_standard_librarys_documentation() -> None:
    found = corpus.passages()
    assert len(found) > 500
    assert len({passage.title for passage in found}) > 300
    assert any(passage.title == "csv.DictReader.fieldnames" or passage.module == "csv" for passage in found)
    assert max(len(passage.body) for passage in found) <= corpus.PASSAGE_CHARACTERS


def test_documents_differ_in_size_and_none_is_over_the_limit() -> None:
    sizes: dict[str, int] = {}
    for passage in corpus.passages():
        sizes[passage.module] = sizes.get(passage.module, 0) + len(passage.body)
    assert max(sizes.values()) <= corpus.LONGEST_DOCUMENT
    assert sum(size > 20_000 for size in sizes.values()) >= 5
    assert sum(size < 4_000 for size in sizes.values()) >= 5


@given(st.text(alphabet=st.sampled_from("ab \n"), max_size=400), st.integers(5, 50))
def test_cutting_keeps_every_word_in_order(text: str, size: int) -> None:
    pieces = corpus.cut(text, size)
    assert "".join("".join(piece.split()) for piece in pieces) == "".join(text.split())
    assert all(0 < len(piece) <= size for piece in pieces)


def test_modules_a_python_lacks_are_left_out() -> None:
    assert corpus.of_modules(("no_such_module", "no.such.package")) == ()


def test_embeddings_come_in_the_order_of_the_texts(provider: RunningProvider) -> None:
    texts = [f"text number {number}" for number in range(150)]
    vectors = corpus.embed(texts, f"{provider.root}/v1")
    assert vectors[149] == corpus.embed(texts[149:], f"{provider.root}/v1")[0]
    assert len(vectors) == len(texts)


def test_questions_are_repeatable_and_distinct() -> None:
    first = questions.openings(3)
    asked = [next(first) for _ in range(200)]
    again = questions.openings(3)
    assert asked == [next(again) for _ in range(200)]
    assert len(set(asked)) > 190
    assert next(questions.openings(4)) != asked[0]


@pytest.mark.parametrize("messages", [0, 1, 60])
def test_past_conversations_take_turns(messages: int) -> None:
    said = questions.conversation(1, messages)
    assert [role for role, _ in said] == ["user", "assistant"] * (messages // 2) + ["user"] * (messages % 2)


def test_the_modules_asked_about_are_in_the_corpus() -> None:
    assert set(questions.MODULES) <= set(corpus.MODULES.split())
    assert Path(corpus.__file__).exists()
