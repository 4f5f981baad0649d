from pathlib import Path
from typing import Any

import pytest
from builders import Row, call, embedding
from cost_calls import DIGESTER, asked, found, judged, of_model, priced, text

from perfnb.areas.costs.caching import embedded_texts, lost_prefixes
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding


def embedded(at_ms: float, *texts: Any, **columns: Any) -> Row:
    """Return a call that embeds these texts, or lists of token numbers."""
    body = {"input": list(texts), "model": "vectors"}
    tokens = sum(len(each) if isinstance(each, list) else -(-len(each) // 4) for each in texts)
    digested = DIGESTER.request(body, "/v1/embeddings") | of_model("vectors", input_tokens=tokens)
    return embedding(at_ms, 50, **(digested | columns))


PAGES = [text(f"page {number}", 3000) for number in range(12)]


def synced(rounds: int, pages: int = 4, **columns: Any) -> list[Row]:
    return [embedded(n * 1000, *PAGES[:pages], **columns) for n in range(rounds)]


@pytest.mark.parametrize(
    ("calls", "is_found"),
    [
        (synced(8), True),
        (synced(8, source="span"), True),
        (synced(3, pages=12), True),
        (synced(3), False),  # eight texts again: too few
        ([embedded(n * 1000, PAGES[n]) for n in range(12)], False),
        ([embedded(n, *PAGES[:4]) for n in range(8)], False),  # all at once: none was known yet
        ([row | {"error_type": "server_error"} for row in synced(8)], False),
        ([*synced(8), *[call(n * 900, **of_model("grand")) for n in range(40)]], False),  # not worth it
    ],
)
def test_no_embedding_cache(tmp_path: Path, calls: list[Row], is_found: bool) -> None:
    others = [call(90_000, 500, **of_model("mini", input_tokens=10))]
    assert isinstance(judged(tmp_path, "no-embedding-cache", calls=calls + others), Finding) is is_found


def test_repeats_are_what_they_cost(tmp_path: Path) -> None:
    finding = found(tmp_path, "no-embedding-cache", calls=synced(8))
    assert finding.share == pytest.approx(7 / 8, abs=0.01)


def test_token_numbers_of_the_same_length_are_different_texts(tmp_path: Path) -> None:
    calls = [embedded(n * 1000, [n * 512 + at for at in range(512)]) for n in range(20)]
    assert isinstance(judged(tmp_path, "no-embedding-cache", calls=calls), Clear)


def test_token_numbers_sent_again_are_told_by_the_request(tmp_path: Path) -> None:
    calls = [embedded(n * 1000, list(range(512))) for n in range(20)]
    assert isinstance(judged(tmp_path, "no-embedding-cache", calls=calls), Finding)


def test_another_model_needs_vectors_of_its_own(tmp_path: Path) -> None:
    rows = [embedded(0, "a text"), embedded(1000, "a text", **of_model("fine-vectors")), embedded(2000, "a text")]
    assert embedded_texts(priced(tmp_path, calls=rows))["is_again"].tolist() == [False, False, True]


def test_embedded_texts_nobody_saw_are_not_judged(tmp_path: Path) -> None:
    calls = [embedding(n * 1000, source="span", request_digest=None) for n in range(20)]
    with pytest.raises(NotMeasured):
        judged(tmp_path, "no-embedding-cache", calls=calls)


RULES = text("house rules", 1500)


def chats(count: int = 12, *, first: str = "It is {n} o'clock.", rules: str = RULES, **columns: Any) -> list[Row]:
    return [
        asked(n * 3000, ("system", f"{first.format(n=n)} {rules}"), ("user", text(n, 40)), **columns)
        for n in range(count)
    ]


def session(turns: int, *, passages_first: bool, **columns: Any) -> list[Row]:
    """Return turns of a long conversation, with retrieved text before it or after it."""
    said = [("user" if n % 2 else "assistant", text(f"said {n}", 150)) for n in range(10 + turns)]
    rows = []
    for turn in range(turns):
        system, own = ("system", text(f"found {turn}", 600)), ("user", text(f"asked {turn}", 20))
        talk = said[: 10 + turn]
        rows.append(asked(turn * 3000, *([system, *talk, own] if passages_first else [*talk, system, own]), **columns))
    return rows


@pytest.mark.parametrize(
    ("calls", "is_found"),
    [
        (chats(), True),
        (chats(source="span"), True),
        (chats(first="Answer kindly."), False),  # the same from the start: the provider's business
        (chats(first="Answer kindly.", cache_read_tokens=1408), False),
        (chats(4), False),
        (chats(rules=text("house rules", 600)), False),  # under what providers cache at all
        (chats(first="Be brief. " * 30 + "It is {n} o'clock."), True),  # the difference is 300 characters in
        (chats(first="Be brief. " * 1200 + "It is {n} o'clock."), False),  # where, nobody can tell
        ([row for n in range(12) for row in chats(1, rules=text(f"rules {n}", 1500))], False),  # nothing in common
        (session(10, passages_first=True), True),
        (session(10, passages_first=False), False),
        (session(10, passages_first=False, cache_read_tokens=1500), False),
        ([row | {"start_time": row["start_time"] + n * 10**12} for n, row in enumerate(chats())], False),  # too rare
    ],
)
def test_unstable_prompt_prefix(tmp_path: Path, calls: list[Row], is_found: bool) -> None:
    assert isinstance(judged(tmp_path, "unstable-prompt-prefix", calls=calls), Finding) is is_found


def test_the_loss_is_the_text_both_have_after_the_difference(tmp_path: Path) -> None:
    lost = lost_prefixes(priced(tmp_path, calls=chats()))
    assert lost["lost_tokens"].median() == pytest.approx(1500, rel=0.1)


def test_each_model_is_reckoned_up_by_its_own_sample(tmp_path: Path) -> None:
    """Forty calls of one model are looked at by halves, ten of another all."""
    made = priced(tmp_path, calls=[*chats(40), *chats(10, **of_model("grand"))])
    sampled = lost_prefixes(made, most_calls=20)
    assert sampled.groupby("model")["stands_for"].unique().map(list).to_dict() == {"grand": [1], "mini": [2]}
    lost = lost_prefixes(made).groupby("model")["lost_tokens"].sum()
    reckoned = (sampled["lost_tokens"] * sampled["stands_for"]).groupby(sampled["model"]).sum()
    assert reckoned.to_dict() == pytest.approx(lost.to_dict(), rel=0.1)


def test_retrieved_passages_are_no_lost_prefix(tmp_path: Path) -> None:
    """The same passages come back for like questions, behind instructions that carry the time."""
    passages = "\n\n".join(f"[{n}] Title {n}\n{text(f'passage {n}', 400)}" for n in range(1, 5))
    assert isinstance(judged(tmp_path, "unstable-prompt-prefix", calls=chats(rules=f"\n\n{passages}")), Clear)


def test_a_model_whose_cached_input_is_no_cheaper_loses_nothing(tmp_path: Path) -> None:
    assert isinstance(judged(tmp_path, "unstable-prompt-prefix", calls=chats(**of_model("middling"))), Clear)


def test_prefixes_are_judged_without_prices(tmp_path: Path) -> None:
    calls = chats(**of_model("unheard-of"))
    assert found(tmp_path, "unstable-prompt-prefix", calls=calls, prices=[]).usd_per_day is None


@pytest.mark.parametrize("missing", ["messages", "cache_read_tokens"])
def test_prefixes_nobody_saw_are_not_judged(tmp_path: Path, missing: str) -> None:
    with pytest.raises(NotMeasured):
        judged(tmp_path, "unstable-prompt-prefix", calls=chats(source="span", **{missing: None}))
