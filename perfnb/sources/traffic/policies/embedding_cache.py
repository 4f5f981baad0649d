"""Embed each text once: texts that were embedded before are answered from memory, only the others are sent.

A text is known by the model, dimensions and encoding asked for, the path, and the caller. Where every text is known the
provider is not asked, and the usage in the answer is 0; else the usage is what the provider counted for the others.
Inputs given as token numbers pass untouched.

Source: A11, E49, R26; X17, X73 (the key must hold the model and be stable)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from perfnb.prompts.digest import VOLATILE
from perfnb.prompts.prompt import as_json
from perfnb.sources.traffic.encoding import UnknownEncoding, plain
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.policies.call import Call, digest
from perfnb.sources.traffic.policies.settings import EmbeddingCache
from perfnb.sources.traffic.policies.store import Store, store


@dataclass
class Texts:
    """The texts of one call, the key of each, and what is known: the JSON of its embedding."""

    texts: Sequence[str]
    keys: Sequence[str]
    known: Sequence[bytes | None]

    @property
    def missing(self) -> list[int]:
        """Return the numbers of the texts that are not known."""
        return [number for number, known in enumerate(self.known) if known is None]


class EmbeddingStore:
    """The cache of one policy."""

    def __init__(self, settings: EmbeddingCache, secret: bytes) -> None:
        self._secret = secret
        self._store: Store = store(settings.entries, settings.ttl_s, settings.redis)

    async def close(self) -> None:
        """Let go of connections."""
        await self._store.close()

    async def find(self, call: Call) -> Texts | None:
        """Return the texts to embed and what is known of them; None where the call holds no texts."""
        texts = _texts(call)
        if texts is None or call.body is None:
            return None
        said = {name: value for name, value in call.body.values.items() if name not in VOLATILE and name != "input"}
        place = f"{call.exchange.path}?{call.exchange.query}"
        scope = digest(self._secret, place, call.who, as_json(said))
        keys = ["text:" + digest(self._secret, scope, text) for text in texts]
        return Texts(texts, keys, [await self._store.get(key) for key in keys])

    async def keep(self, texts: Texts, numbers: Sequence[int], exchange: Exchange) -> None:
        """Keep the embeddings in ``exchange``, which are of the texts of these ``numbers``."""
        for number, found in zip(numbers, embeddings(exchange, len(numbers)), strict=False):
            await self._store.put(texts.keys[number], found)


def embeddings(exchange: Exchange, count: int) -> list[bytes]:
    """Return the embeddings of an answer in order, as JSON; none where it is not whole or not of ``count``."""
    body = _answer_json(exchange)
    data = body.get("data") if isinstance(body, dict) else None
    if exchange.status != 200 or not isinstance(data, list) or len(data) != count:
        return []
    found = {each.get("index"): each.get("embedding") for each in data if isinstance(each, dict)}
    if set(found) != set(range(count)) or not all(found.values()):
        return []
    return [orjson.dumps(found[number]) for number in range(count)]


def whole_answer(texts: Texts, model: Any) -> bytes:
    """Return the answer to a call whose texts are all known."""
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return orjson.dumps({"object": "list", "data": _data(texts.known), "model": model, "usage": usage})


def merged(texts: Texts, exchange: Exchange) -> bytes | None:
    """Return the upstream's answer with the known embeddings put in; None where it holds not what was asked."""
    missing = texts.missing
    came = embeddings(exchange, len(missing))
    if not came:
        return None
    fresh = dict(zip(missing, came, strict=True))
    values = [known or fresh[number] for number, known in enumerate(texts.known)]
    return orjson.dumps({**_answer_json(exchange), "data": _data(values)})


def _data(values: Sequence[bytes | None]) -> list[dict[str, Any]]:
    return [
        {"object": "embedding", "index": number, "embedding": orjson.Fragment(value or b"null")}
        for number, value in enumerate(values)
    ]


def _texts(call: Call) -> list[str] | None:
    given = call.body.values.get("input") if call.body is not None else None
    texts = [given] if isinstance(given, str) else given
    are_texts = isinstance(texts, list) and bool(texts) and all(isinstance(text, str) for text in texts)
    return texts if are_texts else None


def _answer_json(exchange: Exchange) -> Any:
    encoding = exchange.response_headers.get("content-encoding", "")
    try:
        return orjson.loads(b"".join(part for _, part in plain([(0.0, b"".join(exchange.answer))], encoding)))
    except (ValueError, UnknownEncoding):
        return None
