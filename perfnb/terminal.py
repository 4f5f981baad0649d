"""What the command line shows: tables, live counters, one-line results. Progress goes to standard error."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from perfnb.checklist import Checklist
from perfnb.objectives import Objectives
from perfnb.sources.base import Readiness

Counters = Mapping[str, Mapping[str, int]]

_COLOUR = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan"}


def print_checklist(answers: Checklist, console: Console | None = None) -> None:
    """Print findings with their evidence and remedy, then what is clear and what was not measured."""
    console = console or Console()
    if not answers.findings and answers.clear:
        console.print("Nothing found.", style="green")
    elif not answers.findings:
        console.print("Nothing could be measured; below is what each cause needs.", style="yellow")
    for number, finding in enumerate(answers.findings, 1):
        console.print(
            Text.assemble(
                f"{number}. ", (finding.cause, "bold"), "  ", (finding.severity, _COLOUR[finding.severity]),
                f"  {finding.share:.0%} of {finding.symptom}",
            )
        )  # fmt: skip
        console.print(Text(f"   {finding.title}"))
        for line in finding.evidence:
            console.print(Text(f"   · {line}", style="dim"))
        console.print(Text(f"   → {finding.remedy}\n"))
    _print_pairs(console, "Clear", [(clear.cause, clear.examined) for clear in answers.clear])
    _print_pairs(console, "Not measured", [(each.cause, each.needs) for each in answers.not_measured])


def _print_pairs(console: Console, title: str, pairs: Sequence[tuple[str, str]]) -> None:
    if not pairs:
        return
    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    for cause, text in pairs:
        table.add_row(Text(cause), Text(text, style="dim"))
    console.print(table)


def print_readiness(found: Iterable[Readiness], console: Console | None = None) -> None:
    """Print what works here and what each missing thing needs."""
    table = Table(box=None, pad_edge=False)
    for column in ("source", "works", "found", "needs"):
        table.add_column(column, header_style="bold")
    for each in found:
        mark = Text("yes", style="green") if each.works else Text("no", style="red")
        table.add_row(Text(each.source), mark, Text(each.found), Text(each.needs))
    (console or Console()).print(table)


def objective_rows(objectives: Objectives) -> list[dict[str, Any]]:
    """Return the objectives as rows: name, value, acceptable, unit, meaning, and what each seed says."""
    return [
        {
            "name": objective.name,
            "value": objective.value,
            "acceptable": objective.acceptable,
            "unit": objective.unit,
            "meaning": objective.meaning,
            "said": ", ".join(f"{said.seed} {said.value}" for said in objective.said),
        }
        for objective in objectives.values()
    ]


def print_rows(title: str, rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """Print rows as a table."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in rows[0] if rows else ():
        table.add_column(column, header_style="bold")
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    (console or Console()).print(table)


def ending(code: int | None) -> str:
    """Return how a recorded command ended by itself, for the end of a line; nothing where it did not."""
    if code is None:
        return ""
    how = f"with exit code {code}" if code >= 0 else f"killed by signal {-code}"
    return (
        f" (the command ended by itself, {how})"
        if code == 0
        else f" (the command ended by itself, {how}: see what it printed)"
    )


@contextmanager
def live_counters(read: Callable[[], Counters]) -> Iterator[Callable[[], None]]:
    """Show what each source has seen; yields the function that brings the display up to date."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        console.print(_as_line(read()), highlight=False)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield lambda: live.update(_as_table(read()))


def _as_table(counters: Counters) -> Table:
    table = Table(title="recording, Ctrl-C stops", title_justify="left", box=None, show_header=False, pad_edge=False)
    for name, counts in counters.items():
        table.add_row(Text(name, style="bold"), Text(_counts(counts)))
    return table


def _as_line(counters: Counters) -> str:
    return "; ".join(f"{name}: {_counts(counts)}" for name, counts in counters.items())


def _counts(counts: Mapping[str, int]) -> str:
    return "  ".join(f"{value} {key}" for key, value in counts.items() if value) or "nothing yet"
