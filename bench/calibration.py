"""Is what an estimate says what a trial then finds? Each change is estimated from a recording, then tried live.

    python bench/calibration.py [--only CHANGE …] [--seconds S] [--pairs N] [--block S] [--keep FOLDER [--again]]
                                [--format json] [--readme]

For each change the demo stack is staged with a fault that makes it matter, its users are recorded for ``--seconds``,
the change is estimated from that recording alone, and a trial of ``--pairs`` pairs of blocks then tries it on the same
running app with requests that were not recorded: through the proxy with both arms at once where it can, else by the
app's own setting in turns. Sessions of the trial are as long as the recorded ones were, and no two arms are sent the
same question, as the provider's prefix cache would know it the second time. A change of the database is tried on one
statement, as the notebooks' panel does it: an index in a transaction that is rolled back, a setting in turns. Claim:
what is measured agrees with what was predicted for at least nine of ten changes, each judged by its main metric. A
change takes about two minutes. ``--again`` estimates kept recordings anew, which tells what a change to an estimate
does without new trials.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from perfnb.demo.workload import SESSIONS
from perfnb.errors import PerfnbError
from perfnb.estimates import change_named, predict
from perfnb.incident import Incident
from perfnb.knobs.app import HttpSettings
from perfnb.knobs.llm import LlmPolicy
from perfnb.load import Limits, Workload, planned_requests
from perfnb.objectives import Objectives
from perfnb.recording import Content, Recording
from perfnb.staging import DEMO_APP, EXPORT_S, Staged, staged
from perfnb.target import KnobSettings, Request, Target
from perfnb.trials import Knob, MetricResult, Plan, TrialProgress, TrialResult, run_trial
from perfnb.try_a_change import TryAChange

RECORDING = "calibration.perfnb"
CLAIM = 0.9
STATEMENT = "statement_ms"
SHOWN = (
    "request_usd", "request_duration_ms", "time_to_first_token_ms", "input_tokens", "output_tokens", STATEMENT,
    "statement_blocks",
)  # fmt: skip
LEAST_MOVE = 0.01
"""A metric that is predicted to move by less is not listed."""
LATE = Limits(late_ms=20)
"""Both arms share the generator's lateness; on a busy machine stricter limits would void half of the pairs."""

# nobody asks twice and nothing is ingested: what the app keeps itself would hide the change
PLAIN_USERS = {"repeat_share": 0, "ingest_share": 0, "rate": 3.5}


@dataclass(frozen=True)
class Case:
    """A change and where it is tried: the faults staged, its setting, and the app's ``setting`` that does it.

    ``main`` is the metric it is judged by: a statement's where the change is the database's. Without ``app`` any other is
    a policy of the proxy.
    """

    change: str
    main: str
    faults: tuple[str, ...]
    setting: Mapping[str, Any] = field(default_factory=dict)
    app: Mapping[str, Any] = field(default_factory=dict)
    users: Mapping[str, Any] = field(default_factory=dict)
    content: Content = "digest"


INSTRUCTIONS = (
    "You are the support desk for Python's standard library. Name the module you speak of, and say so where you do not"
    " know. Use about 50 words."
)

CASES = (
    Case("response_cache", "request_usd", ("no-response-cache",)),
    Case(
        "semantic_cache",
        "request_usd",
        ("no-response-cache",),
        {"embedding_model": "sim-embedding", "threshold": 0.95},
        content="full",
    ),
    Case("embedding_cache", "input_tokens", ("no-embedding-cache",)),
    Case("route", "request_usd", ("oversized-model",), {"to": "sim-small", "max_input_tokens": 900}),
    Case("output_cap", "request_usd", ("no-output-limit",), {"max_tokens": 200}),
    Case("context_trim", "request_usd", ("too-many-documents",), {"passages": 5}),
    Case("history_trim", "request_usd", ("long-history",), {"messages": 10}),
    Case("system_prompt", "request_usd", ("verbose-system-prompt",), {"replace": INSTRUCTIONS}),
    Case("tool_subset", "request_usd", ("heavy-tool-schemas",)),
    Case("parallel_calls", "request_duration_ms", ("sequential-calls",), app={"plan": "sections at once"}),
    Case("streaming", "time_to_first_token_ms", ("no-streaming",), app={"stream": True}),
    Case("prefix_cache", "request_usd", ("unstable-prompt-prefix",), app={"clock": False}),
    Case("index", STATEMENT, ("missing-index",)),
    Case("work_mem", STATEMENT, ("sort-spill",)),
    Case("vector_search", STATEMENT, ("missing-results",), {"ef_search": 120}),
)


@dataclass(frozen=True)
class Compared:
    """One metric of one change as ratios, with the change / without: predicted, and measured with its interval."""

    change: str
    fault: str
    metric: str
    is_main: bool
    predicted_low: float
    predicted_high: float
    measured: float
    low: float
    high: float

    @property
    def is_within(self) -> bool:
        """Tell whether the measured interval meets the predicted range.

        Measured intervals are symmetric in logs, so that this is the same as the measured ratio lying in the range
        widened by half the interval. An interval that can't tell the change from none (it holds 1) confirms no range
        that does not.
        """
        meets = self.low <= self.predicted_high and self.predicted_low <= self.high
        says_nothing = self.low <= 1 <= self.high and not self.predicted_low <= 1 <= self.predicted_high
        return meets and not says_nothing

    @property
    def is_inside(self) -> bool:
        """Tell whether the measured ratio itself lies in the bare predicted range."""
        return self.predicted_low <= self.measured <= self.predicted_high


@dataclass(frozen=True)
class Tried:
    """What came of one case; ``trouble`` says why there is nothing to compare."""

    case: Case
    compared: tuple[Compared, ...] = ()
    mode: str = ""
    pairs: int = 0
    requests: int = 0
    trouble: str = ""
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> Compared | None:
        """Return the comparison the change is judged by; None where there is none."""
        return next((each for each in self.compared if each.is_main), None)


def main() -> int:
    options = _options()
    started = time.monotonic()
    cases = [case for case in CASES if not options.only or case.change in options.only]
    with tempfile.TemporaryDirectory(prefix="perfnb-calibration-") as folder:
        home = options.keep or Path(folder)
        if options.again:
            found = [_again(home / case.change / RECORDING, case) for case in cases if (home / case.change).exists()]
        else:
            found = [_tried(home / case.change, case, options) for case in cases]
    if options.format == "json":
        print(json.dumps(_as_json(found, time.monotonic() - started), indent=2))
    else:
        print(as_table(found))
    if options.readme:
        from readme import write_table

        write_table("calibration", as_table(found))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0 if share(found, "is_within") >= CLAIM else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", metavar="CHANGE", choices=[case.change for case in CASES])
    parser.add_argument("--seconds", type=float, default=20, help="length of each recording")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of blocks of each trial")
    parser.add_argument("--block", type=float, default=6, help="measured seconds of a block")
    parser.add_argument("--rate", type=float, default=2.5, help="requests a second to each arm")
    parser.add_argument("--format", default="table", choices=("table", "json"))
    parser.add_argument("--readme", action="store_true", help="write the table into the README")
    parser.add_argument("--keep", type=Path, help="keep the recordings in this folder")
    parser.add_argument("--again", action="store_true", help="estimate anew what --keep kept, beside the trials in it")
    return parser.parse_args()


def _tried(home: Path, case: Case, options: argparse.Namespace) -> Tried:
    """Stage, record, estimate and try one case; what goes wrong stands in the result."""
    _tell(f"{case.change}: staging {', '.join(case.faults)}")
    app = replace(DEMO_APP, users={**PLAIN_USERS, **case.users})
    home.mkdir(parents=True, exist_ok=True)
    try:
        with staged(home / RECORDING, case.faults, app=app, content=case.content, logs=home) as stage:
            stage.demo.run_workload(stage.users_url, options.seconds, habits=app.users)
            time.sleep(EXPORT_S)
            result = (_statement_trial if case.main == STATEMENT else _trial)(stage, case, options)
    except PerfnbError as error:
        _tell(f"  {error}")
        return Tried(case, trouble=str(error))
    return _said(case, result)


def _again(path: Path, case: Case) -> Tried:
    """Estimate a kept recording anew, as it was before its trial, and set that beside what the trial found."""
    _tell(f"{case.change}: estimating {path}")
    with Recording.open(path) as recording:
        told = recording.query("SELECT body FROM events WHERE kind = 'trial' ORDER BY time").iloc[-1, 0]
        result = TrialResult.from_dict(json.loads(told))
        prediction = predict(recording, case.change, **case.setting)
    return _said(case, replace(result, metrics=tuple(each.beside(prediction) for each in result.metrics)))


def _statement_trial(stage: Staged, case: Case, options: argparse.Namespace) -> TrialResult:
    """Try a change of the database on the statement that the panel chooses for it."""
    incident = Incident(stage.recorder.recording, Target(dsn=stage.demo.dsn), Objectives.load())
    panel = TryAChange(incident, incident.findings)
    panel.choose(case.change)
    panel.given |= case.setting
    panel.is_accepted = True
    return panel.run(panel.plan(options.pairs), options.rate, _progress)


def _trial(stage: Staged, case: Case, options: argparse.Namespace) -> TrialResult:
    recording = stage.recorder.recording
    prediction = predict(recording, case.change, **case.setting)
    if not case.app:
        policy = change_named(case.change).policy
        assert policy is not None
        knob: Knob = LlmPolicy(recording.path)
        value = policy(prediction.setting)
    else:
        knob = HttpSettings(KnobSettings("desk", url=f"{stage.app_url}/optimization/configure"))
        value = case.app
    plan = Plan(
        looks=(options.pairs,),
        alpha=0.05,
        primary=case.main,
        seconds=options.block,
        most_void=options.pairs,
        limits=LATE,
    )
    # void pairs are sent, too; an app that keeps answers would answer a request that comes again by itself
    pairs = options.pairs + plan.most_void
    needed = round(2 * options.rate * pairs * (plan.seconds + plan.warm_up_s) * 1.1) + 20
    workload = Workload(_requests(stage, case, needed, options.seconds), rate_per_s=options.rate, is_shared=False)
    return run_trial(recording, knob, value, workload, plan, prediction=prediction, progress=_progress)


def _requests(stage: Staged, case: Case, count: int, recorded_s: float) -> tuple[Request, ...]:
    """Return ``count`` requests of the same users on another day, in sessions that have not been used."""
    habits = {**PLAIN_USERS, **case.users}
    recorded = len(stage.demo.planned(recorded_s, habits=habits))
    seconds = 2 * count * recorded_s / recorded
    planned = stage.demo.planned(seconds, habits=habits, day=1)[:count]
    stage.demo.add_conversations(SESSIONS + 1, SESSIONS * (2 + len(planned) // recorded))
    fresh = [
        replace(each, body=in_fresh_session(each.body, 1 + place // recorded)) for place, each in enumerate(planned)
    ]
    return planned_requests(stage.app_url, fresh)


def in_fresh_session(body: Mapping[str, Any], generation: int) -> Mapping[str, Any]:
    """Return a request's body with its session, if it has one, replaced by that of a later ``generation`` of users."""
    if not (session := body.get("session_id")):
        return body
    name, _, number = session.rpartition("-")
    return {**body, "session_id": f"{name}-{int(number) + SESSIONS * generation}"}


def compared(case: Case, result: TrialResult) -> tuple[Compared, ...]:
    """Return the metrics of a trial that are predicted to move, the main one first, and the main one in any case."""
    rows = [
        Compared(
            case.change,
            ", ".join(case.faults),
            each.name,
            each.name == case.main,
            *(each.predicted_low, each.predicted_high),
            *(each.ratio, each.low, each.high),
        )
        for each in result.metrics
        if each.name in SHOWN and each.predicted_low is not None and each.predicted_high is not None
        if each.name == case.main or _moves(each)
    ]
    return tuple(sorted(rows, key=lambda row: (not row.is_main, SHOWN.index(row.metric))))


def _moves(metric: MetricResult) -> bool:
    low, high = metric.predicted_low or 1.0, metric.predicted_high or 1.0
    return max(abs(1 - low), abs(1 - high)) >= LEAST_MOVE


def _trouble(result: TrialResult) -> str:
    return result.why if result.outcome in ("aborted", "stopped", "withheld") else ""


def share(found: Iterable[Tried], claim: str) -> float:
    """Return for which part of the changes the claim ``is_within`` or ``is_inside`` holds of the main metric."""
    said = [bool(tried.main and not tried.trouble and getattr(tried.main, claim)) for tried in found]
    return sum(said) / max(1, len(said))


def as_table(found: Sequence[Tried]) -> str:
    """Return the comparisons as a table in Markdown, with its caption."""
    lines = [
        "| change | staged | metric | predicted | measured (95 % interval) | agrees | inside the bare range |",
        "|---|---|---|---|---|---|---|",
    ]
    for tried in found:
        lines += [_line(each) for each in tried.compared]
        if tried.trouble or tried.main is None:
            why = tried.trouble or f"{tried.case.main} was not predicted or not measured"
            lines.append(f"| {tried.case.change} | {', '.join(tried.case.faults)} | | | **{why}** | **no** | no |")
    return "\n".join([*lines, "", caption(found)])


def _line(row: Compared) -> str:
    name = f"**{row.change}**" if row.is_main else row.change
    predicted = f"{row.predicted_low - 1:+.0%} to {row.predicted_high - 1:+.0%}"
    measured = f"{row.measured - 1:+.1%} ({row.low - 1:+.1%} to {row.high - 1:+.1%})"
    agrees, inside = ("yes" if row.is_within else "**no**"), ("yes" if row.is_inside else "no")
    return f"| {name} | {row.fault} | {row.metric} | {predicted} | {measured} | {agrees} | {inside} |"


def caption(found: Sequence[Tried]) -> str:
    """Return what the table's words mean and the counts."""
    mains = [tried.main for tried in found if tried.main and not tried.trouble]
    everything = [each for tried in found for each in tried.compared]
    return (
        f"Main metric (the row in bold): {sum(each.is_within for each in mains)} of {len(found)} changes agree,"
        f" {sum(each.is_inside for each in mains)} with the measured value inside the bare range; all metrics:"
        f" {sum(each.is_within for each in everything)} of {len(everything)}, and"
        f" {sum(each.is_inside for each in everything)}. Agrees: the trial's interval meets the predicted range, which"
        " is the same as the measured value lying in the range widened by the trial's own uncertainty; an interval that"
        " can't tell the change from none counts as no. Dollars are at the simulated provider's prices."
    )


def _as_json(found: Sequence[Tried], seconds: float) -> dict[str, Any]:
    return {
        "schema": 1,
        "changes": [
            asdict(tried)
            | {"compared": [asdict(each) | _verdicts(each) for each in tried.compared]}
            for tried in found
        ],
        "agree": share(found, "is_within"),
        "inside": share(found, "is_inside"),
        "seconds": round(seconds),
    }  # fmt: skip


def _verdicts(row: Compared) -> dict[str, bool]:
    return {"is_within": row.is_within, "is_inside": row.is_inside}


def _said(case: Case, result: TrialResult) -> Tried:
    """Return what came of a case, and say it."""
    tried = Tried(
        case, compared(case, result), result.mode, result.pairs, result.requests, _trouble(result), result.notes
    )
    _tell(
        f"  {result.mode}, {result.pairs} pairs ({result.void_pairs} void), {result.requests} requests, {result.failed} failed"
    )
    for each in tried.compared:
        _tell(f"  {_line(each)}")
    for note in (*result.notes, tried.trouble):
        _tell(f"  {note}" if note else "")
    return tried


def _progress(told: TrialProgress) -> None:
    if told.judgement is not None:
        _tell(f"  {told.text}")


def _tell(line: str) -> None:
    if line:
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
