"""An endpoint that is made from a disk, and the agent in forked processes: nothing is imported twice."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from crash.calls import Call
from crash.disk import Disk, Eyes
from crash.recorder import Recorder
from crash.tap import Fault, Tap
from support.endpoints import Endpoint

import agent.cycle
import agent.floor  # noqa: F401 -- imported before the fork
from agent.cli import commands
from agent.platform import process, systemd  # noqa: F401 -- same

LOG = "var/lib/commandit/updater.log"
SECONDS = 60
"""No command takes so long; one that does hangs."""
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command of the agent came out."""

    code: int
    """Its exit code, or minus the signal that ended it."""
    said: str
    calls: tuple[Call, ...] = ()


@dataclass
class Bench:
    """One place for endpoints, one after the other."""

    folder: Path
    boot: str = ""
    """A name of the boot that programs see; "": the machine's own."""
    generation: int = 0
    """Of the last disk; no two benches may have the same."""
    eyes: Eyes = field(default_factory=Eyes)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.endpoint = Endpoint(self.folder.resolve() / "endpoint")
        # Programs whose agent was killed become children of this process, so that none is left.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def begin(self, disk: Disk, boot: str = "") -> None:
        """Have this disk, and no program."""
        self.clear()
        self.generation += 1
        self.eyes = Eyes(disk.make(self.endpoint.root), self.generation)
        self.boot = boot

    def disk(self) -> Disk:
        """Return what the endpoint's disk holds now."""
        return Disk.of(self.endpoint.root, self.eyes)

    def clear(self) -> None:
        """End every program, and remove the endpoint."""
        self.power_off()
        shutil.rmtree(self.endpoint.root, ignore_errors=True)

    def power_off(self) -> None:
        """End every program."""
        while self.endpoint.processes():
            self.endpoint.kill_all()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def run(self, *arguments: str | Path, fault: Fault | None = None, record: bool = False) -> Ran:
        """Run the agent to its end, with a fault or recorded."""
        said, told = self.folder / "said", self.folder / "told"
        told.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            self._be_agent([*map(str, arguments)], fault, said, told if record else None)
        status = _wait(child)
        calls = ()
        if record:
            import pickle

            calls = tuple(pickle.loads(told.read_bytes()))  # noqa: S301 -- written by our own child
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return Ran(code, said.read_text(errors="replace"), calls)

    def _be_agent(self, arguments: Sequence[str], fault: Fault | None, said: Path, told: Path | None) -> NoReturn:
        code = 70
        try:
            _speak_into(said)
            root = self.endpoint.root
            recorder = None if told is None else Recorder(str(root), self.eyes.see)
            tap = Tap(root, LOG, fault, recorder)
            self.eyes.put_on()
            if self.boot:
                process.boot_id = lambda: self.boot  # type: ignore[assignment]
            tap.install()
            code = _exit_code(lambda: commands(["--root-dir", str(root), *arguments], "commandit-updater"))
            if told is not None and recorder is not None:
                import pickle

                told.write_bytes(pickle.dumps(recorder.calls))
        except BaseException:  # noqa: BLE001 -- a child that must not go on in its parent's code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _speak_into(said: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _exit_code(run: Callable[[], object]) -> int:
    try:
        run()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    return 0


def _wait(child: int) -> int:
    import select

    descriptor = os.pidfd_open(child)
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        if not waiting.poll(SECONDS * 1000):
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(descriptor)
    return os.waitpid(child, 0)[1]
