"""The provider's bad days, as an application meets them."""

import urllib.error
from collections.abc import Iterator

import openai
import pytest
from running_provider import RunningProvider

from perfnb.demo.provider.conditions import Conditions, is_hit, is_marked
from perfnb.errors import WrongUse

MESSAGES = [{"role": "user", "content": "What does the csv reader return?"}]


@pytest.fixture
def troubled(provider: RunningProvider) -> Iterator[RunningProvider]:
    yield provider
    provider.post("/_control", {})


def say(provider: RunningProvider, *, stream: bool = False, text: str = "csv?", **options: object) -> object:
    return provider.client.chat.completions.create(
        model="sim-small", messages=[{"role": "user", "content": text}], stream=stream, **options
    )


def test_a_rate_limit_says_how_long_to_wait(troubled: RunningProvider) -> None:
    troubled.post("/_control", {"rate_limit_share": 1, "retry_after_s": [1, 2]})
    with pytest.raises(openai.RateLimitError) as caught:
        say(troubled)
    wait_s = float(caught.value.response.headers["retry-after"])
    assert 1 / 20 <= wait_s <= 2 / 20  # the time scale makes waits shorter too


def test_errors_are_503_or_a_reset(troubled: RunningProvider) -> None:
    troubled.post("/_control", {"error_share": 1})
    seen = set()
    for _ in range(12):
        with pytest.raises((openai.InternalServerError, openai.APIConnectionError)) as caught:
            say(troubled)
        seen.add(type(caught.value))
    assert seen == {openai.InternalServerError, openai.APIConnectionError}


def test_a_stalled_call_is_never_answered(troubled: RunningProvider) -> None:
    troubled.post("/_control", {"stall_share": 1})
    with pytest.raises(openai.APITimeoutError):
        say(troubled, timeout=0.5)


def test_a_failing_prompt_is_answered_after_so_many_attempts(troubled: RunningProvider) -> None:
    troubled.post("/_control", {"fail_share": 1, "fail_first": 2})
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            say(troubled, text="fails twice")
    assert say(troubled, text="fails twice")


def test_a_refused_prompt_is_refused_every_time(troubled: RunningProvider) -> None:
    troubled.post("/_control", {"refuse_share": 1})
    for _ in range(2):
        with pytest.raises(openai.BadRequestError, match="can't take this input"):
            say(troubled)


def test_a_broken_stream_ends_in_an_error_after_some_text(troubled: RunningProvider) -> None:
    troubled.post("/_control", {"break_share": 1})
    said = []
    with pytest.raises(openai.APIError, match="had an error"):
        said.extend(chunk.choices[0].delta.content or "" for chunk in say(troubled, stream=True))
    stream = say(troubled, stream=True)
    assert next(iter(stream)).choices[0].delta.role == "assistant"


def test_a_stream_can_open_long_before_its_first_word(troubled: RunningProvider) -> None:
    troubled.post("/_control", {"early_start": True, "late_share": 1, "late_ms": 4000})
    raw = troubled.client.chat.completions.with_raw_response.create(model="sim-small", messages=MESSAGES, stream=True)
    assert float(raw.headers["openai-processing-ms"]) < 50
    list(raw.parse())
    last = troubled.get("/_bill")["calls"][-1]
    assert last["first_due_ms"] > 4000 / 20


def test_slowness_sets_in_after_a_while_and_spares_nothing(troubled: RunningProvider) -> None:
    troubled.post("/_control", {"slow_factor": 5, "slow_after_s": 1000})
    say(troubled, text="the same")
    troubled.post("/_control", {"slow_factor": 5})
    say(troubled, text="the same")
    before, after = troubled.get("/_bill")["calls"][-2:]
    assert after["first_due_ms"] == pytest.approx(5 * before["first_due_ms"], rel=0.4)
    assert before["usage"]["input_tokens"] == after["usage"]["input_tokens"]


def test_an_unknown_condition_is_told() -> None:
    with pytest.raises(WrongUse, match="fire"):
        Conditions.of({"fire": 1})


def test_an_unknown_condition_is_told_over_http(troubled: RunningProvider) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        troubled.post("/_control", {"fire": 1})


@pytest.mark.parametrize("share", [0, 0.1, 0.125, 0.4, 1])
def test_hits_are_spread_evenly(share: float) -> None:
    for start in (1, 50, 333):
        hits = sum(is_hit(number, share) for number in range(start, start + 40))
        assert hits == pytest.approx(share * 40, abs=2)


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_a_share_of_prompts_is_marked(share: float) -> None:
    digests = [f"{number * 2654435761 % 2**32:08x}" for number in range(400)]
    assert sum(is_marked(digest, share) for digest in digests) / 400 == pytest.approx(share, abs=0.06)
