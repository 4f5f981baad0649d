"""Trials on the database that change nothing: one of the user's own statements, without and with a change.

- :func:`try_settings`: settings of one transaction (``work_mem``, ``hnsw.ef_search`` …), in turns
- :func:`try_index`: an index, built and rolled back
- :func:`try_hypothetical_index`: an index that only the planner sees; nothing is measured
"""

from perfnb.trials.database.hypothetical import try_hypothetical_index
from perfnb.trials.database.index import Limits, NotConfirmed, try_index
from perfnb.trials.database.outcome import StatementTrial
from perfnb.trials.database.session import try_settings
from perfnb.trials.database.statement import Run, Statement
from perfnb.trials.database.values import with_values

__all__ = [
    "Limits",
    "NotConfirmed",
    "Run",
    "Statement",
    "StatementTrial",
    "try_hypothetical_index",
    "try_index",
    "try_settings",
    "with_values",
]
