"""A call is tried again where that can help, after the wait the provider asked for, and not by everybody at once.

Mends: no-retry, rate-limited, retry-amplification
Needs: tenacity, openai
Source: C52, E28; tenacity manual (wait_exception, stop_before_delay); RFC 9110 (Retry-After)
Unlike the guides: a wrong key or a bad request is not tried again; the client's own retries are off, as 3 attempts
    around its 3 make 9; openai.Timeout is a setting and is never raised (APITimeoutError is).
Costs: up to three times the wait in the worst case. Where the client's own retries are enough, use one_client instead,
    never both.
"""

from typing import Any

import tenacity
from openai import APIConnectionError, APIStatusError, AsyncOpenAI


def is_transient(error: BaseException) -> bool:
    """Tell whether the same call may well succeed later."""
    if isinstance(error, APIStatusError):
        may_pass = error.status_code in (408, 409, 429) or error.status_code >= 500
        return may_pass and error.code != "insufficient_quota"
    return isinstance(error, APIConnectionError)


def asked_s(error: BaseException) -> float:
    """Return the seconds the provider asks to wait, 0 where it says nothing."""
    said = error.response.headers.get("retry-after", "") if isinstance(error, APIStatusError) else ""
    return float(said) if said.replace(".", "", 1).isdecimal() else 0


@tenacity.retry(
    retry=tenacity.retry_if_exception(is_transient),
    wait=tenacity.wait_exception(asked_s) + tenacity.wait_random_exponential(multiplier=0.5, max=20),
    stop=tenacity.stop_after_attempt(3) | tenacity.stop_before_delay(60),
    reraise=True,
)
async def ask(client: AsyncOpenAI, **request: Any) -> Any:
    """Return the completion; raises the last error where three attempts, or a minute, are not enough."""
    return await client.with_options(max_retries=0).chat.completions.create(**request)
