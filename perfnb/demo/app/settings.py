"""Everything the app can be told, in one place; ``/optimization/configure`` changes it while it runs."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, TypeVar, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Settings:
    """The app's settings.

    Attributes:
        stream: Whether model calls are streamed.
        answer_words: Length the model is asked for; 0 asks for full detail.
        max_tokens: Output cap of an answer; 0 sets none.
        reasoning_effort: Sent to reasoning models; empty sends nothing.
        timeout_s: Read timeout of a model call.
        max_retries: Retries by the client library.
        attempts: Attempts by the app itself, around the library's.
        count_usage: Whether streams are asked for their usage.
        client: One client for the app, or a new one for each call.
        candidates: Passages the vector search returns.
        top_k: Passages put into the prompt.
        queries: Ways in which a question is put to the vector search; what each of them finds is put together.
        context: Put passages into the prompt; or the best one and the three longest documents they are from; or the best
            one and its whole document.
        max_context_tokens: Budget of the context, at four characters a token; 0 is no budget.
        rerank: Order passages by shared words here, or ask the ranking service.
        judge: Ask a small model about each passage whether it is relevant.
        history_messages: Messages of history in the prompt; -1 is all there are.
        handbook_characters: How much of the house's handbook stands in the instructions.
        clock: Whether the instructions begin with the time.
        toolbox: Tools the agent offers the model: its own, or all the company has.
        summaries: Summarise documents in the background, one after another.
        plan: One call; four sections one after another, or all at once; or a draft that is checked and revised.
        enable_caching: Keep answers to questions without history.
        cache_embeddings: Keep embeddings, by model and text.
        cache_key: What an answer is kept under: the prompt, or the whole request.
        normalise: How a question is cleaned: by a regular expression, with the shared dictionary, or pairwise.
        moderation: Ask the provider's moderation with its blocking client.
        warm_up: Load what the first request needs at start.
        errors: Tell failures by status, or in the body of a 200.
        start_event: Open the stream before there is anything to say.
        pool: Connections to the database are shared, or made anew for each statement.
        pool_size: Most connections …
        pool_least: … and those that are opened at the start.
        transaction: A statement each, or one that stays open until the answer is complete.
        records: What else is read for each question (:mod:`perfnb.demo.app.records`).
        search: How passages are searched for: all of them; by euclidean distance; or those of one language alone.
        store: Passages of a document are stored together or one by one.
        embed_at_once: Texts in one request for embeddings.
        passage_characters: Length of the passages an uploaded document is cut into.
    """

    model: str = "sim-balanced"
    small_model: str = "sim-small"
    embedding_model: str = "sim-embedding"
    stream: bool = True
    answer_words: int = 50
    max_tokens: int = 500
    reasoning_effort: str = ""
    timeout_s: float = 30
    max_retries: int = 2
    attempts: int = 1
    count_usage: bool = True
    client: Literal["shared", "per call"] = "shared"
    candidates: int = 12
    top_k: int = 4
    queries: int = 1
    context: Literal["passages", "documents", "document"] = "passages"
    max_context_tokens: int = 1500
    rerank: Literal["local", "service"] = "local"
    judge: bool = False
    history_messages: int = 6
    handbook_characters: int = 0
    clock: bool = False
    toolbox: Literal["own", "company"] = "own"
    summaries: bool = False
    plan: Literal["direct", "sections", "sections at once", "checked"] = "direct"
    enable_caching: bool = True
    cache_embeddings: bool = True
    cache_key: Literal["prompt", "request"] = "prompt"
    normalise: Literal["plain", "dictionary", "pairwise"] = "plain"
    moderation: bool = False
    warm_up: bool = True
    errors: Literal["status", "body"] = "status"
    start_event: bool = False
    pool: Literal["shared", "none"] = "shared"
    pool_size: int = 8
    pool_least: int = 2
    transaction: Literal["statement", "whole answer"] = "statement"
    records: Literal[
        "none", "passages", "ratings", "flags", "session", "messages", "words", "volume", "ranking", "statistics"
    ] = "none"
    search: Literal["all", "euclidean", "language"] = "all"
    store: Literal["together", "one by one"] = "together"
    embed_at_once: int = 64
    passage_characters: int = 600

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return the settings of ``DESK_SETTINGS``, JSON; what it does not name keeps its default."""
        return changed(cls(), json.loads(environment.get("DESK_SETTINGS") or "{}"))

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name."""
        return asdict(self)


# names that tuning guides for such apps use
ALIASES = {"max_turn_history": "history_messages"}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fast": {"model": "sim-small", "history_messages": 5, "max_context_tokens": 1000, "top_k": 3},
    "balanced": {"model": "sim-balanced", "history_messages": 6, "max_context_tokens": 1500, "top_k": 4},
    "quality": {"model": "sim-large", "history_messages": 10, "max_context_tokens": 4000, "top_k": 8},
}


S = TypeVar("S", bound=Settings)


def changed(settings: S, changes: Mapping[str, Any]) -> S:
    """Return settings with ``changes`` made; raises ValueError for a name or a value that makes no sense."""
    kinds = get_type_hints(Settings)
    named = {ALIASES.get(name, name): value for name, value in changes.items()}
    for name, value in named.items():
        if name not in kinds:
            raise ValueError(f"no setting {name!r}; there are {', '.join(sorted(kinds))}")
        if not _fits(value, kinds[name]):
            raise ValueError(f"{name} can't be {value!r}")
    return replace(settings, **named)


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind
