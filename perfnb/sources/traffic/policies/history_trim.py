"""Keep the last messages of a conversation; system prompt and question always stay.

Source: A18, D13, D17 (keep the system message and the last N)
"""

from typing import Any

from perfnb.prompts.prompt import read_prompt
from perfnb.sources.traffic.policies.body import Body
from perfnb.sources.traffic.policies.settings import HistoryTrim

_SYSTEM = ("system", "developer")


def trim_history(body: Body, settings: HistoryTrim) -> None:
    """Drop the oldest messages before the last question until at most ``settings.messages`` are left.

    What is left begins with a user's message: no tool's result without its call, and Anthropic takes nothing else.
    """
    name = "input" if body.operation == "responses" else "messages"
    items = body.values.get(name)
    if body.operation not in ("chat", "responses") or not isinstance(items, list):
        return
    roles = [_role(item, body.path, name) for item in items]
    if "user" not in roles:
        return
    question = len(roles) - 1 - roles[::-1].index("user")
    history = [number for number in range(question) if roles[number] not in _SYSTEM]
    if len(history) <= settings.messages:
        return
    start = _first_kept(roles, history, question, settings.messages)
    dropped = {number for number in history if number < start}
    body.set(name, [item for number, item in enumerate(items) if number not in dropped])


def _first_kept(roles: list[str], history: list[int], question: int, count: int) -> int:
    kept = history[len(history) - count :]
    return next((number for number in kept if roles[number] == "user"), question)


def _role(item: Any, path: str, name: str) -> str:
    """Return an item's role as the package reads it: a tool's result that Anthropic sends as the user's is "tool"."""
    messages = read_prompt({name: [item]}, path).messages if isinstance(item, dict) else ()
    return messages[0].role if messages else ""
