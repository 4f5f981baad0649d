"""Diagnose slow, costly or stuck LLM applications from a notebook.

The public face is small and lazy: importing perfnb loads neither pandas nor plotly, ipywidgets or duckdb.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["open", "step", "time_it"]

_HOME = {"open": "perfnb.incident", "step": "perfnb.steps", "time_it": "perfnb.steps"}

if TYPE_CHECKING:
    from perfnb.incident import open
    from perfnb.steps import step, time_it


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'perfnb' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
