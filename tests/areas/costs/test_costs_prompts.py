from pathlib import Path
from typing import Any

import pytest
from builders import Row, call, failed_call
from cost_calls import asked, found, judged, of_model, priced, text

from perfnb.areas.costs.prompts import tool_use
from perfnb.areas.dollars import spending
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding

Talk = tuple[str, str]


def chats(*messages: Talk, count: int = 12, **columns: Any) -> list[Row]:
    """Return calls with the same messages and a question of each one's own."""
    return [asked(n * 3000, *messages, ("user", text(f"q{n}", 40)), **columns) for n in range(count)]


def passages(seed: object, count: int = 4, tokens: int = 200) -> str:
    return "\n\n".join(f"[{n}] Title {n}\n{text(f'{seed} {n}', tokens)}" for n in range(1, count + 1))


def instructed(tokens: int, **columns: Any) -> list[Row]:
    return chats(("system", text("instructions", tokens)), **columns)


def retrieving(tokens: int) -> list[Row]:
    """Return calls whose system message holds short instructions and retrieved passages of ``tokens`` each."""
    return [
        asked(n * 3000, ("system", f"Answer from these.\n\n{passages(n, 4, tokens)}"), ("user", text(n, 30)))
        for n in range(12)
    ]


@pytest.mark.parametrize(
    ("calls", "is_found"),
    [
        (instructed(3000), True),
        (instructed(3000, source="span"), True),
        (instructed(2100), True),
        (instructed(1900), False),
        (instructed(60), False),
        (instructed(3000, count=4), False),
        (instructed(3000, cache_read_tokens=2900), True),  # cheaper, still most of the bill
        (instructed(3000, cache_read_tokens=2900, output_tokens=3000), False),
        (retrieving(1200), False),  # long, but of passages
        ([asked(n * 3000, ("system", text(f"own {n}", 3000)), ("user", "Go on.")) for n in range(12)], False),
        (chats(("user", text("pasted", 3000))), False),
    ],
)
def test_verbose_system_prompt(tmp_path: Path, calls: list[Row], is_found: bool) -> None:
    assert isinstance(judged(tmp_path, "verbose-system-prompt", calls=calls), Finding) is is_found


def test_only_what_can_be_cut_counts(tmp_path: Path) -> None:
    finding = found(tmp_path, "verbose-system-prompt", calls=instructed(3000, output_tokens=0))
    assert finding.share == pytest.approx((3000 - 500) / 3040, rel=0.02)


def doubled(part: float) -> list[Row]:
    """Return calls whose passages say ``part`` of their text twice."""
    once, again = text("once", 1000), text("once", round(1000 * part))
    return chats(("system", f"Answer from this.\n\n{once}\n\n{again}"))


REPEATED_CONTEXT = [("user", text("context", 600)), ("assistant", text("said", 40)), ("user", text("context", 600))]


@pytest.mark.parametrize(
    ("calls", "is_found"),
    [
        (doubled(0.9), True),
        (doubled(0.45), True),
        (doubled(0.1), False),
        (doubled(0.0), False),
        (chats(("system", passages("a")), ("user", text("b", 300))), False),
        (chats(*REPEATED_CONTEXT), True),  # the context goes along with every message
        (chats(*REPEATED_CONTEXT, count=4), False),
        (chats(("assistant", f"{text('a', 900)} {text('a', 900)}"), ("user", "Go on.")), False),  # its own words
        (chats(("assistant", "Yes."), ("user", "Thanks."), ("assistant", "Yes."), ("user", "Thanks.")), False),
        (chats(*REPEATED_CONTEXT, output_tokens=4000), False),  # not worth it
    ],
)
def test_redundant_prompt_text(tmp_path: Path, calls: list[Row], is_found: bool) -> None:
    assert isinstance(judged(tmp_path, "redundant-prompt-text", calls=calls), Finding) is is_found


def test_tables_of_zeros_are_not_redundant(tmp_path: Path) -> None:
    rows = "\n".join(f"{n} {text(n, 3)} {'0 ' * 40}" for n in range(60))
    calls = [asked(n * 3000, ("user", rows), ("user", text(n, 30))) for n in range(12)]
    assert isinstance(judged(tmp_path, "redundant-prompt-text", calls=calls), Clear)


def test_lists_of_records_are_not_redundant(tmp_path: Path) -> None:
    records = ", ".join(f'{{"id": {n}, "title": "{text(n, 6)}", "state": "open"}}' for n in range(120))
    calls = [asked(n * 3000, ("user", "List."), ("tool", f"[{records}]")) for n in range(12)]
    assert isinstance(judged(tmp_path, "redundant-prompt-text", calls=calls), Clear)


def tools(count: int, tokens: int = 150) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": f"tool{n}", "description": text(f"tool {n}", tokens)}}
        for n in range(count)
    ]


def calling(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "arguments_digest": "d", "id_digest": "i"} for name in names]


def offered(number: int, *used: str, tokens: int = 150, **columns: Any) -> list[Row]:
    given = {"tools": tools(number, tokens), "tool_calls": calling(*used)} | columns
    return chats(("system", "Use the tools."), **given)


@pytest.mark.parametrize(
    ("calls", "is_found"),
    [
        (offered(30, "tool1", "tool2"), True),
        (offered(30, "tool1", source="span"), True),
        (offered(30, *(f"tool{n}" for n in range(15))), True),
        (offered(30, *(f"tool{n}" for n in range(16))), False),  # more than half are called
        (offered(5, "tool1"), False),  # short
        (offered(30, "tool1", count=7), False),
        (offered(30, "tool1", output_tokens=20_000), False),
        (chats(("system", "No tools.")), False),
        (chats(("system", text("long", 9000)), tools=tools(30)), False),  # not most of the prompt
    ],
)
def test_heavy_tool_schemas(tmp_path: Path, calls: list[Row], is_found: bool) -> None:
    assert isinstance(judged(tmp_path, "heavy-tool-schemas", calls=calls), Finding) is is_found


def test_tools_called_are_counted_over_all_calls_of_a_kind(tmp_path: Path) -> None:
    calls = [row | {"tool_calls": calling(f"tool{n % 3}")} for n, row in enumerate(offered(30))]
    [kind] = tool_use(priced(tmp_path, calls=calls)).itertuples()
    assert (kind.offered, kind.called, kind.calls) == (30, 3, 12)


CAUSES = ["verbose-system-prompt", "redundant-prompt-text", "heavy-tool-schemas"]
FAULTY = {CAUSES[0]: instructed(3000), CAUSES[1]: doubled(0.9), CAUSES[2]: offered(30, "tool1")}


@pytest.mark.parametrize("cause", CAUSES)
def test_prompts_are_judged_by_tokens_where_nothing_has_a_price(tmp_path: Path, cause: str) -> None:
    calls = [row | of_model("unheard-of") for row in FAULTY[cause]]
    finding = found(tmp_path, cause, calls=calls, prices=[])
    assert finding.usd_per_day is finding.estimate is None
    assert "known price" in finding.evidence[-1]


@pytest.mark.parametrize("cause", CAUSES)
def test_prompts_nobody_saw_are_not_judged(tmp_path: Path, cause: str) -> None:
    calls = [call(n * 2000, source="span", tools_offered=None, **of_model("mini")) for n in range(9)]
    with pytest.raises(NotMeasured):
        judged(tmp_path, cause, calls=calls)


@pytest.mark.parametrize("cause", CAUSES)
def test_without_usage_there_are_no_dollars(tmp_path: Path, cause: str) -> None:
    calls = [call(n * 2000, input_tokens=None, output_tokens=None, cache_read_tokens=None) for n in range(9)]
    with pytest.raises(NotMeasured):
        judged(tmp_path, cause, calls=calls)


def test_counts_with_gaps_stay_plain_numbers(tmp_path: Path) -> None:
    """A failed call has no usage; nullable whole numbers refuse the fractions that parts of prompts come to."""
    calls = [*instructed(3000), failed_call(90_000, cache_read_tokens=None)]
    counts = spending(priced(tmp_path, calls=calls)).calls[["input_tokens", "cache_read_tokens", "tools_offered"]]
    assert set(counts.dtypes.astype(str)) == {"float64"}
