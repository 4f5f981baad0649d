"""What the simulated provider charges, and that its books agree with the prices it publishes."""

import pytest

from perfnb.demo.provider.bill import Bill, Call, Usage
from perfnb.demo.provider.pricing import dollars, price_list
from perfnb.demo.provider.server import MODELS
from perfnb.prices import Prices, cost


def test_every_model_has_a_price() -> None:
    assert set(MODELS) == {entry["model"] for entry in price_list()}


@pytest.mark.parametrize("model", MODELS)
def test_the_published_list_says_what_is_charged(model: str) -> None:
    rates = Prices.load(recorded=price_list()).rates("127.0.0.1", model, at_ns=0)
    charged = dollars(model, input_tokens=3000, cached_tokens=1024, output_tokens=200)
    assert charged == pytest.approx(cost(rates, 3000, 200, cache_read_tokens=1024).total_usd)


def test_failed_calls_cost_nothing_and_models_are_added_up() -> None:
    bill = Bill()
    bill.add(Call("/v1/chat/completions", "sim-balanced", 200, Usage(1_000_000, 0, 1_000_000)))
    bill.add(Call("/v1/chat/completions", "sim-balanced", 500, Usage(1_000_000)))
    bill.add(Call("/v1/embeddings", "sim-embedding", 200, Usage(1_000_000)))
    books = bill.as_dict()
    assert books["models"]["sim-balanced"]["usd"] == pytest.approx(0.40 + 1.60)
    assert books["usd"] == pytest.approx(2.02)


def test_a_model_that_is_not_listed_is_free() -> None:
    assert dollars("unheard-of", input_tokens=10, cached_tokens=0, output_tokens=10) == 0
