"""Ask the provider for an embedding on the proxy's own account, in the name of a call's caller; it is recorded too."""

import base64
import re
from array import array

import orjson

from perfnb.errors import NotReachable
from perfnb.prompts.prompt import as_json
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.passthrough import PassThrough
from perfnb.sources.traffic.policies.call import Call

_ENDING = re.compile(r"/(chat/completions|completions|responses|messages)/?\Z")
_DEPLOYMENT = re.compile(r"/deployments/[^/]+")


async def embedding(server: PassThrough, call: Call, model: str, text: str) -> bytes:
    """Return the embedding of ``text`` as 32-bit floats; raises NotReachable or UPSTREAM_ERRORS."""
    exchange = server.begin_attempt(call.exchange)
    exchange.path = _DEPLOYMENT.sub(f"/deployments/{model}", _ENDING.sub("/embeddings", exchange.path))
    exchange.asked, exchange.notes = b"", {"asked_by": "response_cache"}
    body = as_json({"model": model, "input": text, "encoding_format": "base64"}).encode()
    headers = {**call.who, "content-type": "application/json", "accept-encoding": "identity"}
    try:
        answer = await server.fetch(exchange, body, headers)
        return _vector(answer, exchange)
    except BaseException as error:
        exchange.end, exchange.error = "broken" if exchange.status is None else "complete", type(error).__name__
        raise
    finally:
        server.end(exchange, exchange.end)


def _vector(answer: bytes, exchange: Exchange) -> bytes:
    if exchange.status != 200:
        raise NotReachable(f"the embeddings endpoint answered {exchange.status}", hint="name another embedding_model")
    given = orjson.loads(answer)["data"][0]["embedding"]
    return base64.b64decode(given) if isinstance(given, str) else array("f", given).tobytes()
