"""Try a change: choose it, see what it would have done, try it on the live app, keep it or undo it."""

from perfnb.try_a_change.panel import TryAChange

__all__ = ["TryAChange"]
