"""The plain app in the demo app's place: the same simulated provider, users and network, no database, no tracing."""

import sys
from pathlib import Path

from planted.plain_app import HABITS

from perfnb.demo.stack import Stack

CAUSES = (*sorted(HABITS), "no-response-cache", "provider-slow", "rate-limited", "slow-network")
"""What can be staged with it; the last four need nothing of the app."""

USERS = {"path": "/api/ask", "question_field": "q", "session_field": "chat", "agent_share": 0, "ingest_share": 0}
"""Habits for :meth:`Stack.run_workload`, so that the demo's users ask this app."""


def start_plain_app(stack: Stack, openai_base_url: str, *, time_scale: float = 1) -> str:
    """Start the plain app with the stack's faults and return its URL; health is at ``/up``, questions go to ``/api/ask``."""
    environment = {
        "OPENAI_BASE_URL": openai_base_url,
        "OPENAI_API_KEY": "simulated",
        "HABIT": ",".join(fault.cause for fault in stack.faults),
        "TIME_SCALE": str(time_scale),
    }
    return stack.start_command([sys.executable, str(Path(__file__).with_name("plain_app.py"))], environment)
