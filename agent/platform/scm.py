"""The service control manager of Windows, one method for each thing that is asked of it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_char, c_int32, c_uint32, c_wchar_p
from dataclasses import dataclass
from typing import Any

from agent.platform import win32
from agent.platform.win32 import (
    FailureActions,
    ScAction,
    ServiceConfig,
    ServiceStatus,
    ServiceStatusProcess,
    Win32,
)

STOPPED, START_PENDING, STOP_PENDING, RUNNING = 1, 2, 3, 4

_SC_MANAGER_CONNECT, _SC_MANAGER_CREATE_SERVICE = 0x0001, 0x0002
_QUERY_CONFIG = 0x0001
_CHANGE_CONFIG, _QUERY_STATUS, _START, _STOP, _DELETE = 0x0002, 0x0004, 0x0010, 0x0020, 0x0001_0000
_ALL = _CHANGE_CONFIG | _QUERY_STATUS | _START | _STOP | _DELETE
_OWN_PROCESS = 0x10
_AUTO_START, _DEMAND_START = 2, 3
_ERROR_NORMAL = 1
_NO_CHANGE = 0xFFFF_FFFF
_CONTROL_STOP = 1
_STATUS_PROCESS_INFO = 0
_CONFIG_DESCRIPTION, _CONFIG_FAILURE_ACTIONS, _CONFIG_DELAYED_START, _CONFIG_FAILURE_FLAG = 1, 2, 3, 4
_ACTION_RESTART = 1
_RESTART_DELAY_MS = 10_000
_RESET_SECONDS = 24 * 3600
_MOST_CONFIG_BYTES = 8192
"""As much as Windows ever returns."""

_PROCESS_TERMINATE, _SYNCHRONIZE = 0x0001, 0x0010_0000


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What the manager says about a service."""

    state: int
    pid: int
    exit_code: int
    """Windows' own error number; 1066 means that ``own_exit_code`` says more."""
    own_exit_code: int


class ServiceControl:
    """Services by name. Every method raises ``WindowsFailure`` with the error number of Windows."""

    def __init__(self, api: Win32) -> None:
        self._api = api

    def state(self, name: str) -> ServiceState | None:
        """Return a service's state, ``None`` if there is no such service."""
        try:
            with self._service(name, _QUERY_STATUS) as service:
                return self._query(service)
        except win32.WindowsFailure as error:
            if error.errno == win32.ERROR_SERVICE_DOES_NOT_EXIST:
                return None
            raise

    def put(self, name: str, command_line: str) -> None:
        """Create a service that starts at boot and again after it failed, or make the one that is there so."""
        with self._manager(_SC_MANAGER_CONNECT | _SC_MANAGER_CREATE_SERVICE) as manager:
            service = self._api.advapi32.CreateServiceW(
                manager, name, name, _ALL, _OWN_PROCESS, _AUTO_START, _ERROR_NORMAL, command_line,
                None, None, None, None, None,
            )  # fmt: skip
            if not service:
                number = self._api.last_error()
                if number != win32.ERROR_SERVICE_EXISTS:
                    raise win32.failure_of("CreateServiceW", number)
            else:
                self._api.advapi32.CloseServiceHandle(service)
        with self._service(name, _ALL) as there:
            self._change(there, _AUTO_START, command_line)
            self._restart_after_failure(there, times=1)

    def point(self, name: str, command_line: str) -> None:
        """Have a service start something else from its next start on."""
        with self._service(name, _CHANGE_CONFIG) as service:
            self._change(service, _NO_CHANGE, command_line)

    def describe(self, name: str, text: str) -> None:
        """Say what a service is for, let it start after those that Windows needs, and count a bad exit as failure."""
        with self._service(name, _CHANGE_CONFIG) as service:
            self._change_more(service, _CONFIG_DESCRIPTION, c_wchar_p(text))
            self._change_more(service, _CONFIG_DELAYED_START, c_int32(1))
            self._change_more(service, _CONFIG_FAILURE_FLAG, c_int32(1))

    def command_line(self, name: str) -> str | None:
        """Return what a service starts, ``None`` if there is no such service."""
        buffer, needed = (c_char * _MOST_CONFIG_BYTES)(), c_uint32()
        try:
            with self._service(name, _QUERY_CONFIG) as service:
                done = self._api.advapi32.QueryServiceConfigW(
                    service, ctypes.addressof(buffer), ctypes.sizeof(buffer), ctypes.pointer(needed)
                )
                self._check(done, "QueryServiceConfigW")
        except win32.WindowsFailure as error:
            if error.errno == win32.ERROR_SERVICE_DOES_NOT_EXIST:
                return None
            raise
        return str(ServiceConfig.from_buffer(buffer).command_line)

    def hold_back(self, name: str) -> None:
        """Keep a service from being started at boot, and by Windows after it was ended by force."""
        with self._service(name, _CHANGE_CONFIG) as service:
            self._change(service, _DEMAND_START, None)
            self._restart_after_failure(service, times=0)

    def start(self, name: str) -> None:
        """Start a service; a running one stays as it is."""
        with self._service(name, _START) as service:
            if not self._api.advapi32.StartServiceW(service, 0, None):
                number = self._api.last_error()
                if number != win32.ERROR_SERVICE_ALREADY_RUNNING:
                    raise win32.failure_of("StartServiceW", number)

    def ask_to_stop(self, name: str) -> bool:
        """Send the stop control; return ``False`` where a service takes none, now or ever."""
        status = ServiceStatus()
        with self._service(name, _STOP) as service:
            if self._api.advapi32.ControlService(service, _CONTROL_STOP, ctypes.pointer(status)):
                return True
            number = self._api.last_error()
        if number == win32.ERROR_SERVICE_NOT_ACTIVE:
            return True
        if number == win32.ERROR_SERVICE_CANNOT_ACCEPT_CTRL:
            return False
        raise win32.failure_of("ControlService", number)

    def delete(self, name: str) -> None:
        """Remove a service; one that is not there, or on its way out, is removed already."""
        try:
            with self._service(name, _DELETE) as service:
                self._check(self._api.advapi32.DeleteService(service), "DeleteService")
        except win32.WindowsFailure as error:
            if error.errno not in {win32.ERROR_SERVICE_DOES_NOT_EXIST, win32.ERROR_SERVICE_MARKED_FOR_DELETE}:
                raise

    @contextmanager
    def process(self, pid: int) -> Iterator[ServiceProcess | None]:
        """Hold a process, so that its id stays its own; ``None`` if there is none of that id."""
        handle = self._api.kernel32.OpenProcess(_PROCESS_TERMINATE | _SYNCHRONIZE, 0, pid) if pid else None
        if not handle:
            if pid and (number := self._api.last_error()) != win32.ERROR_INVALID_PARAMETER:
                raise win32.failure_of("OpenProcess", number)
            yield None
            return
        try:
            yield ServiceProcess(self._api, handle)
        finally:
            self._api.kernel32.CloseHandle(handle)

    def _change(self, service: int, start_type: int, command_line: str | None) -> None:
        done = self._api.advapi32.ChangeServiceConfigW(
            service, _NO_CHANGE, start_type, _NO_CHANGE, command_line, None, None, None, None, None, None
        )
        self._check(done, "ChangeServiceConfigW")

    def _restart_after_failure(self, service: int, times: int) -> None:
        # The last action is repeated, so one is for ever; none with a pointer that is not null deletes those there.
        actions = (ScAction * 1)(ScAction(_ACTION_RESTART, _RESTART_DELAY_MS))
        failure = FailureActions(_RESET_SECONDS, None, None, times, actions)
        self._change_more(service, _CONFIG_FAILURE_ACTIONS, failure)

    def _change_more(self, service: int, what: int, value: Any) -> None:
        done = self._api.advapi32.ChangeServiceConfig2W(service, what, ctypes.addressof(value))
        self._check(done, "ChangeServiceConfig2W")

    def _query(self, service: int) -> ServiceState:
        status, needed = ServiceStatusProcess(), ctypes.c_uint32()
        done = self._api.advapi32.QueryServiceStatusEx(
            service, _STATUS_PROCESS_INFO, ctypes.pointer(status), ctypes.sizeof(status), ctypes.pointer(needed)
        )
        self._check(done, "QueryServiceStatusEx")
        return ServiceState(
            status.current_state, status.process_id, status.win32_exit_code, status.service_exit_code
        )  # fmt: skip

    @contextmanager
    def _manager(self, access: int) -> Iterator[int]:
        manager = self._api.advapi32.OpenSCManagerW(None, None, access)
        if not manager:
            raise self._api.failure("OpenSCManagerW")
        try:
            yield manager
        finally:
            self._api.advapi32.CloseServiceHandle(manager)

    @contextmanager
    def _service(self, name: str, access: int) -> Iterator[int]:
        with self._manager(_SC_MANAGER_CONNECT) as manager:
            service = self._api.advapi32.OpenServiceW(manager, name, access)
            if not service:
                raise self._api.failure("OpenServiceW")
            try:
                yield service
            finally:
                self._api.advapi32.CloseServiceHandle(service)

    def _check(self, done: int, call: str) -> None:
        if not done:
            raise self._api.failure(call)


class ServiceProcess:
    """A process that is held by its handle."""

    def __init__(self, api: Win32, handle: int) -> None:
        self._api = api
        self._handle = handle

    def ended(self) -> bool:
        """Whether it has ended."""
        return int(self._api.kernel32.WaitForSingleObject(self._handle, 0)) != win32.WAIT_TIMEOUT

    def terminate(self) -> None:
        """End it at once (``TerminateProcess``); raise ``WindowsFailure`` if that is refused and it still runs."""
        if not self._api.kernel32.TerminateProcess(self._handle, 1):
            failure = self._api.failure("TerminateProcess")
            if not self.ended():
                raise failure
