"""What is heavy to make is made once: one client with its connections, its timeouts and its retries, one tokenizer.

Mends: client-per-request, allocation-churn, cold-start, timeout-too-long, retry-amplification
Needs: openai, tiktoken
Source: B14, C47, C51, E27; OpenAI Python library (max_retries, timeout)
Unlike the guides: a pool of ordinary Python objects rarely helps (show an allocation diff first); what pays is to share
    the few heavy ones. A read timeout counts from byte to byte, so the whole call needs a deadline of its own.
Costs: nothing. The client retries 429 and 5xx by itself, waiting as long as Retry-After asks (up to two minutes): put no
    other retry around it, or attempts multiply. A client belongs to one event loop; close it when the app stops.
"""

import asyncio
from functools import cache
from typing import Any

import tiktoken
from openai import AsyncOpenAI, Timeout


@cache
def client() -> AsyncOpenAI:
    """Return the app's client; its address and key come from OPENAI_BASE_URL and OPENAI_API_KEY."""
    return AsyncOpenAI(timeout=Timeout(30, connect=5), max_retries=2)


@cache
def encoding(name: str = "o200k_base") -> tiktoken.Encoding:
    """Return the tokenizer; loading it takes about a second and many megabytes."""
    return tiktoken.get_encoding(name)


async def ask(*, deadline_s: float = 60, **request: Any) -> Any:
    """Return the completion, retries included; raises TimeoutError after ``deadline_s``."""
    async with asyncio.timeout(deadline_s):
        return await client().chat.completions.create(**request)
