"""Knobs: what can be set, read and undone on the live target."""

from perfnb.knobs.base import Knob, all_knobs
from perfnb.knobs.undo import Change, change, changing, revert, reverted

__all__ = ["Change", "Knob", "all_knobs", "change", "changing", "revert", "reverted"]
