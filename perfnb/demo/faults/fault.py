"""One staged cause: what to change, and what else truly follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One staged cause.

    Attributes:
        app: Settings of the app to change (:class:`perfnb.demo.app.settings.Settings`).
        provider: Conditions of the provider (:class:`perfnb.demo.provider.conditions.Conditions`).
        workload: Habits of the users (:class:`perfnb.demo.workload.Habits`).
        network: The way between app and provider (:class:`perfnb.demo.network.Way`).
        database: ``settings`` of the server, ``sql`` run before the app starts, and ``jobs`` of others beside it
            (:class:`perfnb.demo.database.Job`).
        begins_at: Part of the run after which the provider's conditions set in.
        consequences: Causes that are truly present too when this one is.
        note: What is done, in a sentence.
    """

    cause: str
    area: str
    note: str
    app: Mapping[str, Any] = field(default_factory=dict)
    provider: Mapping[str, Any] = field(default_factory=dict)
    workload: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    database: Mapping[str, Any] = field(default_factory=dict)
    begins_at: float = 0
    consequences: tuple[str, ...] = ()
