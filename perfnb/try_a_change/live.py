"""The way from a panel to the target that runs now: its knobs, the requests a trial sends, what the proxy can tell."""

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from perfnb.attribution import prepare
from perfnb.errors import NotReachable
from perfnb.knobs import Knob
from perfnb.knobs.base import all_knobs
from perfnb.knobs.llm import ArmLabel, LlmPolicy
from perfnb.load import Workload
from perfnb.recording import Recording
from perfnb.target import Request
from perfnb.try_a_change.choices import LLM

if TYPE_CHECKING:
    from perfnb.incident import Incident

SEEN_WITHIN_S = 3.0
ASKED = 3
LEAST_REPEATED = 3


@dataclass(frozen=True)
class NotLive:
    """Why nothing can be tried now."""

    why: str

    def __str__(self) -> str:
        return f"Estimates only: {self.why}"


class Live:
    """The target while it runs and is recorded."""

    def __init__(self, recording: Recording, knobs: Mapping[str, Knob], requests: tuple[Request, ...]) -> None:
        self.knobs = dict(knobs)
        self.requests = requests
        self._recording = recording

    @classmethod
    def of(cls, incident: "Incident") -> "Live | NotLive":
        """Return the way to the incident's target, or why there is none."""
        knobs = all_knobs(incident.recording, incident.target)
        if not knobs:
            return NotLive("no proxy records into this recording now, and perfnb.toml names no knob of the app")
        if not incident.target.requests:
            return NotLive("a trial needs requests to send: add [[request]] to perfnb.toml")
        return cls(incident.recording, knobs, incident.target.requests)

    @property
    def label(self) -> ArmLabel | None:
        """Return what marks calls with their arm; None without a proxy."""
        has_proxy = any(isinstance(each, LlmPolicy) for each in self.knobs.values())
        return ArmLabel(self._recording) if has_proxy else None

    def knob(self, name: str) -> Knob:
        """Return a knob; the proxy's runs both arms at once where requests can be told apart by their traces.

        Raises NotReachable where the knob is not there, as the proxy's is not once the recording has ended.
        """
        knob = self._there(name)
        if isinstance(knob, LlmPolicy):
            knob.splits_by_trace = self.carries_traces
        return knob

    def now(self, name: str) -> Any:
        """Return what a knob holds; raises NotReachable where it is not there or does not answer."""
        return self._there(name).current()

    def _there(self, name: str) -> Knob:
        if name in self.knobs:
            return self.knobs[name]
        if name == LLM:
            raise NotReachable("no proxy records into this recording now", hint="try it while perfnb record runs")
        raise NotReachable(f"there is no knob {name!r}", hint="name it in perfnb.toml")

    def workload(self, rate_per_s: float) -> Workload:
        """Return the requests a trial sends, from those on that no trial has sent yet; each arm its own where the app
        keeps answers.
        """
        sent = int(self._recording.query("SELECT count(*) AS n FROM http_requests WHERE source = 'load'")["n"].iloc[0])
        first = sent % len(self.requests)
        requests = self.requests[first:] + self.requests[:first]
        return Workload(requests, rate_per_s=rate_per_s, is_shared=not self.keeps_answers)

    @property
    def carries_traces(self) -> bool:
        """Tell whether the app passes a request's trace on to its model calls."""
        return self._asked_with_trace is not None

    @cached_property
    def keeps_answers(self) -> bool:
        """Tell whether the app answers a repeated request without the model: asks it twice, else looks at what is recorded."""
        if self._asked_with_trace is not None:
            return not self._makes_a_call(self._asked_with_trace)
        frame = prepare(self._recording).query(_REPEATED)
        return bool(frame["repeated"].iloc[0] >= LEAST_REPEATED and frame["answered_anyway"].iloc[0] > 0.5)

    @cached_property
    def _asked_with_trace(self) -> Request | None:
        """Return a request whose model call came with the request's trace; None where none of a few did."""
        return next((each for each in self.requests[:ASKED] if self._makes_a_call(each)), None)

    def _makes_a_call(self, request: Request) -> bool:
        trace_id = secrets.token_hex(16)
        _send(request, f"00-{trace_id}-{secrets.token_hex(8)}-01")
        return _appears(self._recording, trace_id)


_REPEATED = """
SELECT count(*) AS repeated, avg(CASE WHEN calls = 0 THEN 1.0 ELSE 0.0 END) AS answered_anyway
FROM (SELECT r.request_id, row_number() OVER (PARTITION BY r.body_digest ORDER BY any_value(r.start_time)) AS time,
             count(c.call_id) AS calls
      FROM user_requests r LEFT JOIN owned_calls c ON c.request_id = r.request_id
      WHERE r.body_digest IS NOT NULL AND r.status_code < 400 GROUP BY r.request_id, r.body_digest)
WHERE time > 1
"""


def _send(request: Request, traceparent: str) -> None:
    """Send ``request`` in a trace and read its answer; one that fails proves nothing."""
    headers = {"content-type": "application/json", **request.headers, "traceparent": traceparent}
    body = None if request.json is None else json.dumps(request.json).encode()
    asked = urllib.request.Request(request.url, body, headers, method=request.method)
    try:
        with urllib.request.urlopen(asked, timeout=request.timeout_s) as answer:
            answer.read()
    except (urllib.error.URLError, OSError):
        return


def _appears(recording: Recording, trace_id: str, *, clock: Callable[[], float] = time.monotonic) -> bool:
    end = clock() + SEEN_WITHIN_S
    while clock() < end:
        recording.refresh()
        seen = recording.query("SELECT 1 FROM llm_calls WHERE source = 'proxy' AND trace_id = $id", {"id": trace_id})
        if not seen.empty:
            return True
        time.sleep(0.1)
    return False
