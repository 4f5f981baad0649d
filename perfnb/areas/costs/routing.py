"""Which models are paid for which tasks, and what a cheaper one of the same provider would have cost."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from perfnb.areas.dollars import Spending, spending
from perfnb.areas.unseen_embeddings import unless_unseen
from perfnb.attribution.money import prices_of
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.prices.rates import Rates
from perfnb.prices.siblings import Sibling, blended_usd_per_mtok, embedding_siblings, siblings
from perfnb.recording import Recording

HOW_TO_PRICE = "prices of the models used: [[price]] in perfnb.toml"


@dataclass(frozen=True)
class Option:
    """A model that is used, its price, and cheaper models of the same provider, the likeliest choice first."""

    provider: str | None
    model: str
    rates: Rates
    cheaper: tuple[Sibling, ...]

    def saved(self, calls: pd.DataFrame, other: Sibling) -> float:
        """Return what ``calls`` would have cost less with ``other``: the same tokens at its prices."""
        ratio_in = other.rates.input_usd / self.rates.input_usd
        output = calls["output_tokens"].fillna(0) * calls["output_price"]
        ratio_out = other.rates.output_usd / self.rates.output_usd if self.rates.output_usd else 0.0
        return float(((calls["cost"] - output) * (1 - ratio_in) + output * (1 - ratio_out)).sum())


Offer = Callable[..., tuple[Sibling, ...]]
Price = Callable[[Rates], float]


def simple_tasks(spent: Spending, objectives: Objectives) -> pd.DataFrame:
    """Return the answers whose task was simple, as far as numbers tell.

    A short prompt and a short answer that was not cut off, little history, no tools, no pictures and no reasoning
    (rules of A8 and B25, read from tokens as words are not recorded).
    """
    calls = spent.answers
    simple = (
        (calls["input_tokens"] <= objectives.value("context_tokens"))
        & (calls["output_tokens"] <= objectives.value("simple_answer_tokens"))
        & (calls["reasoning_tokens"].fillna(0) == 0)
        & (calls["tools_offered"].fillna(0) == 0)
        & (calls["history_messages"].fillna(0) <= objectives.value("history_messages"))
        & ~calls["has_media"].astype(bool)
        & (calls["finish_reason"].fillna("stop") == "stop")
    )
    return calls[simple]


def options(recording: Recording, calls: pd.DataFrame, offer: Offer, price: Price, *, times: float) -> list[Option]:
    """Return, for each model in ``calls`` that has a price, those of its provider at most a ``times``-th of its price."""
    prices, found = prices_of(recording), []
    for (provider, model), group in calls.groupby(["provider", "model"], dropna=False):
        provider, at_ns = None if pd.isna(provider) else provider, int(group["start_time"].max())
        rates = prices.rates(provider, model, at_ns=at_ns) if not pd.isna(model) else ()
        if rates and price(rates[0]) > 0:
            offered = offer(prices, provider, model, at_ns=at_ns)
            cheaper = tuple(one for one in offered if price(one.rates) * times <= price(rates[0]))
            found.append(Option(provider, model, rates[0], cheaper))
    return found


@check("oversized-model", area="costs")
def oversized_model(
    recording: Recording,
    objectives: Objectives,
    *,
    times_cheaper: float = 4,
    min_share: float = 0.15,
    least_calls: int = 8,
) -> Finding | Clear:
    """Simple tasks go to an expensive model, though the same provider sells one at a fraction of the price (R25).

    Numbers can tell that a task is small, not that a smaller model does it well: a trial has to show that.

    Source: A8, B25, B32, E26
    """
    limit = objectives["model_usd_per_mtok"]
    spent = spending(recording)
    simple = simple_tasks(spent, objectives)
    known = options(recording, spent.answers, siblings, blended_usd_per_mtok, times=times_cheaper)
    if not known:
        raise NotMeasured("no model that answers has a known price", hint=HOW_TO_PRICE)
    dear = [one for one in known if limit.is_missed(blended_usd_per_mtok(one.rates)) and one.cheaper]
    found = [(one, _of(simple, one)) for one in dear if len(_of(simple, one)) >= least_calls]
    saved = sum(one.saved(calls, one.cheaper[0]) for one, calls in found)
    if not found or spent.share(saved) < min_share:
        return Clear(
            f"{len(simple)} of {len(spent.answers)} calls are simple tasks; the dearest model costs "
            f"${max(blended_usd_per_mtok(one.rates) for one in known):.2f} per million tokens (limit {limit.value}), "
            f"and cheaper ones for simple tasks would save {spent.share(saved):.0%} of the dollars"
        )
    option, calls = max(found, key=lambda each: each[0].saved(each[1], each[0].cheaper[0]))
    other, price = option.cheaper[0], blended_usd_per_mtok(option.rates)
    every = sum(len(_of(spent.answers, one)) for one in dear)
    return spent.finding(
        saved,
        miss=limit.miss(price),
        title=f"{sum(len(each) for _, each in found)} of {every} calls to {option.model} are simple tasks",
        evidence=(
            f"{option.model} costs ${price:.2f} per million tokens (three parts input, one part output), {other.model} of the same price list ${blended_usd_per_mtok(other.rates):.2f}; limit {limit.value}",
            f"these tasks: {calls['input_tokens'].median():,.0f} input and {calls['output_tokens'].median():.0f} output tokens (medians), no tools, no reasoning, at most {objectives.value('simple_answer_tokens'):.0f} tokens answered",
            "that the cheaper model answers well enough is not shown here: try it on your own prompts",
        ),
        remedy=f"Route simple tasks to a smaller model, for example {other.model}, and keep {option.model} for the rest; compare the answers in a trial first.",
        effort="medium",
        figure="spend_by_model",
        estimate=spent.estimate(
            max(saved, sum(one.saved(each, one.cheaper[-1]) for one, each in found)),
            saved,
            ("the same tokens at the other model's price",),
            ("quality of the answers", "answers of another length", "the prefix cache warming up again"),
        ),
        frame=calls[["call_id", "model", "input_tokens", "output_tokens", "cost"]].head(50),
        exemplars=tuple(calls.nlargest(3, "cost")["request_id"].dropna()),
    )


def _of(calls: pd.DataFrame, option: Option) -> pd.DataFrame:
    return calls[(calls["model"] == option.model) & (calls["provider"].fillna("") == (option.provider or ""))]


@check("costly-embedding-model", area="costs")
def costly_embedding_model(
    recording: Recording,
    objectives: Objectives,
    *,
    times_cheaper: float = 3,
    min_share: float = 0.1,
    least_calls: int = 5,
) -> Finding | Clear:
    """Texts are embedded by a model that costs a multiple of another one of the same provider (R31).

    Judged by dollars alone; that larger vectors also cost storage and search time is for the database to show.

    Source: E24
    """
    spent = spending(recording)
    calls = spent.embeddings
    if calls.empty:
        return unless_unseen(recording, Clear("no text was embedded"))
    known = options(recording, calls, embedding_siblings, lambda rates: rates.input_usd, times=times_cheaper)
    if not known:
        raise NotMeasured("no embedding model has a known price", hint=HOW_TO_PRICE)
    found = [(one, _of(calls, one)) for one in known if one.cheaper and len(_of(calls, one)) >= least_calls]
    saved = sum(one.saved(each, one.cheaper[0]) for one, each in found)
    part = spent.share(float(calls["cost"].sum()))
    if not found or spent.share(saved) < min_share:
        return Clear(
            f"embeddings are {part:.1%} of the dollars; a cheaper model would save {spent.share(saved):.1%} of them"
        )
    option, each = max(found, key=lambda one: one[0].saved(one[1], one[0].cheaper[0]))
    other = option.cheaper[0]
    return spent.finding(
        saved,
        miss=option.rates.input_usd / other.rates.input_usd / times_cheaper * 1.5,
        title=f"{option.model} costs {option.rates.input_usd / other.rates.input_usd:.1f} times as much as {other.model}",
        evidence=(
            f"${option.rates.input_usd * 1e6:.3g} against ${other.rates.input_usd * 1e6:.3g} per million tokens; {each['input_tokens'].sum():,.0f} tokens were embedded in {len(each)} calls",
            f"embeddings are {part:.0%} of the dollars",
            "whether the dearer vectors find more is not shown here: measure recall on questions of your own",
        ),
        remedy=f"Measure retrieval with {other.model} on your own questions; where it finds as much, embed everything anew with it (stored vectors of two models can't be mixed).",
        effort="medium",
        figure="spend_by_model",
        frame=each[["call_id", "model", "inputs", "input_tokens", "cost"]].head(50),
        exemplars=tuple(each.nlargest(3, "cost")["request_id"].dropna()),
    )
