"""What the recording was made of and where: services, models, clients, versions, row counts."""

import json
import platform
from typing import Any

import pandas as pd

from perfnb import __version__
from perfnb.areas.costs import spend
from perfnb.recording import Recording
from perfnb.widgets import wording
from perfnb.widgets.about import row_counts

# Command lines and host names are left out on purpose.
RESOURCE_KEYS = (
    "service.version", "deployment.environment.name", "deployment.environment", "telemetry.sdk.language",
    "telemetry.sdk.name", "telemetry.sdk.version", "process.runtime.name", "process.runtime.version", "os.type",
)  # fmt: skip

_MODELS = """
SELECT provider, request_model, response_model, operation, count(*) AS calls FROM llm_calls
GROUP BY ALL ORDER BY calls DESC, request_model LIMIT 12
"""
_CLIENTS = "SELECT user_agent, count(*) AS calls FROM llm_calls WHERE user_agent IS NOT NULL GROUP BY ALL ORDER BY calls DESC LIMIT 5"
_SERVICES = "SELECT service, any_value(resource) AS resource FROM spans WHERE service IS NOT NULL GROUP BY service ORDER BY service LIMIT 12"


def surroundings(recording: Recording) -> list[tuple[str, str]]:
    """Return name and value of what is known of the target and of the recording."""
    told = [*_services(recording), *_models(recording), *_clients(recording)]
    return [*told, *prices(recording), *_recording(recording)]


def _services(recording: Recording) -> list[tuple[str, str]]:
    frame = recording.query(_SERVICES)
    return [
        (f"service {service}", ", ".join(_resource(resource)) or "no versions told")
        for service, resource in zip(frame["service"], frame["resource"], strict=True)
    ]


def _resource(resource: Any) -> list[str]:
    attributes = json.loads(resource) if isinstance(resource, str) else {}
    return [f"{key} {attributes[key]}" for key in RESOURCE_KEYS if key in attributes]


def _models(recording: Recording) -> list[tuple[str, str]]:
    frame = recording.query(_MODELS)
    lines = []
    for row in frame.itertuples(index=False):
        is_other = pd.notna(row.response_model) and row.response_model != row.request_model
        answered = f", answered by {row.response_model}" if is_other else ""
        lines.append(
            (
                f"model {row.request_model}",
                f"{row.provider}, {row.operation}{answered}, {wording.counted(row.calls, 'call')}",
            )
        )
    return lines


def _clients(recording: Recording) -> list[tuple[str, str]]:
    frame = recording.query(_CLIENTS)
    return [
        ("client", f"{agent}, {wording.counted(calls, 'call')}")
        for agent, calls in zip(frame["user_agent"], frame["calls"], strict=True)
    ]


def prices(recording: Recording) -> list[tuple[str, str]]:
    """Return which price list dollars come from, and which models had no price; nothing where there were no calls."""
    if not recording.has("llm_calls"):
        return []
    missing = [
        (
            f"no dollars for {row.model}",
            f"{wording.counted(row.calls, 'call')}, {wording.counted(row.tokens, 'token')}: {row.reason}",
        )
        for row in spend.unpriced(recording).itertuples(index=False)
    ]
    return [("price list", spend.price_version(recording)), *missing]


def _recording(recording: Recording) -> list[tuple[str, str]]:
    manifest = recording.manifest
    rows = [f"{count:,} {name}" for name, count in row_counts(recording).items() if count]
    return [
        ("recording", f"{recording.name}: {', '.join(rows) or 'empty'}"),
        ("recorded with", f"perfnb {manifest.get('perfnb')}, schema {manifest.get('schema')}"),
        ("message contents", "kept in full" if recording.content == "full" else "digests only"),
        ("torn lines skipped", str(recording.torn_lines)),
        (
            "report made with",
            f"perfnb {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        ),
    ]
