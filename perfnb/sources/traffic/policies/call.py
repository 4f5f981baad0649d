"""A call under way, and who makes it: what is kept of one caller's calls is never given to another."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from aiohttp import web

from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.policies.body import Body

TENANT = (
    "authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "openai-organization", "openai-project",
    "openai-beta", "anthropic-version", "anthropic-beta", "http-referer",
)  # fmt: skip
"""Headers that say who calls, for whom, and in which protocol."""


@dataclass
class Call:
    """A call under way: ``data`` is None where its body is left to pass, ``body`` where it can't be read."""

    request: web.BaseRequest
    exchange: Exchange
    data: bytes | None = None
    body: Body | None = None

    @property
    def who(self) -> dict[str, str]:
        """Return the headers that the proxy needs to ask in the caller's name."""
        headers = self.request.headers
        return {name: headers[name] for name in TENANT if name in headers}


def digest(secret: bytes, *parts: str | bytes | Mapping[str, str]) -> str:
    """Return a keyed digest of ``parts``: nobody can tell from it what went in."""
    hashed = blake2b(key=secret[:64], digest_size=16)
    for part in parts:
        text = repr(sorted(part.items())) if isinstance(part, Mapping) else part
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()
