import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.prompts.questions import LONGEST_QUESTION, MOST_QUESTIONS, announced

RULES = "Write in the style of an article."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Context: a\n\nQuestion: why?\n\n" + RULES, ("why?",)),
        ("### Query:\n\nwhy so slow\n" + RULES, ("why so slow",)),
        ("**User question:** why?\n", ("why?",)),
        ("The user's request: why?", ("why?",)),
        ("Q: one\nA: two\nQ: three", ("one", "three")),
        ("".join(f"Question: {i}\n" for i in range(9)), ("6", "7", "8")),
        ("Question:", ()),
        (RULES, ()),
        ("It is a question: of time", ()),  # not at the beginning of a line
        ("Human: " + "x" * 2000, ("x" * LONGEST_QUESTION,)),
    ],
)
def test_questions_that_are_announced(text: str, found: tuple[str, ...]) -> None:
    assert announced(text) == found


@given(st.text(alphabet="Qq: \n*#user", max_size=200))
def test_takes_any_text(text: str) -> None:
    found = announced(text)
    assert len(found) <= MOST_QUESTIONS
    assert all(each and each in text for each in found)
