"""What can be tried: estimated changes, those that fit the findings first, and the app's own settings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from perfnb.errors import NotReachable
from perfnb.estimates import Change, Parameter, changes, changes_for
from perfnb.finding import Finding
from perfnb.knobs import Knob
from perfnb.knobs.base import all_knobs
from perfnb.recording import Recording
from perfnb.target import Target
from perfnb.try_a_change.database import KNOB, SettingWay, Statements, Way, way_of

Setting = Mapping[str, Any]

LLM = "llm"
"""Name of the knob that holds the proxy's policies."""


@dataclass(frozen=True)
class Choice:
    """One thing that can be tried.

    Attributes:
        title: In words, as it is listed.
        parameters: What it can be set to.
        change: The estimated change; None for a setting of the app, which nothing estimates.
        knob: Name of the knob that does it live; empty where only the estimate can be had.
        causes: The findings present that it is a remedy for.
        setting: The app's setting that is changed, where it is one.
        way: How it is done to a database, where it is a change of one.
    """

    title: str
    parameters: tuple[Parameter, ...]
    change: Change | None = None
    knob: str = ""
    causes: tuple[str, ...] = ()
    setting: str = ""
    way: Way | None = None

    @property
    def name(self) -> str:
        """Return what tells it from the others."""
        return self.change.name if self.change else f"{self.knob}.{self.setting}"

    def estimated(self, given: Setting) -> Setting:
        """Return ``given`` as the estimated change takes it; raises NotMeasured where nothing is known of it."""
        if self.way is None:
            return given
        return self.way.estimated({each.name: each.default for each in self.parameters} | dict(given))

    def value(self, given: Setting, now: Any) -> Any:
        """Return the knob's value for ``given`` on top of what holds ``now``; None where no knob can do it."""
        if self.change is None:
            return {self.setting: given[self.setting]}
        policy = self.change.policy(given) if self.change.policy else None
        return None if policy is None else {**(now or {}), **policy}


def choices(recording: Recording, target: Target, findings: Iterable[Finding]) -> tuple[Choice, ...]:
    """Return what can be tried, remedies of ``findings`` first, those of the largest share before others."""
    found = tuple(findings)
    named = {finding.cause for finding in found}
    fitting = changes_for(found)
    rest = [each for each in changes() if each not in fitting]
    estimated = [_estimated(each, recording, found, named) for each in (*fitting, *rest)]
    # those of the database that nothing found asks for stand after those of the model calls
    estimated.sort(key=lambda each: each.way is not None and not each.causes)
    return (*estimated, *_of_database(recording), *_settings(all_knobs(recording, target)))


def _estimated(each: Change, recording: Recording, found: tuple[Finding, ...], named: set[str]) -> Choice:
    way = way_of(each.name, each.parameters, recording, found)
    return Choice(
        each.title,
        way.parameters if way else tuple(parameter for parameter in each.parameters if _can_be_shown(parameter)),
        each,
        KNOB if way else LLM if each.policy else "",
        tuple(cause for cause in each.causes if cause in named),
        way=way,
    )


def _of_database(recording: Recording) -> Iterable[Choice]:
    """Yield any other setting of the database, where its statements were recorded."""
    statements = Statements(recording)
    if statements.listed:
        way = SettingWay(statements, {})
        yield Choice("Another setting of the database", way.parameters, knob=KNOB, setting="setting", way=way)


def _can_be_shown(parameter: Parameter) -> bool:
    return bool(parameter.choices) or parameter.low is not None or isinstance(parameter.default, str)


def _settings(knobs: Mapping[str, Knob]) -> Iterable[Choice]:
    """Yield each setting of the app that is a number, a flag or a text, with what it holds now.

    An app that has gone since it was recorded has none to offer.
    """
    for name, knob in knobs.items():
        if knob.kind != "http":
            continue
        try:
            held = knob.current()
        except NotReachable:
            continue
        for setting, value in held.items():
            if (parameter := _parameter(setting, value)) is not None:
                yield Choice(f"{knob.title}: {parameter.title}", (parameter,), knob=name, setting=setting)


def _parameter(name: str, value: Any) -> Parameter | None:
    title = name.replace("_", " ")
    if isinstance(value, bool):
        return Parameter(name, title, value, choices=(True, False))
    if isinstance(value, int | float):
        high = max(10.0, 10 * abs(value))
        return Parameter(
            name, title, value, low=min(0.0, float(value)), high=high, step=1 if isinstance(value, int) else high / 100
        )
    return Parameter(name, title, value) if isinstance(value, str) else None
