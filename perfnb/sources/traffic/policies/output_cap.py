"""Let no answer be longer than so many tokens.

Source: A13, X10; OpenAI API reference (max_completion_tokens), Anthropic API reference (max_tokens, budget_tokens)
"""

from collections.abc import Mapping

from perfnb.prompts.prompt import whole
from perfnb.sources.traffic.policies.body import Body
from perfnb.sources.traffic.policies.settings import OutputCap

_NAMES = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "text_completion": ("max_tokens",),
}
_KNOW_COMPLETION_TOKENS = ("openai", "azure")


def cap(body: Body, settings: OutputCap, provider: str = "") -> None:
    """Lower the cap that ``body`` sets, or set one; a lower one stays, and so does one that reasoning needs."""
    names = _NAMES.get(body.operation, ())
    if not names or _thinks_longer(body, settings.max_tokens):
        return
    given = [name for name in names if whole(body.values.get(name)) is not None]
    for name in given:
        body.set(name, min(body.values[name], settings.max_tokens))
    if not given:
        is_newer = provider in _KNOW_COMPLETION_TOKENS and not body.is_anthropic
        body.set(names[0] if is_newer else names[-1], settings.max_tokens)


def _thinks_longer(body: Body, limit: int) -> bool:
    """Tell whether Anthropic would refuse the cap: it must be above the budget for thinking."""
    thinking = body.values.get("thinking")
    return isinstance(thinking, Mapping) and (whole(thinking.get("budget_tokens")) or 0) >= limit
