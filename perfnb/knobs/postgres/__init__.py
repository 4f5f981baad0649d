"""The database's own knobs: settings of new sessions, and indexes built beside the traffic.

Each tells how to undo before it changes anything. A connection's password is never written down: who undoes later
takes the DSN from ``perfnb.toml`` or ``PERFNB_DSN``, and it must lead to the same database.
"""

from perfnb.knobs.postgres.build import BuildProgress
from perfnb.knobs.postgres.definition import IndexDefinition
from perfnb.knobs.postgres.index import ConcurrentIndex
from perfnb.knobs.postgres.rehearsal import IndexCost, rehearse
from perfnb.knobs.postgres.role_settings import RoleSetting, Scope
from perfnb.knobs.postgres.server import connect, place_of
from perfnb.knobs.postgres.settings import ALLOWED, Setting, checked, read_setting

__all__ = [
    "ALLOWED",
    "BuildProgress",
    "ConcurrentIndex",
    "IndexCost",
    "IndexDefinition",
    "RoleSetting",
    "Scope",
    "Setting",
    "checked",
    "connect",
    "place_of",
    "read_setting",
    "rehearse",
]
