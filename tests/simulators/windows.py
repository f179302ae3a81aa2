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
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from ctypes import POINTER, c_int32, c_wchar_p, cast
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from simulators.windows_waits import OtherProcess, SimulatedPipe, WaitsOfWindows

from agent.platform import win32
from agent.platform.jobs import ExtendedLimits
from agent.platform.win32 import (
    ADVAPI32,
    KERNEL32,
    SHELL32,
    FailureActions,
    FileAttributeTagInfo,
    Prototype,
    ServiceConfig,
    ServiceStatusProcess,
    Win32,
)

AUTO, DEMAND = 2, 3
STOPPED, STOP_PENDING, RUNNING = 1, 3, 4
NO_CHANGE = 0xFFFF_FFFF
PROCESS_ABORTED = 1067
OPEN = "O:BAD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIID;0x1200a9;;;BU)(A;CIID;DCLCRPCR;;;BU)"
"""What a folder in ``ProgramData`` inherits."""
INVALID_HANDLE = -1
DESCRIPTORS = 0x4000_0000_0000
"""Handles from here on are those of descriptors."""


class Killed(BaseException):
    """The agent was killed here."""


@dataclass
class SimulatedService:
    """A row of the service control manager's database."""

    command_line: str
    start_type: int
    restarts_after: float | None = None
    process: subprocess.Popen[bytes] | None = None
    stopping: bool = False
    exit_code: int = 0
    own_exit_code: int = 0
    ended_at: float | None = None
    """When it failed; ``None`` if it was stopped."""
    deleted: bool = False
    text: str = ""
    flags: dict[int, bool] = field(default_factory=dict)
    """3: started late at boot; 4: a bad exit code is a failure."""


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
class WindowsSimulator(WaitsOfWindows):
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

    # The functions of advapi32 for services

    def OpenSCManagerW(self, machine: str | None, database: str | None, access: int) -> int:  # noqa: N802
        assert (machine, database) == (None, None)
        return self._handle(("manager", access))

    def OpenServiceW(self, manager: int, name: str, access: int) -> int:  # noqa: N802
        assert self.open_handles[manager][0] == "manager"
        if name not in self.services:
            return self._fail(win32.ERROR_SERVICE_DOES_NOT_EXIST)
        return self._handle((self.services[name], access))

    def CreateServiceW(  # noqa: N802
        self, manager: int, name: str, shown: str, access: int, kind: int, start: int, error: int, line: str, *rest: Any
    ) -> int:
        assert self.open_handles[manager][1] & 2, "SC_MANAGER_CREATE_SERVICE"
        assert (shown, kind, error, rest) == (name, 0x10, 1, (None,) * 5)
        if name in self.services:
            gone = self.services[name].deleted
            return self._fail(win32.ERROR_SERVICE_MARKED_FOR_DELETE if gone else win32.ERROR_SERVICE_EXISTS)
        self.services[name] = SimulatedService(line, start)
        return self._handle((self.services[name], access))

    def ChangeServiceConfigW(  # noqa: N802
        self, handle: int, kind: int, start: int, error: int, line: str | None, *rest: Any
    ) -> int:
        service = self._service(handle, 2)
        assert (kind, error, rest) == (NO_CHANGE, NO_CHANGE, (None,) * 6)
        service.start_type = service.start_type if start == NO_CHANGE else start
        service.command_line = service.command_line if line is None else line
        return 1

    def ChangeServiceConfig2W(self, handle: int, level: int, info: int) -> int:  # noqa: N802
        service = self._service(handle, 2)
        if level == 1:
            service.text = cast(info, POINTER(c_wchar_p)).contents.value or ""
        if level in {3, 4}:
            service.flags[level] = bool(cast(info, POINTER(c_int32)).contents.value)
        if level != 2:
            return 1
        actions = cast(info, POINTER(FailureActions)).contents
        if not actions.count:
            service.restarts_after = None
            return 1
        self._service(handle, 0x10)
        assert actions.actions[0].kind == 1
        service.restarts_after = actions.actions[0].delay / 1000
        return 1

    def QueryServiceConfigW(self, handle: int, buffer: int, size: int, needed: Any) -> int:  # noqa: N802
        service = self._service(handle, 1)
        assert size == 8192
        needed.contents.value = ctypes.sizeof(ServiceConfig)
        self.lasting = config = ServiceConfig(command_line=service.command_line)
        ctypes.memmove(buffer, ctypes.addressof(config), ctypes.sizeof(config))
        return 1

    def StartServiceW(self, handle: int, count: int, arguments: int | None) -> int:  # noqa: N802
        service = self._service(handle, 0x10)
        assert (count, arguments) == (0, None)
        if service.process is not None:
            return self._fail(win32.ERROR_SERVICE_ALREADY_RUNNING)
        return 1 if self._spawn(service) else self._fail(win32.ERROR_ACCESS_DENIED)

    def ControlService(self, handle: int, control: int, status: Any) -> int:  # noqa: N802
        service = self._service(handle, 0x20)
        assert control == 1
        if service.process is None:
            return self._fail(win32.ERROR_SERVICE_NOT_ACTIVE)
        if self.slow_to_accept:
            self.slow_to_accept -= 1
            return self._fail(win32.ERROR_SERVICE_CANNOT_ACCEPT_CTRL)
        service.stopping = True
        service.process.terminate()
        status.contents.current_state = STOP_PENDING
        return 1

    def QueryServiceStatusEx(self, handle: int, level: int, status: Any, size: int, needed: Any) -> int:  # noqa: N802
        service = self._service(handle, 4)
        assert (level, size) == (0, ctypes.sizeof(ServiceStatusProcess)), "36 bytes"
        needed.contents.value = size
        running = RUNNING if not service.stopping else STOP_PENDING
        status.contents.current_state = STOPPED if service.process is None else running
        status.contents.process_id = 0 if service.process is None else service.process.pid
        status.contents.win32_exit_code = service.exit_code
        status.contents.service_exit_code = service.own_exit_code
        return 1

    def DeleteService(self, handle: int) -> int:  # noqa: N802
        service = self._service(handle, 0x1_0000)
        if service.deleted:
            return self._fail(win32.ERROR_SERVICE_MARKED_FOR_DELETE)
        service.deleted = True
        return 1

    def CloseServiceHandle(self, handle: int) -> int:  # noqa: N802
        del self.open_handles[handle]
        held = [what[0] for what in self.open_handles.values() if isinstance(what, tuple)]
        for name, service in list(self.services.items()):
            if service.deleted and service.process is None and not any(one is service for one in held):
                del self.services[name]
        return 1

    # The functions of advapi32 for access control

    def ConvertStringSecurityDescriptorToSecurityDescriptorW(  # noqa: N802
        self, text: str, revision: int, out: Any, size: Any
    ) -> int:
        assert revision == 1
        assert not size
        buffer = ctypes.create_unicode_buffer(text)
        self._memory[ctypes.addressof(buffer)] = buffer
        out.contents.value = ctypes.addressof(buffer)
        return 1

    def GetSecurityDescriptorDacl(self, descriptor: int, present: Any, acl: Any, defaulted: Any) -> int:  # noqa: N802
        present.contents.value, defaulted.contents.value = 1, 0
        acl.contents.value = descriptor
        return 1

    def GetSecurityDescriptorOwner(self, descriptor: int, owner: Any, defaulted: Any) -> int:  # noqa: N802
        owner.contents.value, defaulted.contents.value = descriptor, 0
        return 1

    def GetSecurityDescriptorControl(self, descriptor: int, control: Any, revision: Any) -> int:  # noqa: N802
        control.contents.value = 0x1004 if "D:P" in self._memory[descriptor].value else 0x4
        revision.contents.value = 1
        return 1

    def ConvertSecurityDescriptorToStringSecurityDescriptorW(  # noqa: N802
        self, descriptor: int, revision: int, what: int, out: Any, size: Any
    ) -> int:
        assert (revision, what, size) == (1, 5, None)
        return self.ConvertStringSecurityDescriptorToSecurityDescriptorW(self._memory[descriptor].value, 1, out, None)

    def GetNamedSecurityInfoW(  # noqa: N802
        self, name: str, kind: int, what: int, owner: Any, group: Any, acl: Any, sacl: Any, descriptor: Any
    ) -> int:
        assert (kind, what, group, sacl) == (1, 5, None, None)
        if not os.path.lexists(name):
            return win32.ERROR_FILE_NOT_FOUND
        self.ConvertStringSecurityDescriptorToSecurityDescriptorW(self._rights_of(name), 1, descriptor, None)
        owner.contents.value = acl.contents.value = descriptor.contents.value
        return 0

    def SetNamedSecurityInfoW(  # noqa: N802
        self, name: str, kind: int, what: int, owner: int | None, group: int | None, acl: int, sacl: int | None
    ) -> int:
        assert (kind, group, sacl) == (1, None, None)
        assert (owner == acl) == bool(what & 1)
        if self.refusing_access:
            return self.refusing_access
        self.security[name] = (self._memory[acl].value, what)
        return 0

    def _rights_of(self, name: str) -> str:
        """Return what was set, or what is inherited: from our own folders, or from a ProgramData that all may fill."""
        if name in self.security:
            return self.security[name][0]
        above = next((folder for folder in map(str, Path(name).parents) if folder in self.security), None)
        return OPEN if above is None else self.security[above][0].replace("D:P", "D:AI").replace("OICI;", "OICIID;")

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

    # What Windows does by itself

    def _service(self, handle: int, access: int) -> SimulatedService:
        service, granted = self.open_handles[handle]
        assert granted & access, f"opened with {granted:#x}, needs {access:#x}"
        assert isinstance(service, SimulatedService)
        return service

    def _spawn(self, service: SimulatedService) -> bool:
        service.stopping, service.ended_at = False, None
        try:
            service.process = subprocess.Popen(
                shlex.split(service.command_line), cwd=self.folder, env=dict(self.environment),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError:
            return False
        service.exit_code = service.own_exit_code = 0
        self.leaders.add(service.process.pid)
        return True

    def catch_up(self) -> None:
        """Note ends; start those again that failed."""
        for service in self.services.values():
            if service.process is not None and service.process.poll() is not None:
                code, asked = service.process.returncode, service.stopping
                service.process, service.stopping = None, False
                if code == 0 and asked:
                    continue
                service.exit_code, service.own_exit_code = (1066, code) if code >= 0 else (PROCESS_ABORTED, 0)
                service.ended_at = time.monotonic()
            delay = service.restarts_after if self.restart_delay is None else self.restart_delay
            failed = service.process is None and service.ended_at is not None and service.restarts_after is not None
            if failed and time.monotonic() >= (service.ended_at or 0.0) + (delay or 0.0):
                self._spawn(service)


def _number(error: OSError) -> int:
    """Return what Windows calls an error."""
    numbers = {
        errno.ENOENT: win32.ERROR_FILE_NOT_FOUND, errno.EEXIST: win32.ERROR_FILE_EXISTS,
        errno.EACCES: win32.ERROR_ACCESS_DENIED, errno.ENOSPC: win32.ERROR_DISK_FULL,
    }  # fmt: skip
    return numbers.get(error.errno or 0, win32.ERROR_INVALID_PARAMETER)
