"""Every slow cause that can be staged live: what to change, and what else truly follows from it.

A fault changes settings of the app, conditions of the provider, habits of the users or the network between app and
provider. Nothing that a check can see names the fault.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from perfnb.errors import WrongUse


@dataclass(frozen=True)
class Fault:
    """One staged cause.

    Attributes:
        app: Settings of the app to change (:class:`perfnb.demo.app.settings.Settings`).
        provider: Conditions of the provider (:class:`perfnb.demo.provider.conditions.Conditions`).
        workload: Habits of the users (:class:`perfnb.demo.workload.Habits`).
        network: The way between app and provider (:class:`perfnb.demo.network.Way`).
        begins_at: Part of the run after which the provider's conditions set in.
        consequences: Causes that are truly present too when this one is.
        note: What is done, in a sentence.
    """

    cause: str
    area: str
    note: str
    app: Mapping[str, Any] = field(default_factory=dict)
    provider: Mapping[str, Any] = field(default_factory=dict)
    workload: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    begins_at: float = 0
    consequences: tuple[str, ...] = ()


_SLOW = (
    Fault(
        "no-streaming",
        "slow",
        "Long answers are asked for in one piece.",
        app={"stream": False, "answer_words": 220},
    ),
)

FAULTS: Mapping[str, Fault] = {fault.cause: fault for fault in _SLOW}


def named(causes: Iterable[str]) -> tuple[Fault, ...]:
    """Return the faults of these causes; raises WrongUse for one that can't be staged."""
    wanted = tuple(causes)
    if unknown := [cause for cause in wanted if cause not in FAULTS]:
        raise WrongUse(f"no fault for {', '.join(unknown)}", hint=f"there are {', '.join(sorted(FAULTS))}")
    return tuple(FAULTS[cause] for cause in wanted)


def merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the changes of several faults together; raises WrongUse where two want different things."""
    together: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if together.setdefault(name, value) != value:
                raise WrongUse(f"two faults set {name} differently", hint="stage them one at a time")
    return together
