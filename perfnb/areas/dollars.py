"""What the recording's model calls cost, and what part of it a cause explains; by tokens where no price is known.

Checks weigh tokens by each call's own prices, so that shares add up to the provider's bill. Where none of the calls
has a price, tokens are weighed by how prices usually relate, and every finding says so.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from perfnb.attribution import GENERATING, HOW_TO_SEE_CALLS, observed_seconds, request_count
from perfnb.attribution.money import prepare_money, prices_of
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Estimate, Finding
from perfnb.objectives import severity
from perfnb.prices import Prices
from perfnb.recording import Recording

# How the prices of most models relate (genai-prices 0.2.3: medians of chat models that name all three), used only
# where a recording's models have no price: cached input costs a quarter of fresh input, output four times it.
CACHED_WEIGHT = 0.25
OUTPUT_WEIGHT = 4.0

DAY_S = 86_400

MOST_CALLS = 100_000
"""Beyond so many calls a part of the requests stands for all."""


@dataclass(frozen=True)
class Spending:
    """What all calls of a recording cost.

    ``calls`` has a row a call: the columns of ``model_calls`` without texts, system_passage_tokens and has_media, and in
    dollars (else in weighed tokens) cost, fresh_price, cached_price and output_price a token. ``total`` is the sum of
    cost. Of very many calls they are those of every ``one_in``-th request, chosen by hash: parts of the total are the
    same, and what is told in dollars is reckoned up.
    """

    calls: pd.DataFrame
    total: float
    is_priced: bool
    requests: int
    seconds: float
    unpriced_calls: int
    one_in: int = 1

    @property
    def answers(self) -> pd.DataFrame:
        """Return the calls that generated text and succeeded."""
        calls = self.calls
        return calls[calls["operation"].isin(GENERATING) & calls["error_type"].isna()]

    @property
    def embeddings(self) -> pd.DataFrame:
        """Return the embeddings calls that succeeded."""
        calls = self.calls
        return calls[(calls["operation"] == "embeddings") & calls["error_type"].isna()]

    def share(self, cost: float) -> float:
        """Return ``cost`` as a part (0 to 1) of what all calls cost."""
        return float(min(1.0, max(0.0, cost) / self.total)) if self.total > 0 else 0.0

    def per_request(self, cost: float) -> float | None:
        """Return ``cost`` per user request in dollars; None where nothing has a price."""
        return float(cost) * self.one_in / self.requests if self.is_priced and self.requests else None

    def per_day(self, cost: float) -> float | None:
        """Return ``cost`` a day in dollars, at the rate of this recording; None where nothing has a price."""
        return float(cost) * self.one_in / self.seconds * DAY_S if self.is_priced and self.seconds > 0 else None

    def told(self, cost: float) -> str:
        """Return what ``cost`` comes to, in words."""
        per_request, per_day = self.per_request(cost), self.per_day(cost)
        if per_request is None or per_day is None:
            return f"{self.share(cost):.0%} of all tokens, output weighed {OUTPUT_WEIGHT:.0f} times: none of the models has a known price"
        left_out = f"; {self.unpriced_calls} calls have no known price and are left out" if self.unpriced_calls else ""
        if self.one_in > 1:
            left_out += f"; judged on one request in {self.one_in}"
        return f"${cost * self.one_in:.4g} of ${self.total * self.one_in:.4g} recorded, ${per_request:.3g} per request, ${per_day:,.2f} a day at this rate{left_out}"

    def estimate(
        self, most: float, least: float, assumptions: tuple[str, ...], not_modelled: tuple[str, ...] = ()
    ) -> Estimate | None:
        """Return what a request would cost were ``least`` to ``most`` of the total saved; None where nothing has a price."""
        before, much, little = (self.per_request(cost) for cost in (self.total, most, least))
        if before is None or much is None or little is None:
            return None
        return Estimate("request_usd", before, before - much, before - little, assumptions, not_modelled)

    def finding(
        self,
        cost: float,
        *,
        miss: float,
        title: str,
        evidence: Iterable[str],
        remedy: str,
        **more: Any,
    ) -> Finding:
        """Return a finding about ``cost``, its dollars told last in its evidence."""
        share = self.share(cost)
        return Finding(
            title=title,
            severity=severity(miss, share),
            share=share,
            evidence=(*evidence, self.told(cost)),
            remedy=remedy,
            symptom="cost",
            usd_per_request=self.per_request(cost),
            usd_per_day=self.per_day(cost),
            **more,
        )


def spending(recording: Recording) -> Spending:
    """Return what the calls of ``recording`` cost; raises NotMeasured where there are no calls or no token counts."""
    recording.require("llm_calls")
    found: Spending = prepare_money(recording).derived("spending", lambda: _spending(recording))
    if found.calls.empty:
        raise NotMeasured("no model calls", hint=HOW_TO_SEE_CALLS)
    if found.total <= 0:
        raise NotMeasured(
            "no call tells its tokens", hint="usage: record through the proxy (--upstream), or GenAI spans with usage"
        )
    return found


def in_dollars(recording: Recording, cost: Callable[[], float]) -> dict[str, Any]:
    """Return ``usd_per_request`` and ``usd_per_day`` of ``cost``, for findings about the wait; empty where unknown."""
    try:
        spent, amount = spending(recording), cost()
    except NotMeasured:
        return {}
    return {"usd_per_request": spent.per_request(amount), "usd_per_day": spent.per_day(amount)}


def unless_it_costs(clear: Clear, judge: Callable[[], Finding | Clear]) -> Finding | Clear:
    """Return what ``judge`` finds in dollars, else ``clear``, which was said of the wait."""
    try:
        found = judge()
    except NotMeasured:
        return clear
    return found if isinstance(found, Finding) else clear


_CALLS = """
SELECT m.* EXCLUDE (response_text, attributes, messages, response_sketch),
       coalesce(m.response_model, m.request_model) AS model,
       CAST(json_extract(m.attributes, '$.tools') AS VARCHAR) AS tool_names,
       json_extract_string(m.messages, '$[0].opening') AS opening,
       json_extract_string(m.messages, '$[0].role') IN ('system', 'developer') AS begins_with_system,
       coalesce(CAST(m.messages AS VARCHAR) LIKE '%"other_parts":%', false) AS has_media,
       p.cost_usd, p.input_usd, p.cache_read_usd, p.output_usd
FROM model_calls m JOIN priced_calls p ON p.call_id = m.call_id
WHERE hash(coalesce(m.request_id, m.call_id)) % $one_in = 0
ORDER BY m.start_time, m.call_id
"""


def _spending(recording: Recording, most_calls: int = MOST_CALLS) -> Spending:
    one_in = math.ceil(int(recording.query("SELECT count(*) AS n FROM priced_calls")["n"].iloc[0]) / most_calls) or 1
    calls = _plain_numbers(recording.query(_CALLS, {"one_in": one_in}))
    is_priced = bool(calls["cost_usd"].fillna(0).sum() > 0)
    calls = _with_prices(calls, prices_of(recording)) if is_priced else _with_weights(calls)
    calls["kind"] = _kinds(calls)
    unpriced = int((calls["cost_usd"].isna() & calls["error_type"].isna()).sum()) if is_priced else 0
    total = float(calls["cost"].sum())
    requests, seconds = request_count(recording), observed_seconds(recording)
    return Spending(calls, total, is_priced, requests, seconds, unpriced * one_in, one_in)


def _plain_numbers(calls: pd.DataFrame) -> pd.DataFrame:
    """Return ``calls`` with token counts as floats: a column with gaps may come as nullable integers, which mix badly."""
    names = [name for name in calls if str(name).endswith("_tokens") or name in _COUNTS]
    return calls.assign(**{name: pd.to_numeric(calls[name]).to_numpy(float, na_value=float("nan")) for name in names})


_COUNTS = ("tools_offered", "history_messages", "inputs", "passages", "temperature")


def _fresh(calls: pd.DataFrame) -> pd.Series:
    written = calls["cache_write_tokens"].fillna(0)
    return (calls["input_tokens"].fillna(0) - calls["cache_read_tokens"].fillna(0) - written).clip(lower=0)


def _with_prices(calls: pd.DataFrame, prices: Prices) -> pd.DataFrame:
    """Add what a token of each kind cost in each call; where a call had none of a kind, its model's price list tells."""
    per = {
        "fresh_price": calls["input_usd"] / _fresh(calls).where(lambda tokens: tokens > 0),
        "cached_price": calls["cache_read_usd"] / calls["cache_read_tokens"].where(lambda tokens: tokens > 0),
        "output_price": calls["output_usd"] / calls["output_tokens"].where(lambda tokens: tokens > 0),
    }
    calls = calls.assign(cost=calls["cost_usd"].fillna(0.0))
    listed = _listed(calls, prices)
    for name, price in per.items():
        calls[name] = price.fillna(listed[name]).fillna(0.0)
    return calls


def _listed(calls: pd.DataFrame, prices: Prices) -> pd.DataFrame:
    """Return the price list's fresh_price, cached_price and output_price for short prompts of each call's model."""
    keys = ["provider", "response_model", "request_model", "service_tier"]
    named = calls[keys].astype("string").fillna("").assign(start_time=calls["start_time"])
    models = named.groupby(keys)["start_time"].max().reset_index()
    rates = []
    for provider, answered, asked, tier, at_ns in models.itertuples(index=False):
        found = prices.rates(
            provider or None, answered or None, at_ns=at_ns, tier=tier or None, asked_for=asked or None
        )
        rates.append((found[0].input_usd, found[0].cache_read_usd, found[0].output_usd) if found else (None,) * 3)
    names = ["fresh_price", "cached_price", "output_price"]
    models[names] = pd.DataFrame(rates, columns=names, dtype=float)
    return named.merge(models[[*keys, *names]], on=keys, how="left").set_index(calls.index)[names]


def _with_weights(calls: pd.DataFrame) -> pd.DataFrame:
    cost = _fresh(calls) + CACHED_WEIGHT * calls["cache_read_tokens"].fillna(0)
    cost += OUTPUT_WEIGHT * calls["output_tokens"].fillna(0)
    return calls.assign(cost=cost, fresh_price=1.0, cached_price=CACHED_WEIGHT, output_price=OUTPUT_WEIGHT)


def _kinds(calls: pd.DataFrame) -> pd.Series:
    """Return which calls are of one kind: operation, model, tools, and the beginning of a system prompt many share."""
    tools = calls["tools_offered"].fillna(0).astype(int).astype(str)
    plain = calls["operation"].fillna("") + "|" + calls["model"].fillna("") + "|" + tools
    opening = calls["opening"].where(calls["begins_with_system"].fillna(False).astype(bool), None).fillna("")
    alike = opening.groupby([plain, opening]).transform("size")
    enough = (0.05 * plain.groupby(plain).transform("size")).clip(lower=3)
    return plain + "|" + opening.where(alike >= enough, "")
