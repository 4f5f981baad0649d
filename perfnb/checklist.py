"""The registry of checks: run them over a recording and rank what they found."""

import csv
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib import import_module, resources
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar

from perfnb.errors import NotMeasured, PerfnbError, WrongUse
from perfnb.finding import SEVERITIES, Clear, Finding, Unmeasured
from perfnb.objectives import Objectives
from perfnb.recording import Recording

AREAS = ("slow", "costs", "database")  # areas that have checks of ours; each is a package perfnb.areas.NAME


log = logging.getLogger(__name__)


class CheckFunction(Protocol):
    """A pure function over a recording that looks for one cause; thresholds may follow as keyword arguments."""

    def __call__(self, recording: Recording, objectives: Objectives) -> Finding | Clear:
        """Return a finding, or what was examined; raise NotMeasured where evidence is missing."""


F = TypeVar("F", bound=CheckFunction)

_AREA_OF = {"vector": "database"}
"""The catalogue lists vector searches apart; they are judged with the database."""


@dataclass(frozen=True)
class Check:
    """One registered check and where its rule comes from.

    ``also`` holds, for other areas in which the cause is felt, the function that judges it there.
    """

    cause: str
    area: str
    function: CheckFunction
    meaning: str
    source: str
    also: Mapping[str, CheckFunction] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[str, ...]:
        """Return the seed ids named in the check's ``Source:`` line."""
        return tuple(re.findall(r"\b[A-E]\d+\b", self.source))

    @property
    def topic(self) -> str:
        """Return the module the check stands in: ``streaming``, ``context`` …"""
        return self.function.__module__.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Cause:
    """One row of the catalogue of causes."""

    id: str
    cause: str
    area: str
    seeds: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class Checklist:
    """The answers of all checks that ran: findings ranked by share, then severity."""

    findings: tuple[Finding, ...]
    clear: tuple[Clear, ...]
    not_measured: tuple[Unmeasured, ...]

    def as_dict(self, recording: Recording) -> dict[str, Any]:
        """Return the contract of ``perfnb diagnose --format json``."""
        window = recording.window
        return {
            "schema": 1,
            "recording": str(recording.path),
            "window": {"start": _iso(window.start), "end": _iso(window.end)},
            "findings": [finding.as_dict() for finding in self.findings],
            "clear": [answer.cause for answer in self.clear],
            "not_measured": [{"cause": answer.cause, "needs": answer.needs} for answer in self.not_measured],
        }

    def at_least(self, severity: str) -> tuple[Finding, ...]:
        """Return findings of ``severity`` or worse."""
        if severity not in SEVERITIES:
            raise WrongUse(f"no severity {severity!r}", hint=f"one of {', '.join(SEVERITIES)}")
        floor = SEVERITIES.index(severity)
        return tuple(finding for finding in self.findings if SEVERITIES.index(finding.severity) >= floor)


_REGISTRY: dict[str, Check] = {}


def check(cause: str, *, area: str, also: Mapping[str, CheckFunction] | None = None) -> Callable[[F], F]:
    """Register a check for ``cause``; its docstring must end with a ``Source:`` line.

    ``also`` names other areas the cause belongs to, with the function that judges it by their symptom.
    """

    def register(function: F) -> F:
        meaning, _, source = (function.__doc__ or "").partition("Source:")
        if not source.strip():
            raise WrongUse(f"the check for {cause!r} names no source", hint="end its docstring with Source: …")
        if cause in _REGISTRY and _REGISTRY[cause].function.__module__ != function.__module__:
            raise WrongUse(f"two checks are registered for {cause!r}", hint="rename one of them")
        _REGISTRY[cause] = Check(cause, area, function, meaning.strip(), " ".join(source.split()), also or {})
        return function

    return register


@cache
def catalogue() -> dict[str, Cause]:
    """Return the catalogue of causes by name."""
    text = resources.files("perfnb").joinpath("causes.csv").read_text()
    rows = csv.DictReader(text.splitlines())
    return {
        row["cause"]: Cause(
            row["id"], row["cause"], _AREA_OF.get(row["area"], row["area"]), tuple(row["seeds"].split()), row["is"]
        )
        for row in rows
    }


def checks(area: str | None = None) -> tuple[Check, ...]:
    """Return the registered checks, ours and those of installed packages, in the catalogue's order."""
    _load()
    order = {cause: position for position, cause in enumerate(catalogue())}
    found = sorted(_REGISTRY.values(), key=lambda check: (order.get(check.cause, len(order)), check.cause))
    return tuple(check for check in found if area in (None, check.area))


def checks_felt_in(area: str | None = None) -> tuple[Check, ...]:
    """Return the checks of ``area``, then those of other areas whose cause is felt there, judged by its symptom."""
    own = checks(area)
    if area is None:
        return own
    return own + tuple(replace(one, function=one.also[area]) for one in checks() if area in one.also)


def run(
    recording: Recording,
    objectives: Objectives | None = None,
    *,
    area: str | None = None,
    progress: Callable[[str], None] = lambda cause: None,
) -> Checklist:
    """Run the checks of ``area`` (or all) over ``recording``; ``progress`` is told each cause before it is looked for.

    Causes of other areas that are felt in ``area`` as well are judged by its symptom.
    """
    objectives = objectives or Objectives.load()
    wanted = checks_felt_in(area)
    if not wanted:
        raise WrongUse(f"no checks for area {area!r}", hint=f"areas are {', '.join(AREAS)}")
    with recording.held():
        answered = [_answer(one, recording, objectives, progress) for one in wanted]
    findings = [answer for answer in answered if isinstance(answer, Finding)]
    return Checklist(
        tuple(sorted(findings, key=_rank)),
        tuple(answer for answer in answered if isinstance(answer, Clear)),
        tuple(answer for answer in answered if isinstance(answer, Unmeasured)),
    )


def _answer(
    one: Check, recording: Recording, objectives: Objectives, progress: Callable[[str], None]
) -> Finding | Clear | Unmeasured:
    progress(one.cause)
    try:
        answer = one.function(recording, objectives)
    except NotMeasured as missing:
        return Unmeasured(one.cause, missing.hint or missing.message)
    except PerfnbError:
        raise
    except Exception as defect:  # a defect of one check takes the other answers from nobody
        log.exception("the check for %s failed", one.cause)
        return Unmeasured(
            one.cause, f"a check without a defect: this one failed ({type(defect).__name__}: {_first_line(defect)})"
        )
    if isinstance(answer, Clear):
        return replace(answer, cause=one.cause)
    return replace(answer, cause=one.cause, area=one.area, seeds=one.seeds)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200]


def _rank(finding: Finding) -> tuple[float, int, str]:
    return (-round(finding.share, 3), -SEVERITIES.index(finding.severity), finding.cause)


@cache
def _load() -> None:
    for area in AREAS:
        import_module(f"perfnb.areas.{area}")
    for point in entry_points(group="perfnb.checks"):
        point.load()


def _iso(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds")
