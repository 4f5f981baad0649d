from pathlib import Path

import pytest
from builders import START, Row, answer, call, failed_call, recording, request, span

from perfnb.areas.slow.caching import cache_answers, repeats
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding


def asked(prompts: str, **columns: object) -> list[Row]:
    return [call(n * 2000, 800, prompt_digest=prompt, **columns) for n, prompt in enumerate(prompts)]


@pytest.mark.parametrize(
    ("prompts", "found"),
    [
        ("abcabcabcabcabcabc", True),
        ("abcdefghijklmnopqr", False),
        ("abcdefghijklmnabcd", False),  # four repeats prove little
        ("abcdefghijklmnopqrstabcde", True),  # 20 % of them
        ("abcdefghijklmnopqrstuabcde", False),  # just under
    ],
)
def test_no_response_cache(tmp_path: Path, prompts: str, found: bool) -> None:
    assert isinstance(answer(tmp_path, "no-response-cache", calls=asked(prompts)), Finding) is found


def test_retries_are_not_repeats(tmp_path: Path) -> None:
    rows = [
        row
        for n in range(10)
        for row in (failed_call(n * 2000, prompt_digest=f"{n}"), call(n * 2000 + 100, prompt_digest=f"{n}"))
    ]
    assert repeats(recording(tmp_path, calls=rows)).empty


def test_calls_made_together_are_not_repeats(tmp_path: Path) -> None:
    assert repeats(recording(tmp_path, calls=[call(n, 900, prompt_digest="same") for n in range(10)])).empty


def test_another_model_is_another_question(tmp_path: Path) -> None:
    rows = [call(n * 2000, prompt_digest="same", request_model=f"model {n}") for n in range(6)]
    assert repeats(recording(tmp_path, calls=rows)).empty


def test_prompts_never_seen_are_not_judged(tmp_path: Path) -> None:
    rows = [call(n * 2000, source="span", prompt_digest=None) for n in range(6)]
    with pytest.raises(NotMeasured):
        answer(tmp_path, "no-response-cache", calls=rows)


def looked_up(hits: int, misses: int, questions: int) -> list[Row]:
    total = hits + misses
    return [
        request(n * 2000, 900, cache_status="hit" if n < hits else "miss", body_digest=f"q{n % questions}")
        for n in range(total)
    ]


@pytest.mark.parametrize(
    ("requests", "found"),
    [
        (looked_up(0, 20, 4), True),
        (looked_up(2, 18, 5), True),
        (looked_up(10, 10, 5), False),  # at the objective
        (looked_up(0, 20, 20), False),  # nobody asked twice: no cache could help
        (looked_up(0, 9, 3), False),
    ],
)
def test_cache_misses(tmp_path: Path, requests: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, "cache-misses", requests=requests), Finding) is found


def test_routes_without_the_cache_are_not_held_against_it(tmp_path: Path) -> None:
    uploads = [request(n * 2000 + 500, 900, route="/upload", body_digest=f"page{n % 3}") for n in range(30)]
    assert isinstance(answer(tmp_path, "cache-misses", requests=looked_up(0, 20, 20) + uploads), Clear)


def test_a_cache_that_is_there_is_not_called_missing(tmp_path: Path) -> None:
    calls = asked("abababababababab")
    requests = [request(n * 2000 - 20, 900, cache_status="miss") for n in range(16)]
    assert isinstance(answer(tmp_path, "no-response-cache", calls=calls, requests=requests), Clear)


def counter(name: str, at_s: float, value: float) -> Row:
    return {"time": START + int(at_s * 1e9), "source": "prometheus", "entity": "app", "metric": name, "value": value}


def test_counters_are_read_twice_and_subtracted(tmp_path: Path) -> None:
    samples = [
        counter("cache_hits_total", 0, 900),
        counter("cache_hits_total", 60, 903),
        counter("cache_misses_total", 0, 5),
        counter("cache_misses_total", 60, 22),
    ]
    frame = cache_answers(recording(tmp_path, samples=samples))
    assert frame[["source", "hits", "misses"]].to_numpy().tolist() == [["metric", 3, 17]]


def test_spans_tell_of_a_cache(tmp_path: Path) -> None:
    spans = [span(f"look-up {n}", n * 100, 1, operation="cache", cache_hit=n < 3) for n in range(10)]
    assert cache_answers(recording(tmp_path, spans=spans))[["hits", "misses"]].to_numpy().tolist() == [[3, 7]]


def test_without_a_cache_nothing_is_claimed(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "cache-misses", calls=asked("abc"))
