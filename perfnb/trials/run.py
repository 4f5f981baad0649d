"""Conduct a trial on the live target: pairs of blocks under the same load, looks as planned, everything undone."""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from perfnb.errors import NotReachable, PerfnbError
from perfnb.load import Block, BlockReport, Entry, Generator, Workload, entries
from perfnb.recording import Recording
from perfnb.trials.design import Plan, orders, split_entries
from perfnb.trials.guard import Guard
from perfnb.trials.judge import Judgement, Outcome, judge
from perfnb.trials.measure import METRICS, Blocks, Evidence, level, ratios
from perfnb.trials.result import MetricResult, Predicts, TrialResult
from perfnb.trials.switch import Changing, Knob, Label, Switch

LEAST_IN_A_BLOCK = 10


@dataclass(frozen=True)
class TrialProgress:
    """How far a trial is: the pair under way of at most ``of``, and what is going on in words."""

    trial: str
    pair: int
    of: int
    text: str
    judgement: Judgement | None = None


Tell = Callable[[TrialProgress], None]


class _Ended(Exception):
    """The trial is over before its design is."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome: Outcome = outcome
        self.why = why


def run_trial(
    recording: Recording,
    knob: Knob,
    value: Any,
    workload: Workload,
    plan: Plan | None = None,
    *,
    prediction: Predicts | None = None,
    guard: Guard | None = None,
    progress: Tell = lambda told: None,
    stop: threading.Event | None = None,
    label: Label | None = None,
    changing: Changing | None = None,
) -> TrialResult:
    """Return whether ``value`` on ``knob`` is better than what it holds now, under ``workload``.

    The knob is back where it was when this returns, or the result says that it isn't (``was_undone``). What goes wrong
    on the way (the guard, a knob that can't be set, an app that is gone) ends the trial and stands in the result, which
    is put on the timeline. ``stop`` and Ctrl-C end it at once. Where a proxy records, it marks all calls with their arm
    (``label`` does it otherwise); ``changing`` sets and undoes in another way than :func:`perfnb.knobs.changing`. Raises only where the trial can't begin: the knob can't
    be read, or the load worker does not start.
    """
    conduct = _Conduct(recording, knob, workload, plan or Plan(), guard or Guard(), progress, stop)
    with contextlib.closing(conduct.evidence):
        with Generator(recording.path, workload) as generator:
            marks = label or _label(recording)
            switch = Switch(recording, knob, value, conduct.trial, changing=changing or _changing(), label=marks)
            ended = conduct.run(generator, switch)
        result = conduct.result(ended, switch, prediction)
    recording.add_event("trial", result.headline, result.as_dict())
    return result


def _changing() -> Changing:
    from perfnb.knobs.undo import changing

    return changing


def _label(recording: Recording) -> Label | None:
    """Return what marks calls with their arm, where a proxy records into ``recording`` now."""
    from perfnb.knobs.llm import ArmLabel
    from perfnb.sources.traffic.control import ProxyControl

    try:
        ProxyControl.of(recording.path).number()
    except NotReachable:
        return None
    return ArmLabel(recording)


class _Conduct:
    """A trial under way."""

    def __init__(
        self,
        recording: Recording,
        knob: Knob,
        workload: Workload,
        plan: Plan,
        guard: Guard,
        progress: Tell,
        stop: threading.Event | None,
    ) -> None:
        self.trial = secrets.token_hex(4)
        self.evidence = Evidence(recording.path, self.trial)
        self._recording = recording
        self._knob = knob
        self._workload = workload
        self._plan = plan
        self._guard = guard
        self._tell = progress
        self._stop = stop or threading.Event()
        self._pairs: list[tuple[int, int]] = []
        self._void = 0
        self._blocks = 0
        self._turns = 0
        self._late_ms = 0.0
        self._started_ns = time.time_ns()
        self._judgement: Judgement | None = None

    def run(self, generator: Generator, switch: Switch) -> tuple[Outcome, str]:
        """Return how the trial ended and why; the knob is undone by then."""
        try:
            with switch:
                self._switched(switch, "A")
                return self._run_pairs(generator, switch)
        except _Ended as ended:
            return ended.outcome, ended.why
        except KeyboardInterrupt:
            return "stopped", "interrupted"
        except PerfnbError as error:
            return "aborted", str(error)

    def _run_pairs(self, generator: Generator, switch: Switch) -> tuple[Outcome, str]:
        order = orders(self._plan.seed)
        this = next(order)
        while True:
            pair, void = self._run_pair(generator, switch, this)
            if void:
                self._void += 1
                if self._void > self._plan.most_void:
                    return "withheld", f"the load generator would be judged: {void}"
                continue
            self._pairs.append(pair)
            self._require_affordable()
            if len(self._pairs) in self._plan.looks:
                judgement = self._look()
                if judgement.is_final or len(self._pairs) == self._plan.most_pairs:
                    return judgement.outcome, judgement.why
            this = next(order)

    def _run_pair(self, generator: Generator, switch: Switch, order: str) -> tuple[tuple[int, int], str | None]:
        """Run one pair; returns the block numbers of A and B, and why the pair is void if it is."""
        turns = self._workload.turns(self._turns, self._plan.seconds, warm_up_s=self._plan.warm_up_s)
        self._turns += 1
        if switch.is_split:
            self._say("both arms at once")
            report = self._run_block(generator, split_entries(turns, self.trial, self._turns))
            return (report.number, report.number), self._void_because(report)
        numbers, void = {}, None
        for arm, turn in zip(order, turns, strict=True):
            self._switched(switch, arm)
            self._say(f"{'without' if arm == 'A' else 'with'} the change")
            report = self._run_block(generator, entries(turn, arm=f"{self.trial}/{arm}"))
            numbers[arm] = report.number
            void = void or self._void_because(report)
        return (numbers["A"], numbers["B"]), void

    def _switched(self, switch: Switch, arm: str) -> None:
        switch.apply(arm)
        if self._stop.wait(self._plan.settle_s):
            raise _Ended("stopped", "stopped on request")

    def _run_block(self, generator: Generator, entries: tuple[Entry, ...]) -> BlockReport:
        tripped: list[str] = []

        def watch(told: Any) -> bool:
            tripped.extend(filter(None, [self._guard.on_progress(told)]))
            return not tripped

        self._blocks += 1
        report = generator.run(Block(self._blocks, entries), stop=self._stop, watch=watch)
        self._late_ms = max(self._late_ms, report.health.late_p99_ms)
        if self._stop.is_set():
            raise _Ended("stopped", "stopped on request")
        if why := (tripped[0] if tripped else self._guard.on_block(report)):
            raise _Ended("aborted", why)
        return report

    def _void_because(self, report: BlockReport) -> str | None:
        return report.health.limited_by(report.median_ms, self._plan.limits)

    def _require_affordable(self) -> None:
        if self._guard.spend_usd is not None and (why := self._guard.on_spend(self.evidence.spent_usd() or 0.0)):
            raise _Ended("aborted", why)

    def _look(self) -> Judgement:
        self._stop.wait(self._plan.evidence_s)
        self._judgement = self._judged(self.evidence.blocks())
        self._say(self._judgement.why, self._judgement)
        return self._judgement

    def _judged(self, blocks: Blocks) -> Judgement:
        controls = self.evidence.controls()
        return judge(ratios(blocks, self._pairs), self._plan, ratios(controls, self._pairs))

    def _say(self, text: str, judgement: Judgement | None = None) -> None:
        self._tell(TrialProgress(self.trial, len(self._pairs) + 1, self._plan.most_pairs, text, judgement))

    def result(self, ended: tuple[Outcome, str], switch: Switch, prediction: Predicts | None) -> TrialResult:
        """Return what came of it, judged on all pairs there are."""
        blocks = self.evidence.blocks()
        judgement = self._judged(blocks)
        requests, failed = self.evidence.counts()
        return TrialResult(
            trial=self.trial,
            knob=self._knob.name,
            title=self._knob.title,
            before=switch.shown["A"],
            value=switch.shown["B"],
            mode="split" if switch.is_split else "pairs",
            outcome=ended[0],
            why=ended[1],
            primary=self._plan.primary,
            confidence=1 - self._plan.alpha,
            margin=self._plan.margin,
            pairs=len(self._pairs),
            void_pairs=self._void,
            requests=requests,
            failed=failed,
            spent_usd=self.evidence.spent_usd(),
            started_ns=self._started_ns,
            ended_ns=time.time_ns(),
            was_undone=not switch.trouble,
            worst_late_ms=self._late_ms,
            metrics=tuple(each.beside(prediction) for each in self._metrics(blocks, judgement)),
            notes=tuple(self._notes(blocks, switch)),
        )

    def _metrics(self, blocks: Blocks, judgement: Judgement) -> Iterator[MetricResult]:
        for name in METRICS:
            compared = judgement.comparisons.get(name)
            a = level(blocks, name, "A", (a for a, _ in self._pairs))
            b = level(blocks, name, "B", (b for _, b in self._pairs))
            if compared is not None and a is not None and b is not None:
                yield MetricResult.of(name, a, b, compared)

    def _notes(self, blocks: Blocks, switch: Switch) -> Iterator[str]:
        if switch.trouble:
            yield f"undoing failed: {switch.trouble}"
        if self._void:
            yield f"{self._void} pairs are void: the load generator was late in them"
        asked, known = self._turns * len(self._turn_sample()), len(self._workload.requests)
        if not self._workload.is_shared:
            known //= 2
        if asked > known:
            yield f"the {known} requests of an arm were each sent {asked / known:.1f} times; a cache answers more of them than users would see"
        if not self._workload.is_shared:
            yield "each arm had requests of its own, as the app answers a repeated one without the model: it takes more pairs to tell the arms apart"
        if silent := self.evidence.without_calls():
            yield f"{silent} requests made no model call: the app answered them by itself, or they failed before"
        if self._workload.number_in(self._plan.seconds) < LEAST_IN_A_BLOCK:
            yield f"a block holds {self._workload.number_in(self._plan.seconds)} requests: its 95th percentile is little more than its slowest"
        if not any("request_usd" in values for values in blocks.values()):
            yield "no dollars: no model call was seen, or some have no known price"

    def _turn_sample(self) -> tuple[Any, ...]:
        return self._workload.turn(0, self._plan.seconds, warm_up_s=self._plan.warm_up_s)
