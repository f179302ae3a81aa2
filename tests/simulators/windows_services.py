"""The service control manager of Windows: services whose programs really run."""

from __future__ import annotations

import ctypes
import shlex
import subprocess
import time
from collections.abc import Mapping
from ctypes import POINTER, c_int32, c_wchar_p, cast
from dataclasses import dataclass, field
from typing import Any

from agent.platform import win32
from agent.platform.win32 import FailureActions, ServiceConfig, ServiceStatusProcess

AUTO, DEMAND = 2, 3
STOPPED, STOP_PENDING, RUNNING = 1, 3, 4
NO_CHANGE = 0xFFFF_FFFF
PROCESS_ABORTED = 1067


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


class ServicesOfWindows:
    """The functions; a part of ``WindowsSimulator``, whose state it works on."""

    folder: str
    environment: Mapping[str, str]
    restart_delay: float | None
    slow_to_accept: int
    services: dict[str, SimulatedService]
    open_handles: dict[int, Any]
    lasting: Any
    leaders: set[int]

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
