"""Every cause that can be staged live: what to change, and what else truly follows from it.

A fault changes settings of the app, conditions of the provider, habits of the users or the network between app and
provider. Nothing that a check can see names the fault.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from perfnb.demo.faults import costs, database, slow, vectors
from perfnb.demo.faults.fault import Fault
from perfnb.errors import WrongUse

__all__ = ["FAULTS", "Fault", "merged", "named"]

FAULTS: Mapping[str, Fault] = {fault.cause: fault for area in (slow, costs, database, vectors) for fault in area.FAULTS}


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
