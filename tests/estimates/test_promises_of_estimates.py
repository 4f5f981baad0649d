"""What holds of every change, on random traffic and on the recording that comes with the package."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
from builders import Row, embedding, failed_call
from traffic_rows import GAP_MS, answer, message, priced

from perfnb.bundled import bundled
from perfnb.errors import NotMeasured
from perfnb.estimates import Prediction, changes, predict
from perfnb.recording import Recording


def chat(dice: random.Random, number: int) -> Row:
    question = dice.randrange(12)
    size, said = dice.randrange(50, 6000), dice.randrange(5, 600)
    streams = dice.random() < 0.7
    took = 50 + 0.1 * size + 6 * said
    columns: Row = {
        "request_model": dice.choice(["big", "big", "small"]),
        "input_tokens": size,
        "output_tokens": said,
        "cache_read_tokens": dice.choice([0, size // 256 * 128]),
        "reasoning_tokens": dice.choice([0, 0, said // 2]),
        "request_digest": f"r{question}",
        "prompt_digest": f"p{question}",
        "stream": streams,
        "duration_ms": took,
        "first_token_ms": 50 + 0.1 * size if streams else None,
        "time_to_first_token_ms": 50 + 0.1 * size if streams else None,
        "attributes": {"tools": ["search", "book"]} if question % 3 else {},
        "tools_offered": 2 if question % 3 else 0,
        "tool_schema_tokens": size // 5 if question % 3 else 0,
        "tool_calls": [{"name": "search"}] if question == 4 else [],
        "system_tokens": size // 4,
        "passages": question,
        "passage_tokens": size // 3 if question else 0,
        "history_messages": 2,
        "history_tokens": size // 10,
        "response_sketch": [number * 10 + each for each in range(8)],
        "messages": prompt(size, question, number),
    }
    columns["response_model"] = columns["request_model"]
    return answer(number + dice.random() / 3, **columns)


def prompt(size: int, question: int, number: int) -> list[Row]:
    return [
        message("system", "rules", size // 4, sketch=[1, 2, 3], text="You help."),
        message("user", f"earlier{number}", size // 20, sketch=[number], text="hello"),
        message("assistant", f"said{number}", size // 20, sketch=[number + 1], text="hi"),
        message("user", f"q{question}", size // 2, passages=question, passage_tokens=size // 3 if question else 0,
                sketch=[question], text=f"Where is order {question}?"),
    ]  # fmt: skip


def some_traffic(folder: Path, seed: int, name: str) -> Recording:
    dice = random.Random(seed)
    calls = [chat(dice, number) for number in range(dice.choice([1, 3, 25, 60]))]
    calls += [failed_call(number * GAP_MS + 5, 10, request_model="big") for number in range(2)]
    calls += [
        embedding(number * GAP_MS + 2, 10, request_model="embedder", response_model="embedder",
                  messages=[message("input", f"t{number % 3}", 12, sketch=[1])])
        for number in range(4)
    ]  # fmt: skip
    for row, number in zip(calls, range(1000), strict=False):
        row["call_id"] = f"call{number}"
    return priced(folder, calls, name=name, content="full")


def predictions(recording: Recording) -> dict[str, Prediction]:
    """Return what each change predicts; of the others the recording lacks something, and they say how to get it."""
    found: dict[str, Prediction] = {}
    hints: dict[str, str] = {}
    for one in changes():
        try:
            found[one.name] = predict(recording, one.name)
        except NotMeasured as missing:
            hints[one.name] = missing.hint
    assert all(hints.values()), hints
    return found


def figures(found: dict[str, Prediction]) -> dict[str, Any]:
    return {name: each.as_dict() | {"frame": len(each.frame) if each.frame is not None else 0} for name, each in found.items()}  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_ranges_are_sound_and_the_same_every_time(tmp_path: Path, seed: int) -> None:
    found = predictions(some_traffic(tmp_path, seed, "once"))
    assert len(found) >= 10
    for name, prediction in found.items():
        assert prediction.examined, name
        for one in prediction.effects:
            assert all(map(math.isfinite, (one.before, one.low, one.high))), (name, one)
            assert 0 <= one.low <= one.high, (name, one)
            assert one.assumptions, (name, one)
    assert figures(found) == figures(predictions(some_traffic(tmp_path, seed, "again")))


@pytest.mark.parametrize("seed", range(3))
def test_changes_that_bind_nothing_change_nothing(tmp_path: Path, seed: int) -> None:
    made = some_traffic(tmp_path, seed, "made")
    for name, setting in (
        ("output_cap", {"max_tokens": 100_000}),
        ("context_trim", {"passages": 100}),
        ("history_trim", {"messages": 100}),
        ("system_prompt", {"tokens": 100_000}),
        ("tool_subset", {"names": ["search", "book"]}),
        ("route", {"max_input_tokens": 1}),
    ):
        try:
            effects = predict(made, name, **setting).effects
        except NotMeasured:
            continue
        assert effects, name
        for one in effects:
            assert one.before == pytest.approx(one.low) == pytest.approx(one.high), (name, one)


def test_every_change_predicts_from_the_sample_or_says_what_it_lacks() -> None:
    with Recording.open(bundled("data") / "sample.perfnb") as sample:
        found = predictions(sample)
    assert set(found) >= {
        "response_cache",
        "embedding_cache",
        "output_cap",
        "streaming",
        "context_trim",
        "parallel_calls",
    }
    streaming = found["streaming"].effect("time_to_first_token_ms")
    assert streaming is not None
    assert streaming.high < 0.5 * streaming.before
