"""The area costs: what is spent, on what, and why it is more than needed."""

from perfnb.areas.costs import spend

__all__ = ["spend"]
