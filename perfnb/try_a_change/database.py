"""Changes of the database in the panel: which statement, which index or setting, and how each is tried and kept.

The statement is one of the recorded ones or typed in; values of its parameters are taken from the tables unless given,
and stay in this process.
"""

import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from perfnb.errors import NotMeasured, NotReachable, PerfnbError
from perfnb.estimates import Parameter, change_named
from perfnb.estimates.indexing import index_for
from perfnb.estimates.statements import brief, reading_statements
from perfnb.finding import Finding
from perfnb.knobs import Knob
from perfnb.knobs.postgres import (
    ALLOWED,
    BuildProgress,
    ConcurrentIndex,
    IndexDefinition,
    RoleSetting,
    Scope,
    connect,
    read_setting,
    rehearse,
)
from perfnb.recording import Recording
from perfnb.trials import TrialProgress, TrialResult
from perfnb.trials.database import Statement, try_hypothetical_index, try_index, try_settings, with_values
from perfnb.trials.database.values import read_values
from perfnb.trials.result import Predicts
from perfnb.trials.run import Tell

KNOB = "postgres"
MOST_LISTED = 12
MEASURED, PLANNED = "measured, then rolled back", "the planner's estimate (hypopg)"
NO_DSN = "no database is named: set PERFNB_DSN, or dsn under [target] in perfnb.toml, and open the notebook again"
_CREATE_INDEX = re.compile(
    r"CREATE INDEX (?:CONCURRENTLY )?(?:\w+ )?ON \S+ (?:USING \w+ )?\((?:[^()]|\((?:[^()]|\([^()]*\))*\))+\)"
)
"""With parentheses up to two deep inside its own: expressions, types with lengths."""

Given = Mapping[str, Any]


class Way(Protocol):
    """How one change of the database is tried and kept. ``given`` are the panel's values by name."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Return what is asked for."""

    def estimated(self, given: Given) -> Given:
        """Return the setting of the estimated change."""

    def cost(self, dsn: str, given: Given, *, to_keep: bool) -> str:
        """Return what must be said yes to first; empty where nothing must."""

    def run(self, dsn: str, given: Given, told: "Told") -> TrialResult:
        """Try it; raises NotConfirmed where its cost was not said yes to."""

    def knobs(self, dsn: str, given: Given, told: "Told") -> list[tuple[Knob, Any]]:
        """Return the knobs that keep it, each with its value."""


@dataclass(frozen=True)
class Told:
    """What goes with a trial: whether its cost was said yes to, the estimate, who hears how far it is, what ends it."""

    progress: Tell
    stop: threading.Event
    is_accepted: bool = False
    prediction: Predicts | None = None


@dataclass(frozen=True)
class Statements:
    """The statements of a recording that can be tried, by what they are listed as."""

    recording: Recording

    @cached_property
    def listed(self) -> dict[str, Any]:
        """Return rows of ``statement_windows`` by label; none where statements were not recorded."""
        try:
            frame = reading_statements(self.recording).head(MOST_LISTED)
        except PerfnbError:
            return {}
        rows = [row for _, row in frame.iterrows()]
        return {
            f"{place}. {brief(row['query'])} ({row['share']:.0%} of the time)": row for place, row in enumerate(rows, 1)
        }

    def parameters(self, first: str | None = None) -> tuple[Parameter, ...]:
        """Return the choice of a statement (``first``: the queryid that is chosen at first), own text, and values."""
        labels = tuple(self.listed)
        default = next(
            (label for label in labels if self.listed[label]["queryid"] == first), labels[0] if labels else ""
        )
        chosen = (Parameter("statement", "statement", default, choices=labels),) if labels else ()
        title = "or your own SELECT" if labels else "your SELECT"
        return (*chosen, Parameter("own", title, ""), Parameter("values", "values of $1, $2 … as a JSON list", ""))

    def queryid(self, given: Given) -> str:
        """Return the chosen statement's identifier; raises NotMeasured for a typed one."""
        if (row := self.row(given)) is None:
            raise NotMeasured("nothing was recorded of a statement that is typed in", hint="try it")
        return str(row["queryid"])

    def row(self, given: Given) -> Any:
        """Return the chosen statement's row; None for a typed one."""
        return None if given.get("own", "").strip() else self.listed.get(given.get("statement", ""))

    def of(self, dsn: str, given: Given) -> Statement:
        """Return the statement with values; raises WrongUse or NotMeasured."""
        row = self.row(given)
        text = given.get("own", "").strip() if row is None else str(row["query"])
        if not text:
            raise NotMeasured("no statement is chosen", hint="type a SELECT")
        with connect(dsn) as connection:
            return with_values(
                connection,
                text,
                read_values(given.get("values", "")),
                queryid="" if row is None else self.queryid(given),
            )

    def scope(self, given: Given) -> Scope | None:
        """Return whose sessions run the statement; None (the DSN's own role and database) where that is not known."""
        row = self.row(given)
        return None if row is None or not row["role"] else Scope(row["role"], row["database"])


@dataclass(frozen=True)
class IndexWay:
    """An index: tried in a transaction that is rolled back or by the planner alone; kept by building it concurrently."""

    statements: Statements
    suggested: str
    queryid: str | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Return statement, index, and how it is tried."""
        how = Parameter("how", "how", MEASURED, choices=(MEASURED, PLANNED))
        return (*self.statements.parameters(self.queryid), Parameter("index", "index", self.suggested), how)

    def estimated(self, given: Given) -> Given:
        """Return the statement and the columns that the index names."""
        columns = re.search(r"\(([^()]*)\)", given["index"])
        plain = ", ".join(each.strip().split(" ")[0].strip('"') for each in columns[1].split(",")) if columns else None
        return {"statement": self.statements.queryid(given), "columns": plain}

    def cost(self, dsn: str, given: Given, *, to_keep: bool) -> str:
        """Return size, time, and what waits."""
        if given["how"] == PLANNED and not to_keep:
            return ""
        with connect(dsn) as connection:
            return rehearse(connection, self._definition(given)).told(is_concurrent=to_keep)

    def run(self, dsn: str, given: Given, told: Told) -> TrialResult:
        """Build, measure and roll back; or ask the planner."""
        recording, definition = self.statements.recording, self._definition(given)
        statement = self.statements.of(dsn, given)
        if given["how"] == PLANNED:
            return try_hypothetical_index(recording, dsn, statement, definition).result
        return try_index(
            recording, dsn, statement, definition, confirm=lambda cost: told.is_accepted, prediction=told.prediction,
            progress=told.progress, stop=told.stop,
        ).result  # fmt: skip

    def knobs(self, dsn: str, given: Given, told: Told) -> list[tuple[Knob, Any]]:
        """Return the index as a knob."""

        def tell(far: BuildProgress) -> None:
            told.progress(TrialProgress("", round(100 * (far.part or 0)), 100, str(far)))

        return [(ConcurrentIndex(dsn, self._definition(given), tell=tell, stop=told.stop), True)]

    def _definition(self, given: Given) -> IndexDefinition:
        return IndexDefinition.parse(given["index"])


@dataclass(frozen=True)
class SettingWay:
    """Settings of a transaction: ``fixed`` maps the panel's parameters to settings; without it one is chosen freely."""

    statements: Statements
    fixed: Mapping[str, tuple[str, str]]
    asked: tuple[Parameter, ...] = ()
    queryid: str | None = None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Return statement and setting."""
        free = (
            Parameter("setting", "setting", "random_page_cost", choices=tuple(ALLOWED)),
            Parameter("value", "its value", "1.1"),
        )
        return (*self.statements.parameters(self.queryid), *(self.asked or free))

    def estimated(self, given: Given) -> Given:
        """Return the statement and the values of the change."""
        return {"statement": self.statements.queryid(given), **{each.name: given[each.name] for each in self.asked}}

    def cost(self, dsn: str, given: Given, *, to_keep: bool) -> str:
        """Return nothing: a setting of a transaction, or of new sessions, is undone at once."""
        return ""

    def run(self, dsn: str, given: Given, told: Told) -> TrialResult:
        """Run the statement without and with the settings in turns."""
        return try_settings(
            self.statements.recording, dsn, self.statements.of(dsn, given), self._settings(given),
            prediction=told.prediction, progress=told.progress, stop=told.stop,
        ).result  # fmt: skip

    def knobs(self, dsn: str, given: Given, told: Told) -> list[tuple[Knob, Any]]:
        """Return each setting that is not so already, for new sessions of the role that runs the statement."""
        scope, settings = self.statements.scope(given), self._settings(given)
        with connect(dsn) as connection:
            now = {name: read_setting(connection, name) for name in settings}
        changed = {name: value for name, value in settings.items() if now[name].now != str(value)}
        return [(RoleSetting(dsn, name, scope), value) for name, value in changed.items()]

    def _settings(self, given: Given) -> dict[str, Any]:
        if not self.fixed:
            return {given["setting"]: given["value"]}
        return {name: f"{given[parameter]}{unit}" for parameter, (name, unit) in self.fixed.items()}


FIXED: dict[str, dict[str, tuple[str, str]]] = {
    "work_mem": {"megabytes": ("work_mem", "MB")},
    "vector_search": {"ef_search": ("hnsw.ef_search", ""), "iterative_scan": ("hnsw.iterative_scan", "")},
}


def way_of(
    name: str, parameters: tuple[Parameter, ...], recording: Recording, findings: Iterable[Finding]
) -> Way | None:
    """Return how the estimated change ``name`` is done to a database; None for one of another kind."""
    statements = Statements(recording)
    if name == "index":
        return _index_way(statements, findings)
    if name not in FIXED:
        return None
    asked = tuple(each for each in parameters if each.name in FIXED[name])
    return SettingWay(statements, FIXED[name], asked, _fitting(statements, name))


def _fitting(statements: Statements, name: str) -> str | None:
    """Return the listed statement (queryid) that a setting is for: the first that spills, or searches by distance."""
    for row in statements.listed.values():
        if row["temp_blocks_written"] > 0 if name == "work_mem" else row["read"].distance is not None:
            return str(row["queryid"])
    return None


def _index_way(statements: Statements, findings: Iterable[Finding]) -> IndexWay:
    """Return the way with the index that a finding names, else the one that the statements lack."""
    for finding in findings:
        if finding.cause in change_named("index").causes and (ddl := _named(finding)):
            return IndexWay(statements, ddl, _meant(statements, ddl))
    try:
        queryid, candidate = index_for(statements.recording)
    except PerfnbError:
        return IndexWay(statements, "CREATE INDEX ON table (column)")
    return IndexWay(statements, candidate.statement, queryid)


def _named(finding: Finding) -> str:
    """Return the first CREATE INDEX that a finding names, as its rows or its remedy have it."""
    texts = [] if finding.frame is None or "ddl" not in finding.frame else list(finding.frame["ddl"].astype(str))
    match = next(filter(None, map(_CREATE_INDEX.search, (*texts, finding.remedy, *finding.evidence))), None)
    return match[0].replace("CONCURRENTLY ", "") if match else ""


def _meant(statements: Statements, ddl: str) -> str | None:
    """Return the listed statement (queryid) that an index is for: the first that filters or searches by its first key."""
    target, _, keys = ddl.partition(" ON ")[2].partition("(")
    table = target.partition(" USING ")[0].strip().rpartition(".")[2].strip('"')
    for row in statements.listed.values():
        read = row["read"]
        used = [*read.filters, *([read.distance] if read.distance else [])]
        if any(
            each.table.rpartition(".")[2] == table and re.search(rf"\b{re.escape(each.column)}\b", keys)
            for each in used
        ):
            return str(row["queryid"])
    return None


def require_dsn(dsn: str | None) -> str:
    """Return the DSN; raises NotReachable with how to name one."""
    if not dsn:
        raise NotReachable("no database is named", hint="set PERFNB_DSN, or dsn under [target] in perfnb.toml")
    return dsn
