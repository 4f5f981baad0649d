"""Trials: whether a change helped, measured on the live target in interleaved pairs, and undone."""

from perfnb.trials.design import Plan
from perfnb.trials.guard import Guard
from perfnb.trials.judge import Judgement, Outcome
from perfnb.trials.measure import METRICS
from perfnb.trials.result import MetricResult, TrialResult
from perfnb.trials.run import TrialProgress, run_trial
from perfnb.trials.statistics import pairs_needed
from perfnb.trials.switch import Knob, SplittingKnob

__all__ = [
    "METRICS",
    "Guard",
    "Judgement",
    "Knob",
    "MetricResult",
    "Outcome",
    "Plan",
    "SplittingKnob",
    "TrialProgress",
    "TrialResult",
    "pairs_needed",
    "run_trial",
]
