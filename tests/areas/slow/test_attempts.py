"""What happens inside a client's span: attempts that are seen, hidden, or told only by what lies above."""

from pathlib import Path
from typing import Any

import pytest
from builders import MS, Row, answer, call, failed_call, recording, request, span

from perfnb.areas.slow.attempts import hidden_calls, rate_limited_requests
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding

COUNTING = ("rate-limited", "no-retry", "retry-amplification", "timeout-too-short")
Tables = dict[str, list[Row]]


def traced(
    number: int, ms: float = 2500, *, error: str | None = None, at_error: str = "agent", **columns: Any
) -> Tables:
    """Return one request: a server span, an agent's below it and a model call's in that, without anything below."""
    trace, at = f"trace{number}", number * 10_000
    errors = {"server": ("server", "agent"), "agent": ("server", "agent"), "tool": ("server", "agent", "tool")}[
        at_error
    ]
    told = {
        name: {"error_type": error, "status": "ERROR"} if error and name in errors else {}
        for name in ("server", "agent", "tool")
    }
    spans = [
        span("POST", at, ms, trace=trace, operation="server", kind="SERVER", **told["server"]),
        span("agent", at + 1, ms - 2, trace=trace, parent="POST", operation="agent", **told["agent"]),
        span("tool", at + 2, 5, trace=trace, parent="agent", operation="tool", **told["tool"]),
        span("chat", at + 10, ms - 20, trace=trace, parent="agent", operation="chat", kind="CLIENT"),
    ]
    own = call(at + 10, ms - 20, source="span", trace_id=trace, span_id=f"{trace}-chat", status_code=None,
               parent_span_id=f"{trace}-agent", retry_count=None, **columns)  # fmt: skip
    asked = request(
        at, ms, source="span", trace_id=trace, span_id=f"{trace}-POST", error_type=told["server"].get("error_type")
    )
    return {"spans": spans, "calls": [own], "requests": [asked]}


def posts(number: int, *attempts: tuple[float, float, int], parent: str = "chat") -> Tables:
    """Return HTTP client spans of the model call of request ``number``: (at, ms, status) each."""
    return {
        "spans": [
            span(f"POST{place}", number * 10_000 + at, ms, trace=f"trace{number}", parent=parent, operation="http",
                 kind="CLIENT", http_status_code=status, error_type=None if status < 400 else str(status))
            for place, (at, ms, status) in enumerate(attempts)
        ]
    }  # fmt: skip


def together(*parts: Tables) -> Tables:
    made: Tables = {"spans": [], "calls": [], "requests": []}
    for part in parts:
        for name, rows in part.items():
            made[name] += rows
    return made


def proxied(count: int, start: int = 100, **columns: Any) -> Tables:
    return {"calls": [call(n * 10_000, 900, **columns) for n in range(start, start + count)]}


HIDDEN = [traced(number) for number in range(20)]
ONE_EACH = [posts(number, (12, 2400, 200)) for number in range(20)]
BESIDE = [posts(number, (12, 2400, 200), parent="POST") for number in range(20)]
RATE = "pydantic_ai.exceptions.ModelRateLimitError"


@pytest.mark.parametrize("cause", COUNTING)
@pytest.mark.parametrize(
    ("tables", "is_clear"),
    [
        (together(*HIDDEN), False),  # spans alone
        (together(*HIDDEN, *ONE_EACH), True),  # the HTTP client is instrumented
        (together(*HIDDEN, *BESIDE), True),  # its spans lie beside the call, as the library sets no context
        (together(*HIDDEN, *ONE_EACH[:10]), True),  # the other half was answered by a cache in the client
        (together(*HIDDEN, *ONE_EACH[:4]), True),
        (together(*HIDDEN, *ONE_EACH[:3]), False),  # under a fifth: of something else
        (together(*HIDDEN, *[posts(n, (2495, 2, 200), parent="POST") for n in range(20)]), False),  # after the call
        (together(proxied(20)), True),
        (together(*HIDDEN, proxied(20)), True),  # the same model elsewhere is seen whole
        (together(*HIDDEN, proxied(20, provider="other", request_model="other")), False),
        (together(*HIDDEN[:5], proxied(16, provider="other", request_model="other")), False),
        (together(*HIDDEN[:5], proxied(21, provider="other", request_model="other")), True),  # 5 of 26
    ],
)
def test_none_is_said_only_where_attempts_are_seen(tmp_path: Path, cause: str, tables: Tables, is_clear: bool) -> None:
    if is_clear:
        assert isinstance(answer(tmp_path, cause, **tables), Clear)
        return
    with pytest.raises(NotMeasured, match="are not seen") as missing:
        answer(tmp_path, cause, **tables)
    assert "--upstream" in str(missing.value.hint)
    assert "HTTP client" in str(missing.value.hint)


def test_what_a_clear_could_not_see_is_said(tmp_path: Path) -> None:
    tables = together(*HIDDEN[:5], proxied(21, provider="other", request_model="other"))
    said = answer(tmp_path, "rate-limited", **tables)
    assert isinstance(said, Clear)
    assert said.examined.endswith("attempts within 5 of 26 calls are not seen")


def gave_up(count: int, good: int = 20, **columns: Any) -> Tables:
    return together(*HIDDEN[:good], *[traced(50 + n, 20_000, error=RATE, **columns) for n in range(count)])


@pytest.mark.parametrize(
    ("tables", "found"),
    [
        (gave_up(2), True),
        (gave_up(5, at_error="server"), True),
        (gave_up(1), False),
        (gave_up(5, at_error="tool"), False),  # the limit of what a tool asks
        (together(*HIDDEN, *[traced(50 + n, 20_000, error="ValueError") for n in range(5)]), False),
        (together(*HIDDEN, *[posts(n, (20, 5, 429), (900, 9, 429), (1900, 400, 200), parent="POST") for n in range(2)]), True),
        (together(*HIDDEN, *[posts(n, (2495, 4, 429), parent="POST") for n in range(5)]), False),  # not the call's
        (together(*HIDDEN, {"requests": [request(n * 500, 3, status_code=429, error_type="429") for n in range(20)]}), False),
    ],
)  # fmt: skip
def test_rate_limits_told_above_hidden_attempts(tmp_path: Path, tables: Tables, found: bool) -> None:
    if not found:
        with pytest.raises(NotMeasured):
            answer(tmp_path, "rate-limited", **tables)
        return
    said = answer(tmp_path, "rate-limited", **tables)
    assert isinstance(said, Finding)
    assert said.symptom == "errors"
    assert "is not seen" in said.evidence[-1]


def test_what_is_known_of_requests_that_gave_up(tmp_path: Path) -> None:
    said = answer(tmp_path, "rate-limited", **gave_up(5))
    assert isinstance(said, Finding)
    assert said.title == "5 of 25 requests ran into the provider's rate limit"
    assert said.share == pytest.approx(0.2)
    assert "5 of them failed" in said.evidence[0]
    assert "20.0 s (median); the others 2.5 s" in said.evidence[1]


def test_errors_above_calls_that_the_proxy_saw_are_no_more_than_it_saw(tmp_path: Path) -> None:
    spans = gave_up(5)["spans"]
    seen = [call(n * 10_000 + 10, 2400, trace_id=f"trace{n}", parent_span_id=f"trace{n}-chat") for n in range(20)]
    assert isinstance(answer(tmp_path, "rate-limited", spans=spans, calls=seen), Clear)


@pytest.mark.parametrize("error", ["RateLimitError", RATE, "botocore.ThrottlingException", "TooManyRequests", "429"])
def test_calls_that_tell_a_rate_limit_in_their_librarys_words(tmp_path: Path, error: str) -> None:
    calls = [failed_call(n * 1000, status_code=None, error_type=error) for n in range(5)]
    assert isinstance(answer(tmp_path, "rate-limited", calls=[*calls, *proxied(20)["calls"]]), Finding)


@pytest.mark.parametrize(("ms", "found"), [(20, True), (374, True), (376, False), (9000, False)])
def test_a_failed_span_that_may_hold_retries_is_no_lack_of_them(tmp_path: Path, ms: float, found: bool) -> None:
    """The client chooses a pause of 375 ms at least, so that what fails sooner was one attempt."""
    failing = [traced(50 + n, 9500, error="InternalServerError") for n in range(5)]
    for part in failing:
        part["calls"][0] |= {"duration_ms": ms, "error_type": "server_error"}
    tables = together(*HIDDEN, *failing)
    if found:
        assert isinstance(answer(tmp_path, "no-retry", **tables), Finding)
        return
    with pytest.raises(NotMeasured):
        answer(tmp_path, "no-retry", **tables)


def test_an_apps_own_retries_of_hidden_calls_are_named(tmp_path: Path) -> None:
    rows: Tables = {"calls": [], "requests": []}
    for n in range(4):
        at = 500_000 + n * 20_000
        rows["requests"].append(request(at, 6000))
        rows["calls"] += [
            failed_call(at + 10 + each * 900, 600, status=500, source="span", prompt_digest=f"p{n}")
            for each in range(5)
        ]
        rows["calls"].append(call(at + 10 + 5 * 900, 700, source="span", prompt_digest=f"p{n}"))
    assert isinstance(answer(tmp_path, "retry-amplification", **rows), Finding)


@pytest.mark.parametrize(
    ("ms", "first", "is_clear"), [(59_000, None, True), (61_000, None, False), (61_000, 800, True)]
)
def test_a_long_call_may_have_hung_and_been_tried_again(
    tmp_path: Path, ms: float, first: float | None, is_clear: bool
) -> None:
    long = [traced(50 + 10 * n, ms + 20, first_token_ms=first) for n in range(2)]
    tables = together(*HIDDEN, *long)
    if is_clear:
        assert isinstance(answer(tmp_path, "timeout-too-long", **tables), Clear)
        return
    with pytest.raises(NotMeasured, match="2 long calls"):
        answer(tmp_path, "timeout-too-long", **tables)


def test_hidden_calls_are_listed_with_their_requests(tmp_path: Path) -> None:
    rows = gave_up(2, good=3)
    made = recording(tmp_path, spans=rows["spans"], calls=rows["calls"], requests=rows["requests"])
    assert len(hidden_calls(made)) == 5
    assert len(rate_limited_requests(made)) == 2
    assert hidden_calls(made)["request_id"].notna().all()
    empty = recording(tmp_path, name="whole", calls=proxied(3)["calls"])
    assert hidden_calls(empty).empty
    assert rate_limited_requests(empty) == []


def test_what_was_seen_during_a_trial_does_not_count(tmp_path: Path) -> None:
    refused = gave_up(5)
    during = {"arm": "t1/A", "start_time": 1_790_000_000_000_000_000 + 495_000 * MS, "duration_ms": 100_000.0}
    tables = together(refused, {"requests": [request() | during]})
    with pytest.raises(NotMeasured):
        answer(tmp_path, "rate-limited", **tables)
