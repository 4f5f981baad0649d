"""The causes of waiting that cost as well: judged by dollars where the wait does not tell."""

from pathlib import Path
from typing import Any

import pytest
from builders import Row, answer, call
from cost_calls import asked, judged, of_model, priced, text

from perfnb import checklist
from perfnb.checklist import checks
from perfnb.finding import Clear, Finding

CAUSES = ("large-context", "long-history", "no-response-cache")


def quick(count: int = 12, **columns: Any) -> list[Row]:
    """Return calls whose first token comes at once, whatever they read: nobody waits for the prompt."""
    given = {"first_token_ms": 5, "output_tokens": 20} | of_model("mini") | columns
    return [call(n * 9000, 3000, **given) for n in range(count)]


LONG = {"history_messages": 44, "history_tokens": 7000, "input_tokens": 8000}


def pasted(tokens: int, **columns: Any) -> list[Row]:
    """Return calls that tell their messages: short instructions and a text of ``tokens``."""
    given = {"first_token_ms": 5, "output_tokens": 20} | columns
    return [asked(n * 9000, ("system", "Answer."), ("user", text(n, tokens)), **given) for n in range(12)]


@pytest.mark.parametrize(
    ("cause", "calls", "is_found"),
    [
        ("large-context", quick(input_tokens=9000), True),
        ("large-context", quick(input_tokens=2000), False),
        ("large-context", quick(input_tokens=4000), False),  # over budget, but acceptable
        ("large-context", quick(input_tokens=4100), True),
        ("large-context", quick(input_tokens=9000, output_tokens=12_000), False),  # not worth it
        ("large-context", quick(input_tokens=9000, cache_read_tokens=8900), False),  # as far as is told, all fixed
        ("large-context", quick(2, input_tokens=9000), False),
        ("large-context", [row for tokens in (282, 15_689) for row in quick(input_tokens=tokens)], True),
        ("large-context", [*quick(60, input_tokens=900), *quick(3, input_tokens=5000)], False),  # few, and not worth it
        ("large-context", pasted(9000), True),
        ("large-context", pasted(9000, cache_read_tokens=8600), True),  # cheaper, still most of the bill
        ("large-context", pasted(9000, cache_read_tokens=8600, output_tokens=3000), False),
        ("long-history", quick(**LONG), True),
        ("long-history", quick(**LONG | {"history_messages": 10}), False),
        ("long-history", quick(**LONG | {"history_tokens": 400}), False),
        ("no-response-cache", quick(prompt_digest="same"), True),
        ("no-response-cache", quick(), False),
        ("no-response-cache", quick(prompt_digest="same", answered_by="cache"), False),
    ],
)
def test_judged_by_dollars(tmp_path: Path, cause: str, calls: list[Row], is_found: bool) -> None:
    found = judged(tmp_path, cause, calls=calls)
    assert isinstance(found, Finding) is is_found
    assert isinstance(found, Clear) or (found.symptom == "cost" and found.usd_per_day)


def test_what_hardly_delays_is_found_for_what_it_costs(tmp_path: Path) -> None:
    found = judged(tmp_path, "large-context", area="slow", calls=quick(input_tokens=9000))
    assert isinstance(found, Finding)
    assert found.symptom == "cost"


def test_what_delays_carries_its_dollars(tmp_path: Path) -> None:
    calls = [call(n * 9000, 3000, first_token_ms=2800, input_tokens=9000, **of_model("mini")) for n in range(12)]
    found = judged(tmp_path, "large-context", area="slow", calls=calls)
    assert isinstance(found, Finding)
    assert found.symptom == "latency"
    assert found.usd_per_request == pytest.approx(7000 * 0.4e-6)


def test_cached_tokens_count_at_their_own_price(tmp_path: Path) -> None:
    fresh = judged(tmp_path / "a", "large-context", calls=pasted(9000, input_tokens=9000))
    cached = judged(tmp_path / "b", "large-context", calls=pasted(9000, input_tokens=9000, cache_read_tokens=9000))
    assert isinstance(fresh, Finding)
    assert isinstance(cached, Finding)
    assert fresh.usd_per_request == pytest.approx(7000 * 0.4e-6, rel=0.01)
    assert cached.usd_per_request == pytest.approx(7000 * 0.1e-6, rel=0.01)


def swinging(*, with_latency: bool) -> list[Row]:
    """Return calls whose prompts swing in size, and whose first tokens do so too or not."""
    sizes = (500, 3000, 7000, 12_000) * 5
    first = [100 + size * 0.2 if with_latency else 900 + n % 3 for n, size in enumerate(sizes)]
    return [
        call(n * 9000, 5000, first_token_ms=first[n], input_tokens=size, **of_model("mini"))
        for n, size in enumerate(sizes)
    ]


def test_what_swings_with_the_latency_is_varying_and_costs_as_well(tmp_path: Path) -> None:
    made = priced(tmp_path, calls=swinging(with_latency=True))
    slow, costs = (checklist.run(made, area=area).findings for area in ("slow", "costs"))
    assert "large-context" not in [finding.cause for finding in slow]
    varying = next(finding for finding in slow if finding.cause == "varying-context")
    large = next(finding for finding in costs if finding.cause == "large-context")
    assert varying.usd_per_day == large.usd_per_day
    assert large.symptom == "cost"


def test_what_swings_without_the_latency_is_large(tmp_path: Path) -> None:
    made = priced(tmp_path, calls=swinging(with_latency=False))
    seen = {finding.cause: finding for finding in checklist.run(made, area="slow").findings}
    assert "varying-context" not in seen
    assert "large-context" in seen


def test_exemplars_are_different_requests(tmp_path: Path) -> None:
    calls = [call(n * 100, 80, request_id=f"r{n // 4}", input_tokens=9000, **of_model("mini")) for n in range(12)]
    made = priced(tmp_path, calls=calls)
    found = next(each for each in checklist.run(made, area="costs").findings if each.cause == "large-context")
    assert len(found.exemplars) == len(set(found.exemplars))


def test_fixed_instructions_are_left_to_their_own_cause(tmp_path: Path) -> None:
    calls = [asked(n * 9000, ("system", text("rules", 6000)), ("user", text(n, 50))) for n in range(12)]
    assert isinstance(judged(tmp_path / "a", "verbose-system-prompt", calls=calls), Finding)
    assert isinstance(judged(tmp_path / "b", "large-context", calls=calls), Clear)


def test_a_recording_without_prices_is_judged_by_tokens(tmp_path: Path) -> None:
    found = judged(tmp_path, "large-context", calls=quick(input_tokens=9000), prices=[])
    assert isinstance(found, Finding)
    assert isinstance(answer(tmp_path / "b", "large-context", calls=quick(input_tokens=700)), Clear)


def test_the_area_costs_shows_them_too(tmp_path: Path) -> None:
    made = priced(tmp_path, calls=quick(input_tokens=9000))
    seen = {finding.cause: finding.symptom for finding in checklist.run(made, area="costs").findings}
    assert seen["large-context"] == "cost"
    assert {check.cause for check in checks() if "costs" in check.also} == set(CAUSES)
    assert not {check.cause for check in checks("costs")} & set(CAUSES)
