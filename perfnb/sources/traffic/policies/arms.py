"""The proxy's state: one policy for every call, or one an arm of a trial, and which arm a call belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Self

from perfnb.errors import WrongUse
from perfnb.sources.traffic.policies.settings import policy_of

OFF: Mapping[str, Any] = {"base": {}, "arms": None, "label": None}
"""The state in which every call passes untouched."""
ARMS = ("A", "B")


def arm_of(trial: str, trace_id: str) -> str:
    """Return the arm, "A" or "B", that a trace belongs to in a trial: the same anywhere, half of the traces each."""
    digest = blake2b(trace_id.lower().encode(), key=trial.encode()[:64], digest_size=1).digest()
    return ARMS[digest[0] & 1]


@dataclass(frozen=True)
class State:
    """What the proxy does: ``slots`` are policies by "" (base) or "TRIAL/ARM"; ``trial`` splits by trace where set."""

    given: Mapping[str, Any]
    slots: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trial: str | None = None
    label: str | None = None

    @classmethod
    def of(cls, given: Any) -> Self:
        """Return the state that ``given`` describes; raises WrongUse with what is wrong."""
        if not isinstance(given, Mapping) or not set(given) <= set(OFF):
            raise WrongUse("the proxy's state can't be read", hint="it takes base, arms and label")
        given = {**OFF, **given}
        slots = {"": policy_of(given["base"])}
        trial = None
        if given["arms"] is not None:
            trial = _trial(given["arms"], "policies")
            policies = given["arms"]["policies"]
            if not isinstance(policies, Mapping) or set(policies) != set(ARMS):
                raise WrongUse("arms need a policy for A and one for B", hint="{} is no change")
            slots |= {f"{trial}/{arm}": policy_of(policy) for arm, policy in policies.items()}
        label = None
        if given["label"] is not None:
            label = f"{_trial(given['label'], 'arm')}/{given['label']['arm']}"
        return cls(given, slots, trial, label)

    @property
    def is_off(self) -> bool:
        """Tell whether every call passes untouched and unmarked."""
        return not self.trial and not self.label and not any(self.slots.values())

    def slot(self, trace_id: str | None) -> str:
        """Return the slot whose policy holds for a call of this trace."""
        return f"{self.trial}/{arm_of(self.trial, trace_id)}" if self.trial and trace_id else ""

    def arm(self, trace_id: str | None) -> str | None:
        """Return what the call is marked with: "TRIAL/ARM", or None."""
        return self.slot(trace_id) or self.label

    def __str__(self) -> str:
        if self.is_off:
            return "no policy"
        texts = [", ".join(self.slots[""])] if self.slots[""] else []
        texts += [f"{slot}: {', '.join(policy) or 'no policy'}" for slot, policy in self.slots.items() if slot]
        return "; ".join([*texts, f"calls marked {self.label}"] if self.label else texts)

    def shown(self) -> dict[str, Any]:
        """Return the state for the timeline: no text of a prompt in it."""
        shown = dict(self.given)
        shown["base"] = without_texts(shown["base"] or {})
        if shown["arms"]:
            policies = {arm: without_texts(policy or {}) for arm, policy in shown["arms"]["policies"].items()}
            shown["arms"] = {**shown["arms"], "policies": policies}
        return shown


def without_texts(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``policy`` with the length of a system prompt in the place of its text."""
    shown = dict(policy)
    if text := (shown.get("system_prompt") or {}).get("replace"):
        shown["system_prompt"] = {"replace": f"({len(text)} characters)"}
    return shown


def _trial(given: Any, needs: str) -> str:
    trial = given.get("trial") if isinstance(given, Mapping) else None
    if not isinstance(trial, str) or not 0 < len(trial) <= 64 or needs not in given:
        raise WrongUse("a trial's state can't be read", hint=f"it takes trial, a short name, and {needs}")
    return trial
