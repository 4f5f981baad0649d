"""Recipes on what goes into a prompt, and to which model."""

import json
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI
from recipe_book import Book
from watched_provider import WatchedProvider

PASSAGES = ["the first passage", "the second passage " * 50, "The  first PASSAGE", "the third passage"]


def test_context_budget_takes_each_passage_once_and_goes_on_after_one_too_long(
    book: Any, encoding: tiktoken.Encoding
) -> None:
    made = book.context_budget.context(PASSAGES, encoding, budget_tokens=60)
    assert made == "the first passage\n\nthe third passage"
    assert len(encoding.encode_ordinary(made)) <= 60


def test_context_budget_is_used_up_to_the_last_token(book: Any, encoding: tiktoken.Encoding) -> None:
    whole = "\n\n".join(PASSAGES[:2])
    enough = len(encoding.encode_ordinary(whole))
    fitted = book.context_budget.context
    assert fitted(PASSAGES[:2], encoding, budget_tokens=enough) == whole
    assert fitted(PASSAGES[:2], encoding, budget_tokens=enough - 1) == PASSAGES[0]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=60), max_size=8), st.integers(0, 120))
def test_context_budget_is_never_exceeded(passages: list[str], budget: int) -> None:
    recipe, tokens = Book().context_budget, tiktoken.Encoding(
        "bytes", pat_str=r"\w+|\W+", mergeable_ranks={bytes([n]): n for n in range(256)}, special_tokens={}
    )  # fmt: skip
    made = recipe.context(passages, tokens, budget_tokens=budget)
    assert len(tokens.encode_ordinary(made)) <= budget


def test_context_budget_is_what_the_provider_bills(
    book: Any, provider: WatchedProvider, encoding: tiktoken.Encoding
) -> None:
    passages = [f"passage {number} " + "about lists and tuples " * 20 for number in range(20)]

    async def ask(client: AsyncOpenAI, context: str) -> int:
        reply = await client.chat.completions.create(model="sim-small", messages=[{"role": "user", "content": context}])
        return reply.usage.prompt_tokens if reply.usage else 0

    fitted = book.context_budget.context(passages, encoding, budget_tokens=2000)
    assert provider.run(lambda client: ask(client, fitted)) < 2000
    assert provider.run(lambda client: ask(client, "\n\n".join(passages))) > 2000


def conversation(turns: int) -> list[dict[str, Any]]:
    """A long conversation; every turn calls a tool."""
    call = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Answer briefly."}]
    for number in range(turns):
        messages += [
            {"role": "user", "content": f"question {number}?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": f"result {number}"},
            {"role": "assistant", "content": f"answer {number}"},
        ]
    return messages


def test_history_budget_keeps_instructions_and_the_newest_turns_whole(book: Any, encoding: tiktoken.Encoding) -> None:
    messages = conversation(30)
    recipe = book.history_budget
    cut = recipe.newest(messages, encoding, budget_tokens=2000)
    assert cut[0] == messages[0]
    assert cut[1:] == messages[-len(cut) + 1 :]
    assert cut[1]["role"] == "user"
    assert sum(len(encoding.encode_ordinary(json.dumps(each))) for each in cut) <= 2000
    one_more = [messages[0], *messages[-len(cut) - 3 :]]
    assert recipe.tokens(one_more, encoding) > 2000


def test_history_budget_leaves_a_short_conversation_and_the_last_question_alone(
    book: Any, encoding: tiktoken.Encoding
) -> None:
    newest = book.history_budget.newest
    assert newest(conversation(3), encoding, budget_tokens=100_000) == conversation(3)
    assert newest(conversation(3), encoding, budget_tokens=1) == [conversation(3)[0], *conversation(3)[-4:]]
    assert newest([], encoding) == []


def test_history_budget_says_instructions_once_wherever_they_stand(book: Any, encoding: tiktoken.Encoding) -> None:
    late = [*conversation(1)[1:], {"role": "system", "content": "Answer briefly."}]
    cut = book.history_budget.newest(late, encoding, budget_tokens=10_000)
    assert [each["role"] for each in cut] == ["system", "user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("question", "tier"),
    [
        ("What time zone is used?", "simple"),
        ("List the csv dialects.", "simple"),
        ("Why?", "capable"),
        ("Compare lists and tuples.", "capable"),
        ("What is a list? And a tuple?", "capable"),
        ("Tell me " + "more and " * 20, "capable"),
    ],
)
def test_model_choice_by_question(book: Any, question: str, tier: str) -> None:
    assert book.model_choice.tier(question) == tier


def test_model_choice_sends_each_question_to_its_model(book: Any, provider: WatchedProvider) -> None:
    questions = ["What is a list?", "Why is it slow?", "Which module reads csv?"]
    models = {"simple": "sim-small", "capable": "sim-large"}
    recipe = book.model_choice

    async def use(client: AsyncOpenAI) -> None:
        for question in questions:
            assert await recipe.ask(client, models, question)

    provider.run(use)
    assert [visit.body["model"] for visit in provider.calls()] == ["sim-small", "sim-large", "sim-small"]
    assert recipe.split(questions) == {"simple": 2, "capable": 1}
