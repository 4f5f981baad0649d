"""The list: names as they come, times, tiers and bands; genai-prices' own calculation is the peer."""

import json
import time
from collections import Counter
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from genai_prices import Usage, calc_price

from perfnb.prices import Prices, band, cost
from perfnb.prices.listed import DOCUMENTED_DISCOUNTS

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
LIST = Prices()


def ns(at: datetime) -> int:
    return int(at.timestamp()) * 10**9


AT_NS = ns(AT)


def peer(provider: str, model: str, at: datetime = AT, context: dict[str, str] | None = None, **usage: int) -> float:
    found = calc_price(Usage(**usage), model, provider_id=provider, genai_request_timestamp=at, price_context=context)
    return float(found.total_price)


def ours(provider: str | None, model: str, at: datetime = AT, tier: str | None = None, **tokens: int) -> float:
    bands = LIST.rates(provider, model, at_ns=ns(at), tier=tier)
    assert bands, (provider, model)
    return cost(bands, tokens.pop("input_tokens"), tokens.pop("output_tokens", 0), **tokens).total_usd


USAGES: list[dict[str, int]] = [
    {"input_tokens": 1000, "output_tokens": 200},
    {"input_tokens": 2006, "cache_read_tokens": 1920, "output_tokens": 300},
    {"input_tokens": 0, "output_tokens": 0},
    {"input_tokens": 90_000, "cache_read_tokens": 10_000, "cache_write_tokens": 40_000, "output_tokens": 1},
]

MODELS = [
    ("openai", "gpt-5-mini"),
    ("openai", "gpt-4o-2024-08-06"),
    ("openai", "text-embedding-3-small"),
    ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc"),
    ("azure", "gpt-4o-2024-08-06"),
    ("azure", "text-embedding-3-large"),
    ("anthropic", "claude-sonnet-4-5-20250929"),
    ("aws", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
    ("aws", "global.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("aws", "amazon.titan-embed-text-v2:0"),
    ("google", "gemini-2.5-pro"),
    ("google", "claude-sonnet-4@20250514"),
    ("openrouter", "openai/gpt-4o"),
    ("mistral", "mistral-large-latest"),
    ("perplexity", "sonar-pro"),
    ("deepseek", "deepseek-chat"),
]


@pytest.mark.parametrize("usage", USAGES)
@pytest.mark.parametrize(("provider", "model"), MODELS)
def test_a_call_costs_what_the_list_says(provider: str, model: str, usage: dict[str, int]) -> None:
    assert ours(provider, model, **usage) == pytest.approx(peer(provider, model, **usage), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("provider", "model", "same_as"),
    [
        ("azure.ai.openai", "gpt-4o-2024-08-06", ("azure", "gpt-4o-2024-08-06")),
        ("azure.ai.inference", "gpt-4o", ("azure", "gpt-4o")),
        ("my-company.openai.azure.com", "gpt-4o", ("azure", "gpt-4o")),
        ("aws.bedrock", "anthropic.claude-sonnet-4-20250514-v1:0", ("aws", "anthropic.claude-sonnet-4-20250514-v1:0")),
        (
            "aws",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-20250514-v1:0",
            ("aws", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
        ),
        ("gcp.vertex_ai", "publishers/google/models/gemini-2.5-pro", ("google", "gemini-2.5-pro")),
        ("gcp.gemini", "models/gemini-2.5-pro", ("google", "gemini-2.5-pro")),
        ("litellm", "openai/gpt-4o", ("openai", "gpt-4o")),
        ("gateway.example.com", "anthropic/claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("openai", "claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("127.0.0.1:8080", "gpt-5-mini", ("openai", "gpt-5-mini")),
        (None, "text-embedding-3-small", ("openai", "text-embedding-3-small")),
        ("x_ai", "grok-4", ("x-ai", "grok-4")),
        ("mistral_ai", "mistral-large-latest", ("mistral", "mistral-large-latest")),
    ],
)
def test_names_as_they_come_find_the_model(provider: str | None, model: str, same_as: tuple[str, str]) -> None:
    usage = {"input_tokens": 5000, "output_tokens": 700}
    assert ours(provider, model, **usage) == pytest.approx(peer(*same_as, **usage))


def test_a_price_from_elsewhere_says_so() -> None:
    (own, *_), (guessed, *_) = (
        LIST.rates(provider, "gpt-5-mini", at_ns=AT_NS) for provider in ("openai", "127.0.0.1:8080")
    )
    assert "127.0.0.1:8080 has none" in guessed.source
    assert own.source == f"genai-prices {genai_prices.__version__}: openai gpt-5-mini"


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "my-own-model"),
        ("my-company.openai.azure.com", "prod-deployment-7"),
        ("localhost:11434", "llama3:8b"),
        ("localhost:11434", "deepseek-r1:8b"),
        ("groq", "gpt-5-mini"),
        (None, "gpt5"),
        (None, ""),
        ("", "?"),
    ],
)
def test_what_nobody_lists_has_no_price(provider: str | None, model: str) -> None:
    assert LIST.rates(provider, model, at_ns=AT_NS) == ()


def test_the_model_that_answered_counts_and_the_one_asked_for_comes_second() -> None:
    def rates(model: str | None, asked_for: str | None) -> Any:
        return LIST.rates("azure", model, asked_for=asked_for, at_ns=AT_NS)

    assert rates("gpt-4o-2024-08-06", "prod-deployment-7") == rates("gpt-4o-2024-08-06", None) != ()
    assert rates("gpt-4o", "gpt-5-mini") == rates("gpt-4o", None)
    assert rates(None, "gpt-5-mini") == rates("renamed-by-gateway", "gpt-5-mini") == rates("gpt-5-mini", None) != ()
    assert rates(None, None) == ()


def banded() -> list[tuple[str, str]]:
    models = [("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro"), ("openai", "gpt-5.4")]
    return [each for each in models if len(LIST.rates(*each, at_ns=AT_NS)) > 1]


@pytest.mark.parametrize(("provider", "model"), banded())
def test_a_whole_call_is_paid_at_its_band_and_the_edge_belongs_below(provider: str, model: str) -> None:
    bands = LIST.rates(provider, model, at_ns=AT_NS)
    assert [each.from_tokens for each in bands] == sorted({each.from_tokens for each in bands})
    for lower, upper in pairwise(bands):
        edge = upper.from_tokens
        assert band(bands, edge) == lower
        assert band(bands, edge + 1) == upper
        for tokens in (edge - 1, edge, edge + 1):
            usage = {"input_tokens": tokens, "output_tokens": 1000, "cache_read_tokens": 500}
            assert ours(provider, model, **usage) == pytest.approx(peer(provider, model, **usage))
        assert upper.input_usd > lower.input_usd


def test_bands_were_found_to_test() -> None:
    assert len(banded()) >= 2


@pytest.mark.parametrize("hour", [0, 1, 3, 4, 6, 9, 12, 16, 17, 23])
@pytest.mark.parametrize("model", ["deepseek-chat", "deepseek-reasoner", "deepseek-flash"])
def test_prices_by_the_hour_hold_at_the_calls_own_time(model: str, hour: int) -> None:
    for minute in (0, 30):
        at = datetime(2026, 11, 20, hour, minute, tzinfo=UTC)
        usage = {"input_tokens": 5000, "output_tokens": 700}
        assert ours("deepseek", model, at, **usage) == pytest.approx(peer("deepseek", model, at, **usage))


def test_a_price_that_changed_holds_from_its_day_on() -> None:
    before, after = datetime(2026, 10, 11, 23, 59, tzinfo=UTC), datetime(2026, 10, 12, tzinfo=UTC)
    usage = {"input_tokens": 5000, "output_tokens": 700}
    priority = {"service_tier": "priority"}
    for at in (before, after):
        assert ours("openai", "gpt-4.1", at, "priority", **usage) == pytest.approx(
            peer("openai", "gpt-4.1", at, priority, **usage)
        )
    assert ours("openai", "gpt-4.1", before, "priority", **usage) < ours(
        "openai", "gpt-4.1", after, "priority", **usage
    )


@pytest.mark.parametrize("tier", ["batch", "flex", "priority"])
def test_a_tier_in_the_list_is_paid_as_listed(tier: str) -> None:
    context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier}
    usage = {"input_tokens": 5000, "cache_read_tokens": 1000, "output_tokens": 700}
    found = ours("openai", "gpt-5-mini", tier=tier, **usage)
    assert found == pytest.approx(peer("openai", "gpt-5-mini", context=context, **usage))
    assert found != pytest.approx(peer("openai", "gpt-5-mini", **usage))


def test_a_tier_that_is_not_listed_takes_the_documented_discount_and_says_so() -> None:
    usage = {"input_tokens": 5000, "output_tokens": 700}
    (rates, *_) = LIST.rates("aws", "us.anthropic.claude-sonnet-4-20250514-v1:0", at_ns=AT_NS, tier="batch")
    standard = ours("aws", "us.anthropic.claude-sonnet-4-20250514-v1:0", **usage)
    assert cost((rates,), 5000, 700).total_usd == pytest.approx(standard * DOCUMENTED_DISCOUNTS["aws", "batch"])
    assert "less the documented 50%" in rates.source


def test_an_unknown_tier_is_standard_and_says_so() -> None:
    (rates, *_) = LIST.rates("anthropic", "claude-sonnet-4-5", at_ns=AT_NS, tier="priority")
    (standard, *_) = LIST.rates("anthropic", "claude-sonnet-4-5", at_ns=AT_NS, tier="standard")
    assert rates.input_usd == standard.input_usd
    assert "no price for tier priority" in rates.source
    assert "tier" not in standard.source


@pytest.mark.parametrize("tier", ["default", "auto", "standard", "", None, "scale"])
def test_standard_tiers_cost_the_standard_price(tier: str | None) -> None:
    assert LIST.rates("openai", "gpt-5-mini", at_ns=AT_NS, tier=tier) == LIST.rates("openai", "gpt-5-mini", at_ns=AT_NS)


def test_one_hour_cache_entries_and_reasoning_apart() -> None:
    usage = {"input_tokens": 10_000, "cache_write_tokens": 9000, "output_tokens": 10}
    mine = ours("anthropic", "claude-sonnet-4-5", **usage, cache_write_1h_tokens=4000)
    theirs = peer("anthropic", "claude-sonnet-4-5", **usage, cache_write_1h_tokens=4000)
    assert mine == pytest.approx(theirs)
    assert mine > ours("anthropic", "claude-sonnet-4-5", **usage)
    deep = {"input_tokens": 1000, "output_tokens": 5000}
    apart = ours("perplexity", "sonar-deep-research", **deep, reasoning_tokens=4000)
    assert apart == pytest.approx(peer("perplexity", "sonar-deep-research", **deep, output_reasoning_tokens=4000))


def test_a_price_a_request_is_paid_once() -> None:
    (rates,) = LIST.rates("perplexity", "sonar", at_ns=AT_NS)
    assert (
        cost((rates,), 0, 0).total_usd
        == rates.request_usd
        == pytest.approx(peer("perplexity", "sonar", input_tokens=0, output_tokens=0))
    )
    assert rates.request_usd > 0


def test_the_version_names_the_package_and_a_date() -> None:
    assert LIST.version.startswith(f"genai-prices {genai_prices.__version__} (prices as of 20")


def test_pricing_reaches_for_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert LIST.rates("openai", "gpt-5.1", at_ns=time.time_ns())
    assert not LIST.rates("nobody.example.com", "unheard-of", at_ns=time.time_ns())


def litellm_prices() -> dict[str, Any] | None:
    spec = find_spec("litellm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "model_prices_and_context_window_backup.json"
        if path.is_file():
            return dict(json.loads(path.read_text()))
    return None


@pytest.mark.skipif(litellm_prices() is None, reason="litellm is not installed")
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_the_makers_own_models_cost_what_litellm_says(provider: str) -> None:
    counts: Counter[str] = Counter()
    for model, entry in (litellm_prices() or {}).items():
        if entry.get("litellm_provider") != provider or entry.get("mode") not in ("chat", "responses", "embedding"):
            continue
        rates = LIST.rates(provider, model, at_ns=time.time_ns())
        if rates and entry.get("input_cost_per_token"):
            theirs = (entry["input_cost_per_token"], entry.get("output_cost_per_token") or 0)
            counts["same" if (rates[0].input_usd, rates[0].output_usd) == pytest.approx(theirs) else "other"] += 1
    assert counts["same"] >= 10
    assert counts["other"] <= 0.05 * counts.total()
