"""The area costs: what is spent, on what, and why it is more than needed."""

from perfnb.areas.costs import bill, spend

__all__ = ["bill", "spend"]
