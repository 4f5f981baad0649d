"""Tools of the company that an agent may offer to the model, most of which no question ever needs."""

from typing import Any

_THINGS = {
    "ticket": "support ticket",
    "customer": "customer account",
    "order": "order",
    "invoice": "invoice",
    "refund": "refund request",
    "shipment": "shipment",
    "subscription": "subscription",
    "meeting": "calendar meeting",
    "document_page": "page of the company wiki",
    "incident": "production incident",
}
_ACTIONS = {
    "get": "Return all fields of one {thing}, including its history of changes and who made them",
    "update": "Change the fields of one {thing} and notify everybody who follows it",
    "comment_on": "Add a comment to one {thing}; mentions of colleagues are turned into notifications",
    "close": "Close one {thing} with a reason; it can be opened again by its owner within thirty days",
}


def tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    """Return a tool as the chat protocol describes it; all its properties are required."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def _company_tool(action: str, thing: str) -> dict[str, Any]:
    name = _THINGS[thing]
    return tool(
        f"{action}_{thing}",
        _ACTIONS[action].format(thing=name),
        **{f"{thing}_id": {"type": "string", "description": f"Identifier of the {name}, as shown in its web address"}},
        reason={"type": "string", "description": "Why this is done, in a sentence that the audit log can quote"},
        notify={"type": "array", "items": {"type": "string"}, "description": "Addresses of people to tell about it"},
        priority={
            "type": "string",
            "enum": ["low", "normal", "high"],
            "description": "How soon it has to be looked at",
        },
    )


COMPANY_TOOLS = tuple(_company_tool(action, thing) for thing in _THINGS for action in _ACTIONS)
