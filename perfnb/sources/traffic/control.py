"""Tell a proxy that runs in another process what to do: a second port on loopback, and the client for it.

``RECORDING/control.json``, readable by its owner alone, says where the port is and what token opens it. ``GET /state``
returns the state and its number; ``PUT /state`` sets one, or goes back to ``{"restore": NUMBER}``. Policies may hold
prompts, so former states stay in the proxy's memory and only their numbers leave it.
"""

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from perfnb.errors import NotReachable, PerfnbError, WrongUse
from perfnb.sources.traffic.policies.arms import OFF, State

CONTROL = "control.json"
REQUEST_BYTES = 8 * 2**20
TIMEOUT_S = 10.0


class Control:
    """The proxy's side: holds every state there was, and calls ``apply`` with each that is set."""

    def __init__(self, recording: Path, apply: Callable[[State], None]) -> None:
        self._path = recording / CONTROL
        self._apply = apply
        self._states = [State.of(OFF)]
        self._token = secrets.token_urlsafe(32)
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.2)

    async def start(self) -> None:
        """Listen, and write down where."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port = self._runner.addresses[0][1]
        partial = self._path.with_suffix(f".{secrets.token_hex(4)}")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps({"port": port, "token": self._token, "pid": os.getpid()}))
        partial.rename(self._path)

    async def stop(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=REQUEST_BYTES, middlewares=[self._guarded])
        app.add_routes([web.get("/state", self._show), web.put("/state", self._set)])
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            return web.json_response({"error": "wrong token"}, status=401)
        try:
            response: web.StreamResponse = await handler(request)
        except PerfnbError as error:
            return web.json_response({"error": error.message, "hint": error.hint}, status=422)
        except ValueError:
            return web.json_response({"error": "no JSON", "hint": ""}, status=422)
        return response

    async def _show(self, request: web.Request) -> web.Response:
        return self._answer()

    async def _set(self, request: web.Request) -> web.Response:
        given = await request.json()
        state = self._former(given["restore"]) if isinstance(given, dict) and "restore" in given else State.of(given)
        self._apply(state)
        self._states.append(state)
        return self._answer()

    def _former(self, number: Any) -> State:
        if not isinstance(number, int) or not 0 <= number < len(self._states):
            raise WrongUse(f"the proxy had no state {number!r}", hint="it was started anew since")
        return self._states[number]

    def _answer(self) -> web.Response:
        return web.json_response({"number": len(self._states) - 1, "state": self._states[-1].given})


class ProxyControl:
    """The client's side: reads and sets the state of the proxy that records into ``recording``."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token

    @property
    def proxy(self) -> str:
        """Return what tells this run of the proxy from another; opens nothing."""
        return hashlib.sha256(self._token.encode()).hexdigest()[:16]

    @classmethod
    def of(cls, recording: Path) -> Self:
        """Return the control of a running proxy; raises NotReachable where none runs."""
        try:
            given = json.loads((recording / CONTROL).read_text())
            return cls(given["port"], given["token"])
        except (OSError, ValueError, KeyError, TypeError):
            raise NotReachable(
                f"no proxy records into {recording}", hint="start one: perfnb record --upstream URL"
            ) from None

    def state(self) -> dict[str, Any]:
        """Return the proxy's state, as it was given."""
        return dict(self._ask("GET")["state"])

    def number(self) -> int:
        """Return the number of the proxy's state, to go back to."""
        return int(self._ask("GET")["number"])

    def set(self, state: Mapping[str, Any]) -> None:
        """Set the proxy's state; raises WrongUse with what is wrong with it."""
        self._ask("PUT", dict(state))

    def restore(self, number: int) -> None:
        """Go back to the state of that number."""
        self._ask("PUT", {"restore": number})

    def _ask(self, method: str, body: Any = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, "/state", None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotReachable(f"the proxy's control does not answer: {error}", hint="is it still running?") from None
        finally:
            connection.close()
        if response.status == 422:
            raise WrongUse(answer["error"], hint=answer.get("hint", ""))
        if response.status != 200:
            raise NotReachable("another process listens where the proxy's control was", hint="is it still running?")
        return answer
