"""Where to look next: the notebooks that go further into what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perfnb.bundled import bundled
from perfnb.errors import NotReachable
from perfnb.finding import Finding
from perfnb.widgets.html import Piece, render

NOTEBOOKS = {
    "start": "00_start_here",
    "slow": "01_slow_responses",
    "costs": "02_costs",
    "memory": "03_memory",
    "database": "04_database",
    "agents": "05_agents",
    "postmortem": "99_postmortem",
}


@dataclass(frozen=True)
class Step:
    """One notebook to open, and the findings that lead there."""

    notebook: str
    causes: tuple[str, ...]
    why: str


def next_steps_piece(findings: Sequence[Finding], further: Mapping[str, str]) -> Piece:
    """Return links to notebooks; ``further`` names the area that goes on with a cause."""
    steps = next_steps(findings, further)
    text = "\n".join(f"{step.notebook}.ipynb: {step.why}" for step in steps)
    return Piece(render("next_steps", steps=steps), text)


def next_steps(findings: Sequence[Finding], further: Mapping[str, str]) -> list[Step]:
    """Return the notebooks that are there and go on with ``findings``, the postmortem always last."""
    there = notebooks_there()
    causes: dict[str, list[str]] = {}
    for finding in findings:
        if (area := further.get(finding.cause, "")) in there:
            causes.setdefault(area, []).append(finding.cause)
    steps = [Step(NOTEBOOKS[area], tuple(found), f"goes on with {', '.join(found)}") for area, found in causes.items()]
    return [*steps, Step(NOTEBOOKS["postmortem"], (), "add your notes and export the postmortem as one HTML file")]


def notebooks_there() -> dict[str, str]:
    """Return short name and file name (without suffix) of the notebooks this installation has."""
    try:
        folder = bundled("notebooks")
    except NotReachable:
        return {}
    return {short: name for short, name in NOTEBOOKS.items() if (folder / f"{name}.ipynb").exists()}
