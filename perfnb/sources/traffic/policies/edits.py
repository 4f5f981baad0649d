"""Every policy that changes the body, in the order they are applied; one that fails leaves the body as it was."""

from collections.abc import Callable, Mapping
from typing import Any

from perfnb.sources.traffic.policies.body import Body
from perfnb.sources.traffic.policies.context_trim import trim_context
from perfnb.sources.traffic.policies.history_trim import trim_history
from perfnb.sources.traffic.policies.output_cap import cap
from perfnb.sources.traffic.policies.route import route
from perfnb.sources.traffic.policies.settings import KINDS
from perfnb.sources.traffic.policies.system_prompt import replace_system
from perfnb.sources.traffic.policies.tool_subset import keep_tools

Edit = Callable[[Body, Any], None]


def edits(provider: str) -> Mapping[str, Edit]:
    """Return the edits for calls to ``provider`` by the name of their policy, in the order of KINDS."""
    known: Mapping[str, Edit] = {
        "route": route,
        "system_prompt": replace_system,
        "history_trim": trim_history,
        "context_trim": trim_context,
        "tool_subset": keep_tools,
        "output_cap": lambda body, settings: cap(body, settings, provider),
    }
    return {name: known[name] for name in KINDS if name in known}


def edited(
    body: Body, policy: Mapping[str, Any], known: Mapping[str, Edit], failed: Callable[[str, Exception], None]
) -> tuple[Body, list[str]]:
    """Return the body as ``policy`` wants it and the names of the policies that changed it."""
    applied = []
    for name, edit in known.items():
        if name not in policy:
            continue
        changed = body.copy()
        try:
            edit(changed, policy[name])
            differs = changed.encoded() != body.encoded()
        except Exception as error:  # whatever is wrong: the call goes on without this policy
            failed(name, error)
            continue
        applied += [name] if differs else []
        body = changed
    return body, applied
