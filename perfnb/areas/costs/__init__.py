"""The area costs: what is spent, on what, and why it is more than needed."""

from perfnb.areas.costs import caching, limits, prompts, routing, spend, tiers

__all__ = ["caching", "limits", "prompts", "routing", "spend", "tiers"]
