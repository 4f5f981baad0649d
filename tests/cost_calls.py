"""Calls whose prompts were really digested, and recordings that bring a price list along."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builders import Row, call, recording

from perfnb.checklist import checks
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.prompts.digest import Digester, prompt_tokens, scale_tokens
from perfnb.recording import Recording

DIGESTER = Digester(b"cost tests")
WORDS = [f"word{number}" for number in range(4000)]

PRICES = [
    {"model": "mini", "input_usd_per_mtok": 0.4, "cache_read_usd_per_mtok": 0.1, "output_usd_per_mtok": 1.6},
    {"model": "grand", "input_usd_per_mtok": 5, "cache_read_usd_per_mtok": 0.5, "output_usd_per_mtok": 25},
    {"model": "middling", "input_usd_per_mtok": 2, "output_usd_per_mtok": 8},
    {"model": "vectors", "input_usd_per_mtok": 0.02, "output_usd_per_mtok": 0},
    {"model": "fine-vectors", "input_usd_per_mtok": 0.13, "output_usd_per_mtok": 0},
]


def text(seed: object, tokens: int) -> str:
    """Return prose of about so many tokens that shares nothing with that of another seed."""
    rng = random.Random(str(seed))
    said: list[str] = []
    while sum(map(len, said)) + len(said) < tokens * 4:
        said.append(rng.choice(WORDS))
    return " ".join(said)[: tokens * 4]


def asked(at_ms: float, *messages: tuple[str, str], tools: Sequence[Any] = (), **columns: Any) -> Row:
    """Return a call with these messages (role, text), seen by the proxy unless told otherwise."""
    body: dict[str, Any] = {"messages": [{"role": role, "content": said} for role, said in messages]}
    digested = DIGESTER.request(body | ({"tools": list(tools)} if tools else {}), "/v1/chat/completions")
    digested = scale_tokens(digested, columns.get("input_tokens") or prompt_tokens(digested))
    tokens = {"input_tokens": prompt_tokens(digested), "request_model": "mini", "response_model": "mini"}
    model = {"response_model": columns["request_model"]} if "request_model" in columns else {}
    return call(at_ms, 800, **(digested | tokens | model | columns))


def of_model(model: str, **columns: Any) -> dict[str, Any]:
    """Return the columns of a call to ``model``."""
    return {"request_model": model, "response_model": model} | columns


def priced(folder: Path, *, prices: Any = PRICES, **tables: Any) -> Recording:
    """Return a recording with a price list; pass none for models that nobody can price."""
    made = recording(folder, **tables)
    made.manifest["prices"] = prices
    return made


def judged(folder: Path, cause: str, *, area: str = "costs", prices: Any = PRICES, **tables: Any) -> Finding | Clear:
    """Return what the check for ``cause`` says, as ``area`` sees it."""
    one = next(each for each in checks() if each.cause == cause)
    function = one.also.get(area, one.function)
    return function(priced(folder, prices=prices, **tables), Objectives.load(folder))


def found(folder: Path, cause: str, **given: Any) -> Finding:
    """Return the finding; fails where there is none."""
    answer = judged(folder, cause, **given)
    assert isinstance(answer, Finding), answer
    return answer
