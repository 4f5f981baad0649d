"""Changes that can be estimated: what each one is, what it can be set to, and what it predicts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from perfnb.errors import WrongUse
from perfnb.finding import Estimate, Finding
from perfnb.recording import Recording

if TYPE_CHECKING:
    import pandas as pd

FAMILIES = (
    "caching", "semantic", "prefix", "routing", "prompts", "answers", "calls", "provider_tiers", "indexing", "spilling",
    "searching", "connections",
)  # fmt: skip
"""Modules of this package whose import registers changes, in the order in which they are listed."""

Setting = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One thing a change can be set to.

    A number has ``low``, ``high`` and ``step``; a choice has ``choices``; a text or a function has neither. A default of
    None means that the recording decides: the prediction's setting tells what was taken.
    """

    name: str
    title: str
    default: Any
    unit: str = ""
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def checked(self, value: Any) -> Any:
        """Return ``value``; raises WrongUse where this parameter can't take it."""
        if value is None and self.default is None:
            return value
        if self.choices and value not in self.choices:
            raise WrongUse(f"{self.name} can't be {value!r}", hint=f"one of {', '.join(map(str, self.choices))}")
        if self.low is not None and self.high is not None:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not self.low <= value <= self.high:
                raise WrongUse(
                    f"{self.name} can't be {value!r}", hint=f"from {self.low:g} to {self.high:g} {self.unit}"
                )
        return value


@dataclass(frozen=True)
class Prediction:
    """What a change would have done to the recorded traffic.

    Attributes:
        change: Name of the change.
        setting: What it was set to, with what the recording decided filled in; ``Change.policy`` takes it.
        effects: One estimate a metric: request_usd (mean), request_duration_ms and time_to_first_token_ms (medians),
            input_tokens and output_tokens (means), all per user request, and hit_rate. A metric about which nothing
            can be said is left out.
        examined: What was looked at, in words.
        frame: Rows that show it: pairs a cache would have taken for the same, prompts that are cut most …
    """

    effects: tuple[Estimate, ...]
    examined: str
    assumptions: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()
    frame: "pd.DataFrame | None" = field(default=None, compare=False, repr=False)
    setting: Setting = field(default_factory=dict)
    change: str = ""

    def effect(self, metric: str) -> Estimate | None:
        """Return the estimate for ``metric``, None where nothing can be said about it."""
        return next((each for each in self.effects if each.metric == metric), None)

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction as data that JSON can hold, without the frame."""
        setting = {name: getattr(value, "__name__", value) for name, value in self.setting.items()}
        return {
            "change": self.change,
            "setting": setting,
            "effects": [each.as_dict() for each in self.effects],
            "examined": self.examined,
            "assumptions": list(self.assumptions),
            "not_modelled": list(self.not_modelled),
        }


Policy = Callable[[Setting], Mapping[str, Any] | None]
Function = Callable[..., Prediction]


@dataclass(frozen=True)
class Change:
    """One registered change; ``causes`` are the findings it is a remedy for, best first."""

    name: str
    title: str
    causes: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    function: Function
    policy: Policy | None = None

    def setting(self, given: Setting) -> dict[str, Any]:
        """Return ``given`` with defaults filled in; raises WrongUse for a name or a value that makes no sense."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                names = ", ".join(known) or "none"
                raise WrongUse(f"{self.name} has no parameter {name!r}", hint=f"there are: {names}")
        return {name: each.checked(given.get(name, each.default)) for name, each in known.items()}

    def predict(self, recording: Recording, given: Setting) -> Prediction:
        """Return what the change would have done; raises NotMeasured where the recording can't tell."""
        setting = self.setting(given)
        with recording.held():
            made = self.function(recording, **setting)
        return replace(made, change=self.name, setting={**setting, **made.setting})


_REGISTRY: dict[str, Change] = {}


def change(
    name: str,
    *,
    title: str,
    causes: tuple[str, ...],
    parameters: tuple[Parameter, ...] = (),
    policy: Policy | None = None,
) -> Callable[[Function], Function]:
    """Register a function ``(recording, **setting) -> Prediction`` as the change ``name``."""

    def register(function: Function) -> Function:
        if name in _REGISTRY and _REGISTRY[name].function.__module__ != function.__module__:
            raise WrongUse(f"two changes are called {name!r}", hint="rename one of them")
        _REGISTRY[name] = Change(name, title, causes, parameters, function, policy)
        return function

    return register


def changes() -> tuple[Change, ...]:
    """Return all changes that can be estimated."""
    _load()
    return tuple(_REGISTRY.values())


def change_named(name: str) -> Change:
    """Return the change ``name``; raises WrongUse where there is none."""
    _load()
    if name not in _REGISTRY:
        raise WrongUse(f"no change {name!r}", hint=f"one of {', '.join(_REGISTRY)}")
    return _REGISTRY[name]


def changes_for(findings: Iterable[Finding]) -> tuple[Change, ...]:
    """Return the changes that are remedies for ``findings``: those for the largest share first, each once."""
    ranked = sorted(findings, key=lambda finding: (-finding.share, finding.cause))
    fitting = [
        each
        for finding in ranked
        for each in sorted(changes(), key=lambda one: _place(one, finding.cause))
        if finding.cause in each.causes
    ]
    return tuple({each.name: each for each in fitting}.values())


def predict(recording: Recording, name: str, **setting: Any) -> Prediction:
    """Return what the change ``name`` would have done to the traffic of ``recording``.

    Raises WrongUse for an unknown change or setting, and NotMeasured where the recording can't tell.
    """
    return change_named(name).predict(recording, setting)


def _place(one: Change, cause: str) -> int:
    return one.causes.index(cause) if cause in one.causes else len(one.causes)


@cache
def _load() -> None:
    for family in FAMILIES:
        import_module(f"perfnb.estimates.{family}")
