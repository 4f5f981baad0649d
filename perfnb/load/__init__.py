"""Load made by a process of its own: an open loop whose own lateness is reported with every block."""

from perfnb.load.block import Block, BlockReport, Entry, Progress, entries, fresh_trace_id
from perfnb.load.generator import Generator
from perfnb.load.health import Health, Limits
from perfnb.load.workload import Arrival, Workload, planned_requests

__all__ = [
    "Arrival",
    "Block",
    "BlockReport",
    "Entry",
    "Generator",
    "Health",
    "Limits",
    "Progress",
    "Workload",
    "entries",
    "fresh_trace_id",
    "planned_requests",
]
