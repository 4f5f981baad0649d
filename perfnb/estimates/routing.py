"""Another model for the calls that need no large one."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd

from perfnb.errors import NotMeasured, WrongUse
from perfnb.estimates.change import Parameter, Prediction, Setting, change
from perfnb.estimates.dollars import usd_as
from perfnb.estimates.effects import ON_PATH, Outcome, effects, priced_note
from perfnb.estimates.speed import LEAST_CALLS, speeds
from perfnb.estimates.traffic import Traffic, traffic
from perfnb.prices.siblings import siblings
from perfnb.prompts.sketch import words
from perfnb.recording import Recording

Choose = Callable[[Mapping[str, Any]], str | None]

SHORT, QUESTION = "short prompt", "short question"
QUESTION_WORDS = 20
"""A8: fewer words than this and a question mark are taken for a simple question."""


def _policy(setting: Setting) -> Mapping[str, Any] | None:
    if setting["rule"] != SHORT or setting["choose"] is not None or not setting["to"]:
        return None
    rule = {"from": setting["from_model"], "max_input_tokens": setting["max_input_tokens"], "to": setting["to"]}
    return {"route": {"rules": [rule]}}


@change(
    "route",
    title="Send simple prompts to a cheaper model",
    causes=("oversized-model", "slow-model"),
    parameters=(
        Parameter("to", "Cheaper model", None),
        Parameter("from_model", "In place of (may hold *)", None),
        Parameter("rule", "Simple is a", SHORT, choices=(SHORT, QUESTION)),
        Parameter("max_input_tokens", "Short: input tokens up to", 500, "tokens", 1, 1_000_000, 50),
        Parameter("choose", "Or a function: the call -> model or None", None),
    ),
    policy=_policy,
)
def route(
    recording: Recording,
    *,
    to: str | None,
    from_model: str | None,
    rule: str,
    max_input_tokens: int,
    choose: Choose | None,
) -> Prediction:
    """Return what another model for simple prompts would have done: the same tokens at its price and its speed.

    By default prompts of the dearest model that are short go to a cheaper one of the same price list. ``choose`` is
    given each call (its columns, and "question" where texts were kept) and returns a model or None.

    Source: A8, B25; X14 (a short question may be hard: look at the split before trusting it)
    """
    seen = traffic(recording)
    calls = seen.sized()
    usual = from_model or _dearest(calls)
    is_from = calls["request_model"].fillna("").map(lambda model: fnmatchcase(model, usual))
    if choose is not None:
        chosen = _by_function(seen, calls, choose)
    else:
        to = to or _cheaper(seen, calls[is_from], usual)
        is_simple = calls["input_tokens"] <= max_input_tokens if rule == SHORT else _is_question(seen, calls)
        chosen = pd.Series(to, calls.index, dtype=object).where(is_from & is_simple, None)
    moved = calls[chosen.notna() & (chosen != calls["request_model"])]
    models = chosen[moved.index]
    times = _times(seen, moved, models)
    names = ", ".join(sorted(set(models))) or "none"
    assumptions = (
        "the same tokens in and out, at the other model's list price",
        "low: the other model's prefix cache reads as much; high: nothing",
        *_told(times is not None, names),
        ON_PATH,
        *priced_note(seen),
    )
    not_modelled = ("quality of the answers: compare them in a trial", "answers of another length, another tokenizer")
    return Prediction(
        effects(
            seen,
            _outcomes(seen, moved, models, times),
            assumptions=assumptions,
            not_modelled=not_modelled,
            tells_latency=times is not None,
        ),
        f"{len(moved)} of {len(calls)} calls would have gone to {names}; they are {_part(moved, seen):.0%} of the dollars",
        assumptions,
        not_modelled,
        moved[["request_id", "model", "input_tokens", "output_tokens", "cost_usd"]].assign(to=models).head(50).reset_index(),
        {"from_model": usual, "to": to},
    )  # fmt: skip


Times = tuple[pd.DataFrame, pd.DataFrame]


def _outcomes(seen: Traffic, moved: pd.DataFrame, models: pd.Series, times: Times | None) -> list[Outcome]:
    """Return the calls at the other models' prices: their caches read as much, and nothing."""
    nothing = pd.DataFrame(index=moved.index)
    return [
        Outcome(wait.assign(usd=_usd(seen, moved, models, reads_cache=reads)))
        for wait, reads in zip(times or (nothing, nothing), (True, False), strict=True)
    ]


def _dearest(calls: pd.DataFrame) -> str:
    """Return the model on which most was spent, by tokens where nothing has a price."""
    weight = calls["cost_usd"].fillna(0)
    weight = weight if weight.sum() > 0 else calls["input_tokens"] + calls["output_tokens"]
    spent = weight.groupby(calls["request_model"]).sum()
    if spent.empty:
        raise NotMeasured("no call names its model", hint="record through the proxy: perfnb record --upstream URL")
    return str(spent.idxmax())


def _by_function(seen: Traffic, calls: pd.DataFrame, choose: Choose) -> pd.Series:
    """Return the model that ``choose`` names for each call, None where it stays."""
    questions = _questions(seen, calls) if seen.recording.content == "full" else {}
    rows = calls.assign(question=pd.Series(questions, dtype=object).reindex(calls.index)).reset_index()
    return pd.Series([choose(row) for row in rows.to_dict("records")], calls.index, dtype=object)


def _cheaper(seen: Traffic, calls: pd.DataFrame, usual: str) -> str:
    """Return the model of the same price list that is most alike in name and costs less."""
    if calls.empty:
        raise WrongUse(
            f"no call asked for {usual!r}", hint="from_model is a name in the recording; * stands for any text"
        )
    last = calls.iloc[-1]
    provider, at_ns = None if pd.isna(last["provider"]) else last["provider"], int(last["start_time"])
    rates = seen.prices.rates(provider, last["model"], at_ns=at_ns, asked_for=last["request_model"])
    offered = siblings(seen.prices, provider, str(last["model"]), at_ns=at_ns) if rates else ()
    for other in offered:
        if other.rates.input_usd < rates[0].input_usd and other.rates.output_usd <= rates[0].output_usd:
            return other.model
    raise NotMeasured(
        f"no cheaper model than {usual} is known", hint="name it: to=…, and its price in perfnb.toml: [[price]]"
    )


def _is_question(seen: Traffic, calls: pd.DataFrame) -> pd.Series:
    if seen.recording.content != "full":
        raise NotMeasured(
            "words of a question are not recorded", hint="perfnb record --content full, or rule='short prompt'"
        )
    texts = pd.Series(_questions(seen, calls), dtype=object).reindex(calls.index).fillna("")
    return texts.map(lambda text: len(words(text)) < QUESTION_WORDS and "?" in text)


def _questions(seen: Traffic, calls: pd.DataFrame) -> dict[str, str]:
    """Return the text of each call's last user message."""
    return {
        call_id: next((entry.get("text") or "" for entry in reversed(messages) if entry["role"] in ("user", "prompt")), "")
        for call_id, messages in seen.messages(calls).items()
    }  # fmt: skip


def _usd(seen: Traffic, moved: pd.DataFrame, models: pd.Series, *, reads_cache: bool) -> pd.Series:
    usd = pd.Series(float("nan"), moved.index)
    for model, calls in moved.groupby(models):
        found = usd_as(seen, calls, model=str(model), reads_cache=reads_cache)
        if seen.is_priced and found.isna().all():
            raise NotMeasured(f"{model} has no known price", hint="give it one in perfnb.toml: [[price]]")
        usd[calls.index] = found
    return usd


def _times(seen: Traffic, moved: pd.DataFrame, models: pd.Series) -> Times | None:
    """Return the most and the least time saved, if the recording shows how fast each of the other models is."""
    known = speeds(seen)
    found = []
    for model, calls in moved.groupby(models):
        for is_stream, group in calls.groupby(calls["time_to_first_token_ms"].notna()):
            fit, pace = known.fits.get((str(model), bool(is_stream))), known.paces.get(str(model))
            if fit is None or (is_stream and pace is None):
                return None
            found.append([_saved(group, *end) for end in zip(fit.times(group), pace or (0.0, 0.0), strict=True)])
    if not found:
        return pd.DataFrame(index=moved.index), pd.DataFrame(index=moved.index)
    return pd.concat([each[0] for each in found]), pd.concat([each[1] for each in found])


def _saved(calls: pd.DataFrame, first: pd.Series, pace: float) -> pd.DataFrame:
    was = calls["time_to_first_token_ms"]
    said = (calls["output_tokens"] - calls["reasoning_tokens"].fillna(0) - 1).clip(lower=0)
    rest = (calls["duration_ms"] - was - pace * said).where(was.notna(), calls["duration_ms"] - first)
    return pd.DataFrame({"wait_ms": (was - first).fillna(0.0), "rest_ms": rest})


def _told(is_known: bool, names: str) -> tuple[str, ...]:
    if is_known:
        return ("the other model is as fast as in its own calls of this recording",)
    return (f"nothing is said about the wait: the recording holds fewer than {LEAST_CALLS} calls to {names}",)


def _part(moved: pd.DataFrame, seen: Traffic) -> float:
    total = float(seen.calls["cost_usd"].sum())
    return float(moved["cost_usd"].sum()) / total if total > 0 else 0.0
