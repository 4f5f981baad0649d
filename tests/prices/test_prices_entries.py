"""Prices somebody wrote down: exact figures, order of authority, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from perfnb.errors import WrongUse
from perfnb.prices import Prices, Rates, cost

AT_NS = 1_790_000_000_000_000_000
LOCAL = {"model": "local-*", "input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0}


def toml(folder: Path, *entries: dict[str, Any]) -> Path:
    lines = []
    for entry in entries:
        lines.append("[[price]]")
        lines += [f"{name} = {value!r}".replace("'", '"') for name, value in entry.items()]
    (folder / "perfnb.toml").write_text("\n".join(lines) + "\n")
    return folder


def only(rates: tuple[Rates, ...]) -> Rates:
    (one,) = rates
    return one


def test_figures_are_exact(tmp_path: Path) -> None:
    given = LOCAL | {"cache_read_usd_per_mtok": 0.5, "cache_write_usd_per_mtok": 2.5, "request_usd": 0.01}
    rates = Prices.load(toml(tmp_path, given)).rates("anyone", "local-7b", at_ns=AT_NS)
    paid = cost(rates, 1_000_000, 100_000, cache_read_tokens=400_000, cache_write_tokens=200_000)
    assert (paid.input_usd, paid.cache_read_usd, paid.cache_write_usd, paid.output_usd, paid.request_usd) == (
        pytest.approx((0.8, 0.2, 0.5, 0.8, 0.01))
    )
    assert paid.total_usd == pytest.approx(2.31)
    assert only(rates).source == "perfnb.toml [[price]]: local-*"


def test_cached_tokens_cost_plain_input_where_no_price_is_given() -> None:
    rates = only(Prices.load(Path("/nowhere"), [LOCAL]).rates(None, "local-7b", at_ns=AT_NS))
    assert rates.input_usd == rates.cache_read_usd == rates.cache_write_usd == 2e-6


@pytest.mark.parametrize(
    ("tier", "part"), [(None, 1.0), ("default", 1.0), ("batch", 0.4), ("flex", 1.0), ("BATCH", 0.4)]
)
def test_the_batch_discount_is_for_the_batch_tier(tier: str | None, part: float) -> None:
    prices = Prices.load(Path("/nowhere"), [LOCAL | {"batch_discount": 0.6}])
    assert only(prices.rates(None, "local-7b", at_ns=AT_NS, tier=tier)).output_usd == pytest.approx(8e-6 * part)


def test_the_users_price_goes_before_the_recordings_before_the_lists(tmp_path: Path) -> None:
    recorded = [{"model": "gpt-5*", "input_usd_per_mtok": 3.0, "output_usd_per_mtok": 3.0}]
    own = {"model": "gpt-5-mini", "input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
    prices = Prices.load(toml(tmp_path, own), recorded)
    found = {model: only(prices.rates("openai", model, at_ns=AT_NS)).input_usd for model in ("gpt-5-mini", "gpt-5")}
    assert found == pytest.approx({"gpt-5-mini": 1e-6, "gpt-5": 3e-6})
    assert "after 2 prices given by hand" in prices.version
    assert only(prices.rates("openai", "gpt-4o", at_ns=AT_NS)).source.startswith("genai-prices")


def test_a_price_for_the_model_asked_for_goes_before_the_lists_for_the_one_that_answered() -> None:
    prices = Prices.load(Path("/nowhere"), [{"model": "prod-7", "input_usd_per_mtok": 9, "output_usd_per_mtok": 9}])
    assert only(prices.rates("azure", "gpt-4o", asked_for="prod-7", at_ns=AT_NS)).input_usd == pytest.approx(9e-6)


def test_the_first_entry_that_fits_counts_and_a_provider_narrows() -> None:
    entries = [
        {"model": "gpt-4o", "provider": "azure", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1},
        {"model": "GPT-*", "input_usd_per_mtok": 2, "output_usd_per_mtok": 2},
        {"model": "gpt-4o", "input_usd_per_mtok": 3, "output_usd_per_mtok": 3},
    ]
    prices = Prices.load(Path("/nowhere"), entries)
    found = [
        only(prices.rates(provider, "gpt-4o", at_ns=AT_NS)).input_usd * 1e6
        for provider in ("azure", "azure.ai.openai", "openai", None)
    ]
    assert found == pytest.approx([1, 1, 2, 2])


def test_a_negotiated_discount_comes_off_the_list_price(tmp_path: Path) -> None:
    plain = Prices().rates("anthropic", "claude-sonnet-4-5", at_ns=AT_NS)
    less = Prices.load(toml(tmp_path, {"model": "claude-*", "discount": 0.15})).rates(
        "anthropic", "claude-sonnet-4-5", at_ns=AT_NS
    )
    assert len(less) == len(plain) > 1
    for one, other in zip(less, plain, strict=True):
        assert one.input_usd == pytest.approx(other.input_usd * 0.85)
        assert one.cache_write_1h_usd == pytest.approx((other.cache_write_1h_usd or 0) * 0.85)
        assert one.from_tokens == other.from_tokens
        assert "less 0.15" in one.source


def test_a_discount_comes_off_the_recordings_price_too_and_gives_an_unknown_model_none(tmp_path: Path) -> None:
    prices = Prices.load(toml(tmp_path, {"model": "*", "discount": 0.5}), [LOCAL])
    assert only(prices.rates(None, "local-7b", at_ns=AT_NS)).input_usd == pytest.approx(1e-6)
    assert prices.rates(None, "unheard-of", at_ns=AT_NS) == ()


def test_without_a_file_the_list_alone_counts(tmp_path: Path) -> None:
    assert Prices.load(tmp_path) == Prices()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"input_usd_per_mtok": 1, "output_usd_per_mtok": 1}, "names no model"),
        ({"model": ""}, "names no model"),
        ({"model": 7, "discount": 0.1}, "names no model"),
        ({"model": "m"}, "neither complete"),
        ({"model": "m", "input_usd_per_mtok": 1}, "neither complete"),
        ({"model": "m", "output_usd_per_mtok": 1}, "neither complete"),
        ({"model": "m", "discount": 0.1, "input_usd_per_mtok": 1, "output_usd_per_mtok": 1}, "neither complete"),
        ({"model": "m", "discount": 0.1, "batch_discount": 0.1}, "neither complete"),
        (LOCAL | {"input_usd": 3}, "no setting 'input_usd'"),
        (LOCAL | {"input_usd_per_mtok": -1}, "input_usd_per_mtok of local-* is -1"),
        (LOCAL | {"input_usd_per_mtok": "2"}, "is '2'"),
        (LOCAL | {"input_usd_per_mtok": True}, "is True"),
        (LOCAL | {"output_usd_per_mtok": float("nan")}, "is nan"),
        (LOCAL | {"request_usd": float("inf")}, "is inf"),
        ({"model": "m", "discount": 1.5}, "discount of m is 1.5"),
        (LOCAL | {"batch_discount": 50}, "batch_discount of local-* is 50"),
        ("m", "names no model"),
    ],
)
def test_nonsense_is_refused_with_a_hint(entry: Any, said: str) -> None:
    with pytest.raises(WrongUse) as refused:
        Prices.load(Path("/nowhere"), [entry])
    assert said in refused.value.message
    assert refused.value.hint


def test_a_table_instead_of_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "perfnb.toml").write_text('[price]\nmodel = "m"\ndiscount = 0.1\n')
    with pytest.raises(WrongUse, match="two brackets"):
        Prices.load(tmp_path)
