"""The settings of each policy, read from plain JSON and checked where they are set."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar
from urllib.parse import urlsplit

from perfnb.errors import WrongUse


@dataclass(frozen=True)
class ResponseCache:
    """Answers a repeated question without the provider; semantic also one that means nearly the same.

    ``entries`` bounds the memory (an answer takes 256 kB at most); in Redis ``ttl_s`` and Redis' own maxmemory do.
    """

    ttl_s: float = 300
    entries: int = 1000
    mode: str = "exact"
    threshold: float = 0.95
    embedding_model: str = "text-embedding-3-small"
    redis: str | None = None


@dataclass(frozen=True)
class EmbeddingCache:
    """Embeds each text once; ``entries`` bounds the memory, as above."""

    ttl_s: float = 3600
    entries: int = 10_000
    redis: str | None = None


@dataclass(frozen=True)
class Route:
    """Sends calls to another model: the first of ``rules`` that fits, {from, max_input_tokens, to}, decides."""

    rules: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class OutputCap:
    """Lets no answer be longer."""

    max_tokens: int = 300


@dataclass(frozen=True)
class ContextTrim:
    """Keeps the first retrieved passages of a prompt: so many, and so many tokens of them in all."""

    passages: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True)
class HistoryTrim:
    """Keeps the last messages before the question."""

    messages: int = 10


@dataclass(frozen=True)
class SystemPrompt:
    """Puts another system prompt in the place of the one sent."""

    replace: str


@dataclass(frozen=True)
class ToolSubset:
    """Offers only the tools named."""

    names: Sequence[str] = ()


@dataclass(frozen=True)
class Concurrency:
    """Lets so many calls be under way; the others wait."""

    limit: int = 10


@dataclass(frozen=True)
class RateLimit:
    """Starts so many calls in any window of ``per_s``; the others wait (100 a minute: B17)."""

    requests: int = 100
    per_s: float = 60


@dataclass(frozen=True)
class Timeout:
    """Gives a call up: ``total_s`` after it came, or an attempt that said nothing for ``first_token_s``."""

    total_s: float | None = None
    first_token_s: float | None = None


@dataclass(frozen=True)
class Retry:
    """Tries again what failed for a passing reason, after 2, 4, 8 … times ``base_s``, ten at most (C52)."""

    attempts: int = 3
    base_s: float = 1


@dataclass(frozen=True)
class Hedge:
    """Asks a second time when nothing was said after so long, and takes whichever speaks first."""

    after_ms: float = 1500


KINDS: Mapping[str, type] = {
    "response_cache": ResponseCache,
    "embedding_cache": EmbeddingCache,
    "route": Route,
    "system_prompt": SystemPrompt,
    "history_trim": HistoryTrim,
    "context_trim": ContextTrim,
    "tool_subset": ToolSubset,
    "output_cap": OutputCap,
    "concurrency": Concurrency,
    "rate_limit": RateLimit,
    "timeout": Timeout,
    "retry": Retry,
    "hedge": Hedge,
}
"""Every policy by name; edits of the body happen in this order."""


def as_markdown() -> str:
    """Return the page about policies, made from the declarations above."""
    lines = ["# What the LLM proxy can be told to do", "", _INTRODUCTION, ""]
    lines += ["| policy | what it does | settings and what holds where they are left out |", "|---|---|---|"]
    for name, kind in KINDS.items():
        does = " ".join((kind.__doc__ or "").split())
        settings = ", ".join(f"`{field.name}`{_default(field)}" for field in fields(kind))
        lines.append(f"| `{name}` | {does} | {settings} |")
    return "\n".join(lines) + "\n"


_INTRODUCTION = """\
While `perfnb record` runs, policies of its proxy change what goes to the model: for every call, or for one arm of a
trial. The notebooks' *Try a change* sets them; by hand, from any Python process on the same machine:

```python
import perfnb
from perfnb.knobs import all_knobs, change

incident = perfnb.open("incident.perfnb")
knob = all_knobs(incident.recording, incident.target)["llm"]
made = change(incident.recording, knob, {"output_cap": {"max_tokens": 300}, "history_trim": {"messages": 10}})
made.undo()  # or made.keep(); after a crash: perfnb revert incident.perfnb
```

A policy that fails is left out of the call, which goes on as it was sent. Nothing is changed while none is set. Body edits
come in the order of the table. Caches keep no answer across callers with different keys.

Settings of the app itself are knobs, too: `[knob.NAME]` in `perfnb.toml` with `url` (and `set_url`, `method`, `member`,
`whole`, `preset_url`, `presets`, `header_env`), or with `restart = true` the environment of an app that perfnb started."""


def _default(field: Any) -> str:
    return " (needed)" if field.default is MISSING else "" if field.default is None else f" {field.default}"


_WHOLE = ("entries", "max_tokens", "passages", "limit", "requests", "attempts", "max_input_tokens")
_ONE_OF = {"timeout": ("total_s", "first_token_s"), "context_trim": ("passages", "max_tokens")}

P = TypeVar("P")


def policy_of(given: Any) -> dict[str, Any]:
    """Return the settings of each policy that ``given`` names; raises WrongUse with what is wrong."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise WrongUse("a policy is a JSON object", hint='such as {"output_cap": {"max_tokens": 300}}')
    return {name: _made(name, settings) for name, settings in given.items() if settings is not None}


def _made(name: str, given: Any) -> Any:
    kind = KINDS.get(name)
    if kind is None:
        raise WrongUse(f"no policy {name!r}", hint=f"there are {', '.join(KINDS)}")
    known = {field.name for field in fields(kind)}
    if not isinstance(given, Mapping) or not set(given) <= known:
        raise WrongUse(f"{name} can't be {given!r}", hint=f"it takes {', '.join(sorted(known))}")
    given = {key: value for key, value in given.items() if value is not None}
    for key, value in given.items():
        _check(name, key, value)
    if name in _ONE_OF and not set(_ONE_OF[name]) & set(given):
        raise WrongUse(f"{name} limits nothing", hint=f"give {' or '.join(_ONE_OF[name])}")
    try:
        return kind(**given)
    except TypeError:
        raise WrongUse(f"{name} is incomplete", hint=f"it takes {', '.join(sorted(known))}") from None


def _check(name: str, key: str, value: Any) -> None:
    if not _fits(key, value):
        raise WrongUse(f"{name}.{key} can't be {value!r}", hint=f"see {KINDS[name].__name__}: {KINDS[name].__doc__}")
    if key == "rules":
        for rule in value:
            _check_rule(rule)
    if key == "redis" and (urlsplit(value).password or "password=" in value):
        raise WrongUse(
            f"{name}.redis holds a password", hint="leave it out of the address; set PERFNB_REDIS_PASSWORD instead"
        )


def _fits(key: str, value: Any) -> bool:
    match key:
        case "rules" | "names":
            return isinstance(value, list | tuple) and all(isinstance(each, Mapping | str) for each in value)
        case "mode":
            return value in ("exact", "semantic")
        case "threshold":
            return _is_number(value) and 0 < value <= 1
        case "redis":
            return isinstance(value, str) and value.startswith(("redis://", "rediss://", "unix://"))
        case "replace" | "embedding_model":
            return isinstance(value, str) and bool(value)
        case "messages":
            return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return _is_number(value) and value > 0 and (key not in _WHOLE or isinstance(value, int))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_rule(rule: Any) -> None:
    known = {"from", "max_input_tokens", "to"}
    if not isinstance(rule, Mapping) or not set(rule) <= known or not isinstance(rule.get("to"), str):
        raise WrongUse(
            f"route can't have the rule {rule!r}", hint="a rule is {from: glob, max_input_tokens: n, to: model}"
        )
    limit = rule.get("max_input_tokens")
    if not isinstance(rule.get("from", "*"), str) or not (limit is None or _fits("max_input_tokens", limit)):
        raise WrongUse(f"route can't have the rule {rule!r}", hint="from is a glob, max_input_tokens a whole number")
