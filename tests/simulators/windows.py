"""The parts of advapi32 and kernel32 that the agent calls, with services whose programs really run.

The functions are C functions of the agent's own prototypes, so structures, pointers and strings cross the same border
as on Windows. A stop control is a SIGTERM, ``TerminateProcess`` a SIGKILL. Faults: ``failing[name]`` makes a function
fail with these error numbers, ``dying_at`` kills the agent at the n-th call, ``deaf`` processes survive.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import os
import signal
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from ctypes import POINTER, cast
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from simulators.windows_rights import RightsOfWindows
from simulators.windows_services import AUTO, ServicesOfWindows, SimulatedService
from simulators.windows_waits import OtherProcess, SimulatedPipe, WaitsOfWindows

from agent.platform import win32
from agent.platform.jobs import ExtendedLimits
from agent.platform.win32 import (
    ADVAPI32,
    KERNEL32,
    SHELL32,
    FileAttributeTagInfo,
    Prototype,
    Win32,
)

INVALID_HANDLE = -1
DESCRIPTORS = 0x4000_0000_0000
"""Handles from here on are those of descriptors."""


class Killed(BaseException):
    """The agent was killed here."""


@dataclass
class SimulatedFile:
    """An open file, folder or reparse point."""

    descriptor: int | None
    attributes: int


@dataclass
class SimulatedJob:
    """A job object; what a program starts belongs to its process group here."""

    leaders: list[int] = field(default_factory=list)
    ends_when_closed: bool = False


@dataclass
class WindowsSimulator(ServicesOfWindows, RightsOfWindows, WaitsOfWindows):
    """A machine with services. ``folder``: the working directory of their programs."""

    folder: str
    environment: Mapping[str, str]
    restart_delay: float | None = None
    """In seconds, instead of what the services are configured with."""
    slow_to_accept: int = 0
    """How many stop controls a service refuses since it is still starting."""
    deaf: bool = False
    administrator: bool = True
    refusing_access: int = 0
    """The error number with which access lists are not set."""
    failing: dict[str, list[int]] = field(default_factory=dict)
    dying_at: int | None = None
    services: dict[str, SimulatedService] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    moves: list[tuple[str, str | None, int]] = field(default_factory=list)
    security: dict[str, tuple[str, int]] = field(default_factory=dict)
    open_handles: dict[int, Any] = field(default_factory=dict)
    lasting: Any = None
    """What a structure that was returned points into."""
    pipe: SimulatedPipe | None = None
    by_windows: bool = False
    """Whether this program was started as a service."""
    statuses: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    """State, controls accepted, own exit code, check point, hint."""
    control: Any = None
    leaders: set[int] = field(default_factory=set)
    """Processes that were ever started as services; each leads a session here."""
    error: int = 0
    _numbers: Any = field(default_factory=lambda: itertools.count(0x1_0000_0001))
    _memory: dict[int, Any] = field(default_factory=dict)

    def api(self) -> Win32:
        """Return the libraries."""
        return Win32(
            self._library(ADVAPI32), self._library(KERNEL32), self._library(SHELL32), lambda: self.error,
            self.descriptor_of, self.handle_of,
        )  # fmt: skip

    def boot(self) -> None:
        """Cut the power and start again: what starts at boot does."""
        self.power_off()
        for service in self.services.values():
            if service.start_type == AUTO:
                self._spawn(service)

    def power_off(self) -> None:
        """End everything at once."""
        for service in self.services.values():
            if service.process is not None:
                service.process.kill()
                service.process.wait()
            service.process, service.ended_at, service.stopping = None, None, False

    def _library(self, prototypes: Mapping[str, Prototype]) -> SimpleNamespace:
        return SimpleNamespace(**{name: self._function(name, prototype) for name, prototype in prototypes.items()})

    def _function(self, name: str, prototype: Prototype) -> Callable[..., Any]:
        body = getattr(self, name)

        def call(*arguments: Any) -> Any:
            if name != "Process32NextW":
                # The next line of a table is no moment of its own.
                self.calls.append(name)
            self.catch_up()
            if self.failing.get(name):
                return self._fail(self.failing[name].pop(0))
            return body(*arguments)

        function = ctypes.CFUNCTYPE(*prototype)(call)

        def counted(*arguments: Any) -> Any:
            # Out here, for no exception crosses a C function.
            if self.dying_at is not None and len(self.calls) >= self.dying_at:
                raise Killed
            return function(*arguments)

        return counted

    def _fail(self, number: int) -> int:
        self.error = number
        return 0

    def _handle(self, what: Any) -> int:
        number: int = next(self._numbers)
        self.open_handles[number] = what
        return number

    # The functions of shell32

    def IsUserAnAdmin(self) -> int:  # noqa: N802
        return int(self.administrator)

    # The functions of kernel32

    def OpenProcess(self, access: int, inherit: int, pid: int) -> int:  # noqa: N802
        assert inherit == 0
        if access == 0x0101:
            return self._handle(pid)
        if access == 0x10_0000:
            return self._handle(pid)
        found = [one.process for one in self.services.values() if one.process is not None and one.process.pid == pid]
        if access == 0x10_1001:
            return self._handle(found[0] if found else OtherProcess(pid))
        assert access == 0x10_0001
        return self._handle(found[0]) if found else self._fail(win32.ERROR_INVALID_PARAMETER)

    def TerminateProcess(self, handle: int, exit_code: int) -> int:  # noqa: N802
        process = self.open_handles[handle]
        assert exit_code == 1
        if process.poll() is not None:
            return self._fail(win32.ERROR_ACCESS_DENIED)
        if not self.deaf:
            process.send_signal(signal.SIGKILL)
        return 1

    def CloseHandle(self, handle: int) -> int:  # noqa: N802
        closed = self.open_handles.pop(handle)
        if closed is self.pipe:
            self.pipe = None
        if isinstance(closed, SimulatedFile) and closed.descriptor is not None:
            os.close(closed.descriptor)
        if isinstance(closed, SimulatedJob) and closed.ends_when_closed:
            for leader in closed.leaders:
                with suppress(ProcessLookupError):
                    os.killpg(leader, signal.SIGKILL)
        return 1

    def CreateJobObjectW(self, security: int | None, name: str | None) -> int:  # noqa: N802
        assert (security, name) == (None, None)
        return self._handle(SimulatedJob())

    def SetInformationJobObject(self, job: int, level: int, limits: int, size: int) -> int:  # noqa: N802
        assert (level, size) == (9, 144)
        flags = cast(limits, POINTER(ExtendedLimits)).contents.flags
        self.open_handles[job].ends_when_closed = bool(flags & 0x2000)
        return 1

    def AssignProcessToJobObject(self, job: int, process: int) -> int:  # noqa: N802
        self.open_handles[job].leaders.append(self.open_handles[process])
        return 1

    def MoveFileExW(self, source: str, target: str | None, flags: int) -> int:  # noqa: N802
        if flags & 4:
            self.moves.append((source, target, flags))
            return 1
        assert target is not None
        assert flags & 8, "written through"
        if os.path.lexists(target) and not flags & 1:
            return self._fail(win32.ERROR_ALREADY_EXISTS)
        try:
            os.replace(source, target)  # noqa: PTH105 -- strings
        except OSError as error:
            return self._fail(_number(error))
        return 1

    def CreateFileW(  # noqa: N802
        self, name: str, access: int, share: int, security: Any, creation: int, flags: int, template: Any
    ) -> int:
        assert (security, template) == (None, None)
        assert flags & 0x20_0000, "a reparse point is opened itself"
        folder = bool(flags & 0x200_0000)
        assert share == (3 if folder else 7)
        if Path(name).is_symlink():
            return self._handle(SimulatedFile(None, 0x400))
        if Path(name).is_dir():
            if not folder:
                self._fail(win32.ERROR_ACCESS_DENIED)
                return INVALID_HANDLE
            return self._handle(SimulatedFile(None, 0x10))
        how = {1: os.O_CREAT | os.O_EXCL, 3: 0, 4: os.O_CREAT}[creation]
        writes = bool(access & 0x4000_0004)
        reads = bool(access & 0x8000_0001)
        how |= os.O_RDWR if writes and reads else os.O_WRONLY if writes else os.O_RDONLY
        how |= os.O_APPEND if access & 0x4 else 0
        assert access & 0x8000_0080, "its attributes may be asked for"
        if writes and Path(name).exists() and not Path(name).stat().st_mode & stat.S_IWRITE:
            self._fail(win32.ERROR_ACCESS_DENIED)
            return INVALID_HANDLE
        try:
            return self._handle(SimulatedFile(os.open(name, how, 0o777), 0x80))
        except OSError as error:
            self._fail(_number(error))
            return INVALID_HANDLE

    def GetFileInformationByHandleEx(self, handle: int, level: int, info: int, size: int) -> int:  # noqa: N802
        assert (level, size) == (9, 8)
        cast(info, POINTER(FileAttributeTagInfo)).contents.attributes = self.open_handles[handle].attributes
        return 1

    def descriptor_of(self, handle: int, flags: int) -> int:
        """``msvcrt.open_osfhandle``."""
        assert not flags & ~(os.O_APPEND | os.O_RDWR | os.O_WRONLY)
        file = self.open_handles.pop(handle)
        assert file.descriptor is not None
        return int(file.descriptor)

    def handle_of(self, descriptor: int) -> int:
        """``msvcrt.get_osfhandle``."""
        return DESCRIPTORS + descriptor

    def LockFileEx(  # noqa: N802
        self, handle: int, flags: int, reserved: int, low: int, high: int, where: Any
    ) -> int:
        assert (reserved, low, high, flags & ~1) == (0, 1, 0, 2)
        assert where.contents.offset_high > 0x1000_0000, "far behind the end, for a locked byte cannot be read"
        try:
            fcntl.flock(handle - DESCRIPTORS, fcntl.LOCK_EX | (fcntl.LOCK_NB if flags & 1 else 0))
        except BlockingIOError:
            return self._fail(win32.ERROR_LOCK_VIOLATION)
        return 1

    def LocalFree(self, memory: int) -> int:  # noqa: N802
        del self._memory[memory]
        return 0


def _number(error: OSError) -> int:
    """Return what Windows calls an error."""
    numbers = {
        errno.ENOENT: win32.ERROR_FILE_NOT_FOUND, errno.EEXIST: win32.ERROR_FILE_EXISTS,
        errno.EACCES: win32.ERROR_ACCESS_DENIED, errno.ENOSPC: win32.ERROR_DISK_FULL,
    }  # fmt: skip
    return numbers.get(error.errno or 0, win32.ERROR_INVALID_PARAMETER)
