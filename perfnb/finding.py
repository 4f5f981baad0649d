"""What a check answers: a finding, or that the cause is not there and what was examined to say so."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["low", "medium", "high", "critical"]
Effort = Literal["low", "medium", "high"]

SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")


@dataclass(frozen=True)
class Estimate:
    """What a change would have done to ``metric`` on the recorded traffic: from ``before`` to ``low``…``high``."""

    metric: str
    before: float
    low: float
    high: float
    assumptions: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate as the JSON contract has it."""
        fields = {"metric": self.metric, "before": self.before, "low": self.low, "high": self.high}
        shown = _dollars if self.metric.endswith("_usd") else _rounded
        return {key: shown(value) if isinstance(value, float) else value for key, value in fields.items()}


@dataclass(frozen=True)
class Finding:
    """A cause that is present.

    Attributes:
        title: One sentence in plain words, with the figure that matters most.
        severity: How badly objectives are missed; see :func:`perfnb.objectives.severity`.
        share: The part of the symptom in this recording that the cause explains, 0 to 1.
        evidence: Sentences with numbers and units, strongest first.
        remedy: What to do, in one or two sentences.
        frame: The rows that show it, at most a screenful; never written into JSON.
        figure: Name of the figure in the area's ``figures`` module that shows it.
        exemplars: Trace or request ids to look at.
        usd_per_request: What the cause costs for each user request, in dollars; None where it is not about money.
        usd_per_day: The same a day, at the rate of requests in this recording.
    """

    title: str
    severity: Severity
    share: float
    evidence: tuple[str, ...]
    remedy: str
    effort: Effort = "low"
    symptom: str = "latency"
    estimate: Estimate | None = None
    frame: "pd.DataFrame | None" = field(default=None, compare=False, repr=False)
    figure: str = ""
    exemplars: tuple[str, ...] = ()
    usd_per_request: float | None = None
    usd_per_day: float | None = None
    # filled in by the checklist from the check's registration
    cause: str = ""
    area: str = ""
    seeds: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as ``perfnb diagnose --format json`` prints it."""
        return {
            "cause": self.cause,
            "area": self.area,
            "severity": self.severity,
            "share": round(self.share, 4),
            "symptom": self.symptom,
            "title": self.title,
            "evidence": list(self.evidence),
            "remedy": self.remedy,
            "effort": self.effort,
            "seeds": list(self.seeds),
            "exemplars": list(self.exemplars),
            "usd_per_request": _dollars(self.usd_per_request),
            "usd_per_day": _dollars(self.usd_per_day),
            "estimate": self.estimate.as_dict() if self.estimate else None,
        }


@dataclass(frozen=True)
class Clear:
    """The cause is not present; ``examined`` says what was looked at: "0 of 214 calls …"."""

    examined: str
    cause: str = ""


@dataclass(frozen=True)
class Unmeasured:
    """The recording can't tell; ``needs`` says how to get the evidence."""

    cause: str
    needs: str


def _rounded(value: float) -> float:
    return round(value, 3)


def _dollars(value: float | None) -> float | None:
    """Return six significant digits: what a call costs is often less than a thousandth of a dollar."""
    return None if value is None else float(f"{value:.6g}")
