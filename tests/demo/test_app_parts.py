"""The app's parts that need no server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from perfnb.demo.app.answering import SECTIONS, Desk, Prepared, fitted, shared_words, standalone
from perfnb.demo.app.cache import SIZE, TTL_S, Answer, AnswerCache, EmbeddingCache, key_of
from perfnb.demo.app.handbook import handbook
from perfnb.demo.app.measurements import RECENT, Measurements
from perfnb.demo.app.processing import Vocabulary, load_vocabulary, normalised, spelled_pairwise
from perfnb.demo.app.settings import PRESETS, Settings, changed
from perfnb.demo.app.store import Passage
from perfnb.demo.app.toolbox import COMPANY_TOOLS
from perfnb.prompts.sketch import Sketcher


def passage(body: str, title: str = "csv.reader") -> Passage:
    return Passage(1, "csv", title, body)


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"max_turn_history": 5}, "history_messages", 5),
        ({"timeout_s": 5}, "timeout_s", 5),
        ({"enable_caching": False}, "enable_caching", False),
        ({"context": "document"}, "context", "document"),
    ],
)
def test_settings_change_by_their_names_and_the_usual_other_ones(
    changes: dict[str, Any], name: str, value: object
) -> None:
    assert getattr(changed(Settings(), changes), name) == value


@pytest.mark.parametrize(
    "changes",
    [{"no_such": 1}, {"top_k": "many"}, {"top_k": True}, {"context": "everything"}, {"timeout_s": True}, {"stream": 1}],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        changed(Settings(), changes)


def test_settings_come_from_the_environment() -> None:
    assert Settings.read({"DESK_SETTINGS": '{"top_k": 2}'}).top_k == 2
    assert Settings.read({}) == Settings()


def test_presets_are_settings_and_balanced_is_the_default() -> None:
    assert set(PRESETS) == {"fast", "balanced", "quality"}
    assert changed(Settings(), PRESETS["balanced"]) == Settings()
    assert len({changed(Settings(), preset) for preset in PRESETS.values()}) == 3


def test_the_cache_keeps_answers_for_ten_minutes() -> None:
    now = 0.0
    measurements = Measurements()
    cache = AnswerCache(measurements, clock=lambda: now)
    cache.put("key", Answer("yes", ()))
    now = TTL_S
    assert cache.get("key") == Answer("yes", ())
    now = TTL_S + 1
    assert cache.get("key") is None
    text = measurements.as_prometheus().decode()
    assert "cache_hits_total 1.0" in text
    assert "cache_misses_total 1.0" in text


def test_the_cache_forgets_the_oldest() -> None:
    cache = AnswerCache(Measurements())
    for number in range(SIZE + 1):
        cache.put(str(number), Answer("", ()))
    assert cache.get("0") is None
    assert cache.get("1") is not None


def test_a_key_depends_on_everything_and_not_on_order() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})


def test_embeddings_are_kept_by_model_and_text() -> None:
    cache = EmbeddingCache()
    cache.put("one", "text", [1.0])
    assert (cache.get("one", "text"), cache.get("other", "text"), cache.get("one", "Text")) == ([1.0], None, None)


def test_the_company_has_many_tools_and_none_twice() -> None:
    names = [each["function"]["name"] for each in COMPANY_TOOLS]
    assert len(set(names)) == len(names) == 40


def test_the_handbook_is_as_long_as_asked_and_says_nothing_twice() -> None:
    assert len(handbook(6000)) == pytest.approx(6000, abs=100)
    assert Sketcher(b"key").sketch_and_repeats(handbook(14_000))[1] < 0.02


def test_timings_are_bounded_and_can_be_reset() -> None:
    measurements = Measurements()
    for _ in range(RECENT + 5):
        with measurements.time("llm_calls", "chat"):
            pass
    found = measurements.as_dict()["llm_calls"]
    assert (found["count"], len(found["recent_operations"])) == (RECENT + 5, RECENT)
    assert found["min_time_ms"] <= found["avg_time_ms"] <= found["max_time_ms"] <= found["total_time_ms"]
    measurements.reset()
    assert measurements.as_dict()["llm_calls"]["count"] == 0


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("And what does it return?", "How do I read csv files? And what does it return?"),
        ("What does json.loads do with numbers?", "What does json.loads do with numbers?"),
    ],
)
def test_short_questions_go_on_from_the_one_before(question: str, expected: str) -> None:
    history = [{"role": "user", "content": "How do I read csv files?"}, {"role": "assistant", "content": "So."}]
    assert standalone(question, history) == expected
    assert standalone(question, []) == question


def test_passages_that_share_words_with_the_question_rank_higher() -> None:
    asked = "Which dialect does the reader take?"
    assert shared_words(asked, passage("the dialect")) > shared_words(asked, passage("a heap", "heapq"))


@pytest.mark.parametrize(("budget", "kept"), [(0, 3), (1, 1), (20, 2), (30, 3)])
def test_passages_are_fitted_into_the_budget(budget: int, kept: int) -> None:
    assert len(fitted([passage("x" * 40)] * 3, budget)) == kept


@pytest.mark.parametrize("normalise", ["plain", "pairwise"])
def test_questions_are_cleaned(normalise: Any) -> None:
    vocabulary = load_vocabulary(0)
    cleaned = asyncio.run(normalised("  What is \n an  exception? ", vocabulary, Settings(normalise=normalise)))
    assert cleaned.startswith("What is an exception")


def test_misspelt_words_are_mended() -> None:
    assert spelled_pairwise("an implementatoin", ["implementation"]) == "an implementation"


def test_the_vocabulary_is_loaded_once() -> None:
    async def both() -> list[list[str]]:
        vocabulary = Vocabulary()
        await vocabulary.words(quickly=True)
        return await asyncio.gather(vocabulary.words(), vocabulary.words())

    one, other = asyncio.run(both())
    assert one is other
    assert len(one) > 100


class MeetingModels:
    """Models that answer a call only once so many are under way."""

    def __init__(self, together: int) -> None:
        self._all_here = asyncio.Barrier(together)

    async def speak(self, messages: Sequence[dict[str, Any]]) -> AsyncIterator[str]:
        await asyncio.wait_for(self._all_here.wait(), 10)
        yield messages[-1]["content"].split(".")[0]


def test_sections_at_once_are_asked_together_and_told_in_order() -> None:
    async def answered() -> str:
        settings = changed(Settings(), {"plan": "sections at once"})
        desk: Any = Desk(settings, None, MeetingModels(len(SECTIONS)), None, None)  # type: ignore[arg-type]
        return "".join([piece async for piece in desk.generate(Prepared("why?", ({"role": "user"},), ()))])

    said = asyncio.run(answered()).split("\n\n")
    assert said == [*(section.rstrip(".") for section in SECTIONS), ""]
