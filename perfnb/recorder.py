"""Record a target: start the sources that can work, keep them running, stop them in order and seal."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from perfnb.errors import NotReachable, PerfnbError
from perfnb.recording import Content, Recording
from perfnb.sources import Kind, added_kinds
from perfnb.sources.base import Source
from perfnb.sources.restarts import Restarts, Variables
from perfnb.target import Target

DEFAULT_UPSTREAM = "https://api.openai.com/v1"
STOP_COMMAND_S = 10.0
OTLP_PORTS = (4318, 4317)
"""Where OpenTelemetry's exporters send to unless told otherwise: HTTP, gRPC."""

Tell = Callable[[str], None]


def default_path(now: datetime | None = None) -> Path:
    """Return where a recording goes when no --out is given: perfnb-DATE-TIME.perfnb in the working directory.

    A second one of the same second ends in -2, a third in -3.
    """
    name = f"perfnb-{now or datetime.now(UTC):%Y%m%d-%H%M%S}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(path for path in (Path(f"{each}.perfnb") for each in names) if not path.exists())


class Recorder:
    """A recording being made: leaving it stops every source and seals.

    ``otlp_ports`` are for HTTP and gRPC where there is no command to tell them to; another is taken where one is not free.
    Sources that cannot start are told through ``tell`` with what they need and left out; the rest goes on.
    """

    def __init__(
        self,
        target: Target,
        path: Path,
        *,
        content: Content = "digest",
        simulated: bool = False,
        tell: Tell = print,
        otlp_ports: tuple[int, int] = (0, 0),
    ) -> None:
        self.target = target
        self._otlp_ports = otlp_ports
        self.recording = Recording.create(path, content=content, simulated=simulated)
        self.refused: dict[str, str] = {}
        self._content = content
        self._tell = tell
        self._running: dict[str, Source] = {}
        self._writer = self.recording.writer()
        self._command: subprocess.Popen[bytes] | None = None
        self._restarts = Restarts(path)
        self._gone: set[str] = set()

    def __enter__(self) -> Self:
        self.recording.add_event("mark", "recording started", {"content": self._content})
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> Mapping[str, Source]:
        """Return the sources that run, by name."""
        return self._running

    @property
    def is_command_running(self) -> bool:
        """Tell whether the command given still runs; True where there is none."""
        return self._command is None or self._command.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Return the exit code of the command where it has ended, negative where a signal ended it; None otherwise."""
        return None if self._command is None else self._command.poll()

    @property
    def is_proxy_unused(self) -> bool:
        """Tell whether there is a proxy that no call has come to."""
        proxy = self._running.get("proxy")
        return proxy is not None and not proxy.counters.get("exchanges")

    @property
    def is_probe_done(self) -> bool:
        """Tell whether a probe was asked for and has sent all its requests."""
        probe = self._running.get("probe")
        return probe is not None and bool(probe.counters.get("finished"))

    def counters(self) -> dict[str, dict[str, int]]:
        """Return what each source has seen so far."""
        return {name: dict(source.counters) for name, source in self._running.items()}

    def environment(self) -> dict[str, str]:
        """Return the variables that make an app talk to this recorder."""
        variables = {}
        if proxy := self._running.get("proxy"):
            variables["OPENAI_BASE_URL"] = variables["OPENAI_API_BASE"] = _url(proxy)
        if otlp := self._running.get("otlp"):
            variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = str(getattr(otlp, "http_url", ""))
            variables["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
        return variables

    def start(self, name: str, make: Callable[[], Source]) -> Source | None:
        """Start one source; return None and tell why where it can't."""
        try:
            source = make()
            readiness = source.probe()
            if not readiness.works:
                raise NotReachable(f"{name}: {readiness.found}", hint=readiness.needs)
            source.__enter__()
        except PerfnbError as error:
            self._refuse(name, str(error))
            return None
        self._running[name] = source
        return source

    def _refuse(self, name: str, why: str) -> None:
        self.refused[name] = why
        self._tell(f"without {name}: {why}")
        self.recording.add_event("source", f"{name} could not start", {"why": why})

    def watch_process(self, pid: int) -> None:
        """Sample the process ``pid``: its resources and its stacks."""
        from perfnb.sources.process import Process
        from perfnb.sources.stacks import Stacks

        self.start("process", lambda: Process(self._writer.write, pid))
        self.start("stacks", lambda: Stacks(self._writer.write, pid))

    def restart_if_asked(self) -> None:
        """Start the command anew with other variables where a knob asks for it, and watch its new process."""
        if self._command is None or (asked := self._restarts.asked()) is None:
            return
        number, variables = asked
        self._stop_command()
        watched = [name for name in ("process", "stacks") if name in self._running]
        for name in watched:
            with contextlib.suppress(Exception):
                self._running.pop(name).__exit__(None, None, None)
        why = ""
        try:
            self._start_command(variables)
        except NotReachable as error:
            why = str(error)
        if watched and not why:
            self.watch_process(self._command.pid)
        self.recording.add_event("mark", "the command was started anew", {"variables": sorted(variables)})
        self._restarts.tell(self._command.pid, variables, number, why)

    def lost_sources(self) -> list[str]:
        """Return the names of sources that died since the last look, putting each on the timeline."""
        gone = [name for name, source in self._running.items() if not getattr(source, "is_alive", True)]
        fresh = [name for name in gone if name not in self._gone]
        for name in fresh:
            self._gone.add(name)
            self.recording.add_event("source", f"{name} stopped by itself", {})
        return fresh

    def stop(self) -> None:
        """Stop the command, then every source, and seal; safe to call twice."""
        self._stop_command()
        self._restarts.close()
        for name in reversed(list(self._running)):
            with contextlib.suppress(Exception):
                self._running[name].__exit__(None, None, None)
        self._running.clear()
        if self.recording.path.exists():
            self.recording.add_event("mark", "recording stopped", {})
        self._writer.close()
        self.recording.seal()
        self.recording.close()

    def _start_all(self) -> None:
        target, path = self.target, self.recording.path
        upstream = target.upstream or (os.environ.get("OPENAI_BASE_URL", DEFAULT_UPSTREAM) if target.command else None)
        if upstream:
            from perfnb.sources.llm_proxy import LlmProxy

            self.start("proxy", lambda: LlmProxy(path, upstream, port=target.proxy_port or 0))
        if target.dsn:  # before the app: what it does first is in the first difference
            from perfnb.sources.postgres.source import Postgres

            dsn = target.dsn
            self.start("postgres", lambda: Postgres(self._writer.write, dsn))
        if target.pgbouncer:
            from perfnb.sources.pgbouncer import PgBouncer

            self.start("pgbouncer", partial(PgBouncer, self._writer.write, target.pgbouncer))
        if target.otlp or target.command:
            from perfnb.sources.otlp import Otlp

            http, grpc = (0, 0) if target.command else self._free_otlp_ports()
            self.start("otlp", lambda: Otlp(path, port=http, grpc_port=grpc))
        if target.command:
            self._start_command()
            self._restarts.tell(self._command.pid if self._command else 0, {})
        if target.app and target.listen is not None:
            from perfnb.sources.front import Front

            app, port = target.app, target.listen
            self.start("front", lambda: Front(path, app, port=port))
        if target.logs:
            from perfnb.sources.logs import Logs

            self.start("logs", lambda: Logs(self._writer.write, target.logs))
        if target.metrics:
            from perfnb.sources.prometheus import Prometheus

            waits = bool(target.command)
            self.start("metrics", lambda: Prometheus(self._writer.write, target.metrics, waits=waits))
        self._start_stores()
        for kind in added_kinds():
            self._start_added(kind)
        if (pid := self._pid()) is not None:
            self.watch_process(pid)
        if target.requests:
            from perfnb.sources.probe import Probe

            self.start("probe", lambda: Probe(path, target.requests, lag_url=target.health))

    def _free_otlp_ports(self) -> tuple[int, int]:
        """Return the ports asked for, and 0, for any, where one is taken."""
        taken = [port for port in self._otlp_ports if not is_free(port)]
        for port in taken:
            self._tell(f"port {port} is taken: point the app at the address below")
        http, grpc = (0 if port in taken else port for port in self._otlp_ports)
        return http, grpc

    def _start_stores(self) -> None:
        from perfnb.sources.vector_stores import STORES

        for name, of in STORES.items():
            if address := getattr(self.target, name):
                self.start(name, partial(of, self._writer.write, address))

    def _start_added(self, kind: Kind) -> None:
        try:
            if kind.start is not None and kind.ready(self.target).works:
                self.start(kind.name, partial(kind.start, self.target, self._writer.write))
        except Exception as defect:  # another package's trouble must not end the recording
            self._refuse(kind.name, f"{type(defect).__name__} in its package")

    def _start_command(self, variables: Variables | None = None) -> None:
        given = os.environ | self.environment() | dict(variables or {})
        environment = {name: value for name, value in given.items() if value is not None}
        try:
            self._command = subprocess.Popen(self.target.command, env=environment)
        except OSError as error:
            raise NotReachable(
                f"{self.target.command[0]} can't be started: {error.strerror}", hint="check the command after --"
            ) from None

    def _stop_command(self) -> None:
        command = self._command
        if command is None or command.poll() is not None:
            return
        command.send_signal(signal.SIGTERM)
        try:
            command.wait(STOP_COMMAND_S)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()

    def _pid(self) -> int | None:
        """Return the app's process: as given, the command's, or whoever listens at the app's address on this host."""
        if self.target.pid is not None:
            return self.target.pid
        if self._command is not None:
            return self._command.pid
        addresses = [self.target.app, *(request.url for request in self.target.requests)]
        for address in filter(None, addresses):
            if (pid := _local_pid(address)) is not None:
                return pid
        return None


def wait(recorder: Recorder, seconds: float | None, *, tick: Callable[[], Any], interval_s: float = 0.5) -> int | None:
    """Wait for ``seconds``, for the command's or the probe's end, or for Ctrl-C, calling ``tick`` meanwhile.

    Returns the command's exit code where it ended by itself, which the timeline then tells; else None.
    """
    until = None if seconds is None else time.monotonic() + seconds
    with contextlib.suppress(KeyboardInterrupt):
        while recorder.is_command_running and (until is None or time.monotonic() < until):
            if until is None and recorder.is_probe_done:
                return None
            recorder.restart_if_asked()
            tick()
            time.sleep(interval_s if until is None else min(interval_s, max(0.0, until - time.monotonic())))
        if (code := recorder.exit_code) is not None:
            recorder.recording.add_event("mark", "the command ended by itself", {"exit_code": code})
            return code
    return None


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether nothing listens at ``port``."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections closed a moment ago take no port
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError:
            return False
    return True


def _url(source: Source) -> str:
    return str(getattr(source, "url", ""))


def _local_pid(address: str) -> int | None:
    from perfnb.sources.process import pid_listening_on

    parts = urlsplit(address)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1", "0.0.0.0"):
        return None
    return pid_listening_on(parts.port or (443 if parts.scheme == "https" else 80))
