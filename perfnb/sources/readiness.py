"""Whether each source would start for a target: one function a source, none of which changes anything.

Nothing is sent to an address but the opening of a connection, and what a vector store is asked for its state; only to
addresses the target names.
"""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from perfnb.errors import PerfnbError
from perfnb.sources.base import Readiness
from perfnb.target import Target

PATIENCE_S = 2.0
LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
PORTS = {"http": 80, "https": 443}

NO_PID = "name the app's process: --pid PID, or its address on this host: --app URL"


def proxy(target: Target) -> Readiness:
    """Tell whether the model provider can be reached."""
    if not target.upstream:
        return Readiness("proxy", False, "no model provider named", "--upstream URL, as the app's base URL has it")
    return _reached("proxy", target.upstream)


def otlp(target: Target) -> Readiness:
    """Tell which protocols of OpenTelemetry can be received."""
    from perfnb.sources.otlp import Otlp

    return Otlp(Path()).probe()


def front(target: Target) -> Readiness:
    """Tell whether the app answers and the port before it is free."""
    if not target.app or target.listen is None:
        return Readiness("front", False, "no app to stand in front of", "--listen PORT --app URL")
    reached = _reached("front", target.app)
    if reached.works and not is_free(target.listen):
        return Readiness("front", False, f"port {target.listen} is taken", "--listen with another port, or 0 for any")
    return reached


def probe(target: Target) -> Readiness:
    """Tell whether the requests' host can be reached."""
    if not target.requests:
        return Readiness("probe", False, "no request to send", "[[request]] in perfnb.toml, or --url URL")
    return _reached("probe", target.requests[0].url)


def logs(target: Target) -> Readiness:
    """Tell which log files can be read."""
    if not target.logs:
        return Readiness("logs", False, "no log file named", "--log FILE")
    missing = [str(path) for path in target.logs if not os.access(path, os.R_OK)]
    found = f"{len(target.logs) - len(missing)} of {len(target.logs)} files can be read"
    return Readiness("logs", not missing, found, f"check {', '.join(missing)}" if missing else "")


def postgres(target: Target) -> Readiness:
    """Tell what of the database can be seen, with its version, extension and rights."""
    from perfnb.sources.postgres.source import Postgres

    if not target.dsn:
        return Readiness("postgres", False, "no database named", "--dsn DSN, or PERFNB_DSN")
    return Postgres(_drop, target.dsn).probe()


def pgbouncer(target: Target) -> Readiness:
    """Tell which pools PgBouncer has."""
    from perfnb.sources.pgbouncer import PgBouncer

    if not target.pgbouncer:
        return Readiness("pgbouncer", False, "no PgBouncer named", "--pgbouncer DSN")
    return PgBouncer(_drop, target.pgbouncer).probe()


def metrics(target: Target) -> Readiness:
    """Tell how many series the pages of metrics show."""
    from perfnb.sources.prometheus import Prometheus

    if not target.metrics:
        return Readiness("metrics", False, "no page of metrics named", "--metrics URL")
    return Prometheus(_drop, target.metrics, timeout_s=PATIENCE_S).probe()


def process(target: Target) -> Readiness:
    """Tell whether the app's process can be seen."""
    from perfnb.sources.process import Process

    pid = pid_of(target)
    return Readiness("process", False, "no process named", NO_PID) if pid is None else Process(_drop, pid).probe()


def stacks(target: Target) -> Readiness:
    """Tell whether py-spy may look into the app's process, or into any of ours where none is named."""
    from perfnb.sources.pyspy import PySpy
    from perfnb.sources.stacks import Stacks

    pid = pid_of(target)
    if pid is not None:
        return Stacks(_drop, pid).probe()
    try:
        PySpy.find().look(os.getpid())
    except PerfnbError as error:
        return Readiness("stacks", False, error.message, error.hint)
    return Readiness("stacks", False, "py-spy works here; no process named", NO_PID)


def qdrant(target: Target) -> Readiness:
    """Tell whether Qdrant answers."""
    return _store("qdrant", target.qdrant, "--qdrant URL")


def milvus(target: Target) -> Readiness:
    """Tell whether Milvus answers."""
    return _store("milvus", target.milvus, "--milvus URI")


def redis(target: Target) -> Readiness:
    """Tell whether Redis answers."""
    return _store("redis", target.redis, "--redis URL")


def _store(name: str, address: str | None, switch: str) -> Readiness:
    from perfnb.sources.vector_stores import STORES

    return STORES[name](_drop, address).probe() if address else Readiness(name, False, f"no {name} named", switch)


def pid_of(target: Target) -> int | None:
    """Return the app's process as named, or who listens at its address on this host."""
    from perfnb.sources.process import pid_listening_on

    if target.pid is not None:
        return target.pid
    for address in (target.app, *(request.url for request in target.requests)):
        host, port = _host_and_port(address or "")
        if host in LOCAL and port and (pid := pid_listening_on(port)) is not None:
            return pid
    return None


def is_free(port: int) -> bool:
    """Tell whether nobody listens on ``port`` of the loopback address; 0 means any, which is free."""
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def _reached(name: str, url: str) -> Readiness:
    host, port = _host_and_port(url)
    if not host or not port:
        return Readiness(name, False, "not an address", "give a URL with http:// or https://")
    try:
        socket.create_connection((host, port), timeout=PATIENCE_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        return Readiness(name, False, f"{host}:{port} does not answer: {reason}", "start it, or mend the address")
    return Readiness(name, True, f"{host}:{port} answers")


def _host_and_port(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return None, None


def _drop(table: str, rows: object) -> int:
    return 0
