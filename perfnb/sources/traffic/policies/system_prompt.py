"""Put another system prompt in the place of the one sent; a call without one stays as it is.

Source: A5 (compact prompts)
"""

from typing import Any

from perfnb.sources.traffic.policies.body import Body
from perfnb.sources.traffic.policies.settings import SystemPrompt

_ROLES = ("system", "developer")


def replace_system(body: Body, settings: SystemPrompt) -> None:
    """Replace the system prompt: Anthropic's ``system``, the responses API's ``instructions``, or the first messages.

    Several system messages in a row at the beginning become one; later ones stay.
    """
    for name in ("system", "instructions"):
        if body.values.get(name):
            body.set(name, _said(body.values[name], settings.replace))
            return
    name = "input" if body.operation == "responses" else "messages"
    messages = body.values.get(name)
    if isinstance(messages, list) and (count := _leading(messages)):
        first = {**messages[0], "content": _said(messages[0].get("content"), settings.replace)}
        body.set(name, [first, *messages[count:]])


def _leading(messages: list[Any]) -> int:
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            return number
    return len(messages)


def _said(content: Any, text: str) -> Any:
    """Return ``text`` in the shape ``content`` has; the last block keeps what else it says, a cache mark for one."""
    if isinstance(content, list) and content and isinstance(content[-1], dict) and "text" in content[-1]:
        return [{**content[-1], "text": text}]
    return text
