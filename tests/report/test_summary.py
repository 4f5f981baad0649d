"""Sentences say what the numbers say."""

from dataclasses import replace

import pytest

from perfnb.checklist import Checklist
from perfnb.finding import Clear, Estimate, Finding, Unmeasured
from perfnb.objectives import Objectives
from perfnb.recording import Window
from perfnb.report.summary import actions, needs, summary, thresholds

WINDOW = Window(1_790_000_000_000_000_000, 1_790_000_060_000_000_000)
OVERVIEW = {"requests": 200.0, "failed": 3.0, "p50_ms": 900.0, "p95_ms": 2000.0}


def finding(cause: str, share: float, effort: str = "low", title: str = "Answers wait.") -> Finding:
    return Finding(title, "high", share, ("e",), f"Mend {cause}.", effort=effort, cause=cause, area="slow")  # type: ignore[arg-type]


def told(*findings: Finding, clear: int = 0, missing: int = 0, overview=OVERVIEW) -> str:
    answers = Checklist(findings, (Clear("x", "c"),) * clear, (Unmeasured("c", "x"),) * missing)
    return summary(overview, answers, Objectives.load(), WINDOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (told(), "200 requests came in and 3 failed."),
        (told(), "which meets the objective of 3 s."),
        (told(overview={**OVERVIEW, "p95_ms": 3001.0}), "which misses the objective of 3 s."),
        (told(overview={**OVERVIEW, "failed": 0.0}), "and none failed."),
        (told(overview={}), "Nothing that could be timed was recorded"),
        (told(), "No cause was found among those that could be judged."),
        (told(finding("a", 0.41)), "The largest cause: answers wait; this explains 41 % of the users’ wait."),
        (told(finding("a", 0.4), finding("b", 0.2), finding("c", 0.0)), "Also found: answers wait (20 %)."),
        (told(*[finding(name, 0.1) for name in "abcdef"]), "and 2 more."),
        (told(clear=1), "1 other cause was looked for and not found."),
        (told(clear=7, missing=1), "7 other causes were looked for and not found. 1 cause could not be judged"),
        (told(finding("a", 0.4, title="gpt-5 writes 9 tokens/s")), "The largest cause: gpt-5 writes 9 tokens/s;"),
        (told(finding("a", 0.4, title="LLM calls hang")), "The largest cause: LLM calls hang;"),
    ],
)
def test_the_summary_says_what_happened(text, expected):
    assert expected in text


def test_actions_come_by_share_and_then_by_effort():
    ranked = actions([finding("a", 0.2, "high"), finding("b", 0.201, "low"), finding("c", 0.5, "high")])
    assert [action.cause for action in ranked] == ["c", "b", "a"]


def test_an_action_tells_its_estimate_in_words():
    one = Finding("t", "high", 0.5, (), "r", estimate=Estimate("time_to_first_token_ms", 4100, 350, 700))
    assert actions([one])[0].gain == "Estimated time to first token: 350 ms to 700 ms, now 4.1 s."


def test_needs_are_grouped_by_what_is_missing():
    grouped = needs(
        [
            Unmeasured("slow-network", "the proxy"),
            Unmeasured("python-hot-spot", "stacks"),
            Unmeasured("made-up", "the proxy"),
        ]
    )
    assert [(need.needs, need.causes) for need in grouped] == [
        ("stacks", ("python hot spot",)),
        ("the proxy", ("network latency to provider", "made-up")),
    ]


def test_every_objective_is_listed_with_its_sources():
    listed = thresholds(Objectives.load())
    assert len(listed) == len(Objectives.load())
    assert all(one.said and one.value for one in listed)
    assert any(one.disputed for one in listed)


MONEY = {
    "calls": 300, "unpriced_calls": 0, "cost_usd": 3.1176, "requests": 115, "usd_per_request": 0.02711, "seconds": 33.5,
    "usd_per_day": 8029.8, "assumption": "as recorded",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "The model calls cost $3.12, $0.0271 per request. At the rate of these 33.5 s that is $8,030 a day."),
        ({"requests": 0}, "The model calls cost $3.12. At the rate"),
        ({"assumption": ""}, "$0.0271 per request. No cause"),
        ({"unpriced_calls": 1}, "a day. 1 call without a price is in no sum of dollars."),
        ({"unpriced_calls": 300, "cost_usd": 0}, "What the model calls cost is not known"),
        ({"cost_usd": 0.0}, "The model calls cost $0,"),
    ],
)
def test_the_summary_says_what_it_cost(changed, expected):
    text = summary(OVERVIEW, Checklist((), (), ()), Objectives.load(), WINDOW, MONEY | changed)
    assert expected in text


def test_without_model_calls_the_summary_speaks_of_no_money():
    assert "$" not in told()


def test_shares_of_something_else_than_the_first_say_of_what():
    dear = replace(finding("b", 0.3, title="Prompts are long."), symptom="cost")
    text = told(finding("a", 0.4), dear)
    assert "Also found: prompts are long (30 % of the spend)." in text


def test_an_action_tells_what_its_cause_costs():
    one = Finding("t", "high", 0.5, (), "r", symptom="cost", usd_per_request=0.00123, usd_per_day=1234.5)
    assert actions([one])[0].worth == "$1,230 a day at this rate, $0.00123 per request"
