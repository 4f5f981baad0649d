"""Plans of statements: read from whatever EXPLAIN prints, as one model; what is wrong with one; two of them compared."""

from perfnb.plans.building import plan_of
from perfnb.plans.comparing import Comparison, Pair, compare
from perfnb.plans.measures import (
    Misestimate,
    Spill,
    WastefulScan,
    costliest,
    misestimates,
    spills,
    warnings,
    wasteful_scans,
)
from perfnb.plans.plan import BLOCK_BYTES, Blocks, Node, Plan, Trigger, Workspace
from perfnb.plans.reading import looks_like_plan, read_plan, read_plans

__all__ = [
    "BLOCK_BYTES",
    "Blocks",
    "Comparison",
    "Misestimate",
    "Node",
    "Pair",
    "Plan",
    "Spill",
    "Trigger",
    "WastefulScan",
    "Workspace",
    "compare",
    "costliest",
    "looks_like_plan",
    "misestimates",
    "plan_of",
    "read_plan",
    "read_plans",
    "spills",
    "warnings",
    "wasteful_scans",
]
