from pathlib import Path

import pytest
from builders import embedding, request
from traffic_rows import answer, bounds, effect, message, priced

from perfnb.errors import NotMeasured
from perfnb.estimates import predict


def test_exact_cache_by_hand(tmp_path: Path) -> None:
    """Prompts a b a b a: an empty cache answers 3 of 5, one that knows what comes again all 5."""
    calls = [answer(number, request_digest="ab"[number % 2]) for number in range(5)]
    found = predict(priced(tmp_path, calls), "response_cache")
    rate = effect(found, "hit_rate")
    assert (rate.before, rate.low, rate.high) == (0, 0.6, 1.0)
    usd = effect(found, "request_usd")
    assert usd.before == pytest.approx(0.014)
    assert usd.low == 0
    assert usd.high >= 0.014 * 2 / 5
    wait = effect(found, "request_duration_ms")
    assert wait.before == 1100
    assert wait.low == pytest.approx(100 + 1)  # what lies around the call, and a hit of 1 ms
    assert found.frame is not None
    assert found.frame["hits"].tolist() == [2, 1]


def test_a_stream_that_comes_at_once_still_has_to_be_read(tmp_path: Path) -> None:
    """All but the first of ten are hits of an empty cache: 10 ms and half a ms a token are left, and 100 ms around."""
    calls = [answer(number, request_digest="same") for number in range(10)]
    wait = effect(predict(priced(tmp_path, calls), "response_cache"), "request_duration_ms")
    assert wait.high == pytest.approx(100 + 10 + 0.5 * calls[0]["output_tokens"])


def test_prompts_that_differ_have_no_hits_and_cost_what_they_cost(tmp_path: Path) -> None:
    before, low, high = bounds(tmp_path, "response_cache", [answer(number) for number in range(5)], "request_usd")
    assert before == low == high == pytest.approx(0.014)


def test_model_settings_and_form_belong_to_the_key(tmp_path: Path) -> None:
    unlike = [{"request_model": "big"}, {"request_model": "small"}, {"stream": False}, {"max_tokens": 9}]
    calls = [answer(number, **({"request_digest": "same"} | columns)) for number, columns in enumerate(unlike)]
    assert effect(predict(priced(tmp_path, calls), "response_cache"), "hit_rate").high == 0


@pytest.mark.parametrize("columns", [{"temperature": 1.5}, {"attributes": {"n": 3}}])
def test_calls_that_want_variety_are_not_cached(tmp_path: Path, columns: dict[str, object]) -> None:
    calls = [answer(number, request_digest="same", **columns) for number in range(4)]
    assert effect(predict(priced(tmp_path, calls), "response_cache"), "hit_rate").high == 0


def test_an_answer_of_the_cache_that_is_there_is_a_hit_before(tmp_path: Path) -> None:
    calls = [answer(number, request_digest="same", answered_by="cache" if number else None) for number in range(4)]
    rate = effect(predict(priced(tmp_path, calls), "response_cache"), "hit_rate")
    assert (rate.before, rate.low) == (0.75, 0.75)


def test_calls_beside_each_other_make_the_saved_wait_unsure(tmp_path: Path) -> None:
    """A hit of 1,000 ms beside a miss of 900 ms may save 100 ms only; the cache that knows both saves all."""
    calls = []
    for number in range(4):
        calls.append(answer(number, request_digest="same"))
        calls.append(answer(number, request_digest=f"other{number}", duration_ms=900.0))
    requests = [request(number * 10_000 - 50, 1100) for number in range(4)]
    wait = effect(predict(priced(tmp_path, calls, requests), "response_cache"), "request_duration_ms")
    assert wait.before == 1100
    assert wait.low == pytest.approx(101)  # if nothing but the longest call held it up
    assert wait.high == 1100  # cold, and the other call as long as ever, in some samples


def test_without_digests_it_is_not_measured(tmp_path: Path) -> None:
    calls = [answer(number, request_digest=None, prompt_digest=None) for number in range(3)]
    with pytest.raises(NotMeasured, match="digest"):
        predict(priced(tmp_path, calls), "response_cache")


def test_embedding_cache_asks_only_for_what_it_lacks(tmp_path: Path) -> None:
    """x, then x and y (three quarters of it new), then both known: 1 + 1 + 0 + of 100 tokens a text."""
    texts = (["x"], ["x", "y"], ["x", "y"])
    calls = [
        embedding(
            number * 10_000,
            20,
            request_model="embedder",
            response_model="embedder",
            input_tokens=100 * len(each),
            inputs=len(each),
            messages=[message("input", text, 100, sketch=[1]) for text in each],
        )
        for number, each in enumerate(texts)
    ]
    requests = [request(number * 10_000 - 10, 120) for number in range(3)]
    found = predict(priced(tmp_path, calls, requests), "embedding_cache")
    tokens, rate = effect(found, "input_tokens"), effect(found, "hit_rate")
    assert tokens.before == pytest.approx(500 / 3)
    assert tokens.low == 0  # both come again, so a warm cache knows them
    assert tokens.high >= 200 / 3
    assert (rate.low, rate.high) == (pytest.approx(3 / 5), 1)
    usd = effect(found, "request_usd")
    assert usd.before == pytest.approx(500 * 100e-6 / 3)
    assert usd.low == 0


QUESTIONS = (
    "how do I reset my password please",
    "how do I reset my password please now",
    "what does the premium plan cost per month",
    "how do I reset my password please",
)


def asked(text: str, number: int) -> dict[str, object]:
    kept = [message("system", "rules", 50, text="You help."), message("user", text, 20, text=text)]
    return answer(number, messages=kept, request_digest=text)


def test_semantic_cache_shows_the_pairs_it_would_take_for_one(tmp_path: Path) -> None:
    calls = [asked(text, number) for number, text in enumerate(QUESTIONS)]
    found = predict(priced(tmp_path, calls, content="full"), "semantic_cache", threshold=0.8)
    assert found.frame is not None
    assert found.frame["question"].tolist() == [QUESTIONS[1]]
    assert found.frame["answered_as"].tolist() == [QUESTIONS[0]]
    rate = effect(found, "hit_rate")
    assert (rate.low, rate.high) == (0.25, 0.75)  # word for word only, or every pair and what comes again
    assert any("lexical" in each for each in found.assumptions)
    assert found.setting["similarity"] == "lexical"


def test_most_doubtful_pairs_come_first_and_a_function_decides(tmp_path: Path) -> None:
    alike = {"b": 0.95, "c": 0.91, "d": 0.5}
    calls = [asked(text, number) for number, text in enumerate("abcd")]

    def similarity(one: str, other: str) -> float:
        return alike[one] if other == "a" else 0.0

    found = predict(priced(tmp_path, calls, content="full"), "semantic_cache", threshold=0.9, similarity=similarity)
    assert found.frame is not None
    assert found.frame["question"].tolist() == ["c", "b"]
    assert effect(found, "hit_rate").low == 0.5
    assert found.as_dict()["setting"]["similarity"] == "similarity"


def test_another_system_prompt_is_another_question(tmp_path: Path) -> None:
    calls = [asked("same words", number) for number in range(2)]
    calls[1]["messages"] = [message("system", "other", 50, text="x"), message("user", "q", 20, text="same words")]
    calls[1]["request_digest"] = "differs"
    found = predict(priced(tmp_path, calls, content="full"), "semantic_cache")
    assert found.frame is not None
    assert found.frame.empty


def test_without_texts_semantic_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured) as missing:
        predict(priced(tmp_path, [answer(0)]), "semantic_cache")
    assert "--content full" in missing.value.hint
