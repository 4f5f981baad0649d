"""Offer only some of the tools that a call offers.

Source: OpenAI and Anthropic API references (tools, tool_choice)
"""

from typing import Any

from perfnb.sources.traffic.policies.body import Body
from perfnb.sources.traffic.policies.settings import ToolSubset

_CHOICES = {"tools": ("tool_choice", "parallel_tool_calls"), "functions": ("function_call",)}


def keep_tools(body: Body, settings: ToolSubset) -> None:
    """Take out the tools that are not named; with none left the settings about tools go too.

    Anthropic refuses a conversation with tool calls in it and no tools: there the tools stay.
    """
    for name, choices in _CHOICES.items():
        tools = body.values.get(name)
        if not isinstance(tools, list):
            continue
        kept = [tool for tool in tools if _name(tool) in settings.names]
        if kept:
            body.set(name, kept)
            _mend_choice(body, choices[0], settings)
        elif not (body.is_anthropic and any(message.tool_calls for message in body.prompt.messages)):
            body.remove(name, *choices)


def _mend_choice(body: Body, choice: str, settings: ToolSubset) -> None:
    given = body.values.get(choice)
    if isinstance(given, dict) and (name := _name(given)) and name not in settings.names and name not in _KINDS:
        body.remove(choice)


_KINDS = ("auto", "any", "none", "tool", "allowed_tools")


def _name(tool: Any) -> str:
    """Return a tool's name as the provider knows it: a server's own tool goes by its type."""
    if not isinstance(tool, dict):
        return ""
    inner = tool.get("function") or tool.get("custom")
    named = (inner if isinstance(inner, dict) else tool).get("name")
    return str(named or tool.get("type") or "")
