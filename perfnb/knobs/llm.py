"""The policies of the LLM proxy as a knob; see :mod:`perfnb.sources.traffic.policies` for what there is.

Policies may hold prompts, so the way back is the number of a state that the proxy itself remembers.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from perfnb.errors import NotReachable
from perfnb.knobs.base import Knob
from perfnb.recording import Recording
from perfnb.sources.traffic.control import ProxyControl
from perfnb.sources.traffic.policies.arms import without_texts
from perfnb.target import Target


class LlmPolicy:
    """What the proxy that records into ``recording`` does to model calls: a policy, {} for nothing."""

    kind = "llm"
    name = "llm"
    title = "policies of the LLM proxy"
    splits_by_trace = True

    def __init__(self, recording: Path) -> None:
        self._recording = recording
        self._before: Mapping[str, Any] | None = None

    def current(self) -> dict[str, Any]:
        """Return the policy for calls outside any trial."""
        return dict(self._control().state()["base"] or {})

    def set(self, value: Mapping[str, Any]) -> None:
        """Do ``value`` to every call from the next on."""
        self._put(base=dict(value))

    def split(self, trial: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
        """Do ``a`` to the calls of traces in arm A and ``b`` to those in arm B."""
        self._put(arms={"trial": trial, "policies": {"A": dict(a), "B": dict(b)}})

    def undo(self) -> None:
        """Bring back the state before the first change."""
        if self._before is not None:
            before, self._before = self._before, None
            go_back(self._recording, before)

    def way_back(self) -> dict[str, Any]:
        """Return the number of the proxy's state, and which proxy it is."""
        control = self._control()
        return {"number": control.number(), "proxy": control.proxy}

    def shown(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the policy with no prompt in it."""
        return without_texts(value)

    def _control(self) -> ProxyControl:
        return ProxyControl.of(self._recording)

    def _put(self, **changes: Any) -> None:
        if self._before is None:
            self._before = self.way_back()
        control = self._control()
        control.set({**control.state(), **changes})


class ArmLabel:
    """Has the proxy mark all calls with an arm while another knob is tried; a way back is on the timeline."""

    kind = "llm"
    name = "llm label"
    title = "arm that calls are marked with"

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._stack = contextlib.ExitStack()
        self._is_begun = False

    def __call__(self, label: Mapping[str, str] | None) -> None:
        """Mark calls with ``{"trial": …, "arm": …}``; None ends it."""
        from perfnb.knobs.undo import changing

        if label is None:
            self._stack.close()
            self._is_begun = False
        elif self._is_begun:
            self.set(label)
        else:
            self._stack.enter_context(changing(self._recording, self, label))
            self._is_begun = True

    def current(self) -> Any:
        """Return the mark."""
        return self._control().state()["label"]

    def set(self, value: Mapping[str, str] | None) -> None:
        """Mark calls with ``value``."""
        control = self._control()
        control.set({**control.state(), "label": value})

    def undo(self) -> None:
        """Mark no call."""
        with contextlib.suppress(NotReachable):
            self.set(None)

    def way_back(self) -> dict[str, Any]:
        """Return that the mark goes."""
        return {"label": None, "proxy": self._control().proxy}

    def shown(self, value: Any) -> Any:
        """Return the mark."""
        return value

    def _control(self) -> ProxyControl:
        return ProxyControl.of(self._recording.path)


def knobs(recording: Recording, target: Target) -> Iterator[Knob]:
    """Yield the policy knob where a proxy records into ``recording`` now."""
    with contextlib.suppress(NotReachable):
        ProxyControl.of(recording.path).number()
        yield LlmPolicy(recording.path)


def go_back(recording: Path, way: Mapping[str, Any]) -> str:
    """Bring back the proxy's state; a proxy that has ended, or was started anew, has no policies left."""
    try:
        control = ProxyControl.of(recording)
        if control.proxy == way["proxy"]:
            if "number" in way:
                control.restore(way["number"])
            else:
                control.set({**control.state(), "label": None})
            return "the LLM proxy does again what it did"
    except NotReachable:
        pass
    return "the LLM proxy that had it has ended, and its policies with it"
